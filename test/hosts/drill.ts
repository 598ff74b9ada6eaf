/**
 * Workers on many machines, with three hosts as network namespaces: the servers, a host with the loop and cpu workers, a host with the gpu worker. They share
 * the program and no data: each has its own home, cache, temporary folder, credentials at the store and client certificate. Twice the same recipe and seed:
 * once in peace, once with the link to the gpu host cut in the middle of a fit for longer than the heartbeat timeout, and with the gpu worker killed
 * in the middle of an update, to be started on the other host. Both must come to one head.
 *
 *   npm run drill:hosts            (Linux, as root; about two minutes on two cores; exit code 3 where namespaces are not permitted)
 */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { HEARTBEAT_TIMEOUT_MS } from '../../workflows/stage-proxies.ts';
import { authorityIn, certificateIn, makeCertificates } from '../support/certificates.ts';
import { strikeEnvironment } from '../support/loop.ts';
import { makeNetwork, refusal } from './network.ts';
import { ACCOUNTS, API_KEY, BUCKET, S3_PORT, TEMPORAL_PORT } from './places.ts';

const ROOT = join(import.meta.dirname, '..', '..');
/** A micro run takes some 20 s; the cut, the lost heartbeats and the death of a worker some 15 s each. */
const RUN_BOUND_MS = 240_000;
const SEEN_BOUND_MS = 60_000;
/** Long enough that the server gives the work up while the host cannot be told. */
const CUT_MS = HEARTBEAT_TIMEOUT_MS + 5_000;
const LOOK_EVERY_MS = 20;

const why = refusal();
if (why !== null) {
  console.log(`skipped: ${why}`);
  process.exit(3);
}

const folder = mkdtempSync(join(tmpdir(), 'ratchet-hosts-'));
const started = performance.now();
const say = (text: string): void => console.log(`${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s  ${text}`);
const network = makeNetwork(['servers', 'a', 'b']);
const processes: { child: ChildProcess; name: string; output: () => string }[] = [];

function start(host: 'servers' | 'a' | 'b', name: string, args: string[], env: Record<string, string>): (typeof processes)[number] {
  const kept = Object.fromEntries(['PATH', 'HOME', 'XDG_CACHE_HOME'].flatMap((key) => (process.env[key] ? [[key, process.env[key]]] : [])));
  const child = network.start(host, [process.execPath, ...args], {
    cwd: ROOT,
    env: { ...kept, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', (text: string) => (output += text));
  const one = { child, name, output: () => output };
  processes.push(one);
  return one;
}

/** What a worker or a command at a host is configured with: nothing but the standard variables. */
function environmentOf(host: 'a' | 'b'): Record<string, string> {
  const own = join(folder, host);
  mkdirSync(join(own, 'tmp'), { recursive: true });
  const servers = network.addressOf('servers');
  const tls = join(folder, 'tls');
  return {
    RATCHET_HOME: join(own, 'home'),
    RATCHET_CACHE: join(own, 'cache'),
    TMPDIR: join(own, 'tmp'),
    RATCHET_S3_ENDPOINT: `https://${servers}:${S3_PORT}`,
    NODE_EXTRA_CA_CERTS: authorityIn(tls),
    AWS_ACCESS_KEY_ID: ACCOUNTS[host].access,
    AWS_SECRET_ACCESS_KEY: ACCOUNTS[host].secret,
    RATCHET_BUCKET: BUCKET,
    TEMPORAL_ADDRESS: `${servers}:${TEMPORAL_PORT}`,
    TEMPORAL_NAMESPACE: 'default',
    TEMPORAL_API_KEY: API_KEY,
    TEMPORAL_TLS_SERVER_CA_CERT_PATH: authorityIn(tls),
    TEMPORAL_TLS_CLIENT_CERT_PATH: certificateIn(tls, host).certificate,
    TEMPORAL_TLS_CLIENT_KEY_PATH: certificateIn(tls, host).key,
  };
}

const CLI = join('cli', 'ratchet.js');
const worker = (host: 'a' | 'b', queues: string, env: Record<string, string> = {}) => {
  say(`host ${host}: ratchet worker --queues ${queues}`);
  return start(host, `worker ${queues} at ${host}`, [CLI, 'worker', '--queues', queues], { ...environmentOf(host), ...env });
};

async function command(
  host: 'a' | 'b',
  args: string[],
  env: Record<string, string> = {},
): Promise<{ code: number | null; output: string }> {
  const { child, output } = start(host, args.join(' '), [CLI, ...args], { ...environmentOf(host), ...env });
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, output: output() };
}

async function until(what: string, happened: () => boolean | Promise<boolean>, boundMs = SEEN_BOUND_MS): Promise<void> {
  const deadline = performance.now() + boundMs;
  while (!(await happened())) {
    if (performance.now() > deadline) throw new Error(`not seen within ${boundMs} ms: ${what}`);
    await delay(LOOK_EVERY_MS);
  }
}

/** Launches the run and waits for its end. */
async function run(id: string): Promise<string> {
  const { code, output } = await command('a', ['run', 'agentprm-household', '--scale', 'micro', '--seed', '1', '--id', id]);
  assert.equal(code, 0, output);
  return output;
}
const finished = async (id: string): Promise<void> => {
  const { code, output } = await command('a', ['watch', id]);
  assert.equal(code, 0, output);
};
/** `verify` reads the store alone; it prints the head. */
async function headOf(id: string): Promise<string> {
  const { code, output } = await command('a', ['verify', id]);
  assert.equal(code, 0, output);
  const head = /^head ([0-9a-f]{64})/m.exec(output)?.[1];
  assert.ok(head, output);
  return head;
}
const drained = async ({ child, name, output }: (typeof processes)[number]): Promise<void> => {
  child.kill('SIGTERM');
  assert.deepEqual(await once(child, 'exit'), [0, null], `${name}\n${output()}`);
};

async function drill(): Promise<void> {
  mkdirSync(join(folder, 'tls'));
  makeCertificates(join(folder, 'tls'), { name: 'servers', at: `IP:${network.addressOf('servers')}` }, ['a', 'b']);
  const servers = start('servers', 'servers', [join(import.meta.dirname, 'servers.ts'), folder, network.addressOf('servers')], {});
  await until('the servers are up', () => {
    assert.equal(servers.child.exitCode, null, servers.output());
    return existsSync(join(folder, 'ready'));
  });
  say('the servers are up, behind TLS; the store has an account for each host');

  for (const [what, wrong, said] of [
    ['with another API key', { TEMPORAL_API_KEY: 'wrong' }, /no valid API key/],
    [
      'without a client certificate',
      { TEMPORAL_TLS_CLIENT_CERT_PATH: '', TEMPORAL_TLS_CLIENT_KEY_PATH: '' },
      /Temporal .* does not answer/,
    ],
    ['with another secret at the store', { AWS_SECRET_ACCESS_KEY: 'wrong' }, /403/],
  ] as const) {
    const { code, output } = await command('b', ['run', 'agentprm-household', '--scale', 'micro', '--id', 'refused'], wrong);
    assert.equal(code, 3, output);
    assert.match(output, said);
    say(`${what}: exit code 3: ${output.trim().slice(0, 120)}`);
  }

  const a = worker('a', 'loop,cpu');
  await run('peace');
  await until('status says that the gpu queue is not served', async () => {
    const { code, output } = await command('a', ['status', 'peace']);
    return code === 0 && output.includes('no worker serves the queue ratchet-gpu');
  });
  say('status: no worker serves the queue ratchet-gpu');
  const quiet = worker('b', 'gpu');
  await finished('peace');
  const head = await headOf('peace');
  say(`undisturbed: head ${head}`);
  await drained(quiet);

  const strikes = join(folder, 'strikes');
  const strikeEnv = strikeEnvironment(strikes, [
    { target: 'harness', moment: { at: 'progress', stage: 'fitRewardModel', done: 1 } },
    { target: 'worker', moment: { at: 'progress', stage: 'updatePolicy', done: 2, phase: 'policy update', call: 0 } },
  ]);
  const hurt = worker('b', 'gpu', strikeEnv);
  await run('hurt');
  const struck = (index: number) => existsSync(join(strikes, `${index}.struck`));
  await until('the fit is under way', () => struck(0));
  network.link('b', false);
  writeFileSync(join(strikes, '0.go'), '');
  const cutAt = performance.now();
  say(`in the middle of the fit: the link to host b is cut; heartbeats time out after ${HEARTBEAT_TIMEOUT_MS} ms`);
  const lost = 'reward model: attempt 2 after the worker was lost in the middle of it';
  await until('status says that the worker was lost', async () => (await command('a', ['status', 'hurt'])).output.includes(lost));
  say(`status: ${lost}`);
  await delay(Math.max(0, cutAt + CUT_MS - performance.now()));
  network.link('b', true);
  say(`the link is whole again after ${((performance.now() - cutAt) / 1000).toFixed(1)} s`);
  await until('the update is under way, and its worker killed', () => struck(1) && hurt.child.signalCode === 'SIGKILL', RUN_BOUND_MS);
  say('in the middle of the update: the gpu worker of host b is killed');
  const other = worker('a', 'gpu');
  await finished('hurt');
  const after = await headOf('hurt');
  say(`disturbed:   head ${after}`);
  assert.equal(after, head);
  await drained(other);
  await drained(a);
  await drained(servers);
}

let failure: unknown = null;
try {
  await drill();
  say('same head, verified, nothing left behind');
} catch (error) {
  failure = error;
  console.error(error);
  for (const { name, output } of processes) console.error(`--- ${name}\n${output().slice(-3_000)}`);
} finally {
  for (const { child } of processes) if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
  await delay(500);
  network.remove();
  if (failure === null) rmSync(folder, { recursive: true, force: true });
  else console.error(`kept for a look: ${folder}`);
}
process.exit(failure === null ? 0 : 1);
