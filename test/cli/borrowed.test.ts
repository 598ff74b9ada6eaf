/** Servers that a reading command starts for itself: it says so at once, and they end with it, also where a signal ends it. */
import assert from 'node:assert/strict';
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { ensureServers, stopServers } from '../../infra/servers.ts';
import { bareEnvironment, newHome, processesWithHome } from '../support/loop.ts';
import { NO_SERVERS, ratchet } from './cli.ts';

const home = newHome();
const env = bareEnvironment(home);

before(async () => {
  const servers = await ensureServers({ home: home.path, onProgress: () => {}, env });
  await servers.stop();
});
after(async () => {
  for (const child of children) child.kill('SIGKILL');
  await stopServers(home.path);
  home.remove();
});

/** Those that a failed test leaves behind would keep this file from ending. */
const children = new Set<ChildProcess>();

/** A reading command, once it said `when`, on its channel or on standard error. */
async function borrower(when: RegExp): Promise<ChildProcess> {
  const child = fork(join(import.meta.dirname, 'borrower.ts'), { env, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
  children.add(child);
  let told = '';
  await new Promise<void>((resolve, reject) => {
    const hear = (text: string) => {
      told += text;
      if (when.test(told)) resolve();
    };
    child.stderr?.setEncoding('utf8').on('data', hear);
    child.on('message', hear);
    child.on('exit', () => reject(new Error(`it ended by itself: ${told}`)));
  });
  return child;
}

/** Ends the command by a signal. Returns how it ended and what it left. */
async function ended(child: ChildProcess, signal: NodeJS.Signals) {
  const exited = once(child, 'exit');
  child.kill(signal);
  const [, by] = (await exited) as [number | null, NodeJS.Signals | null];
  return { by, left: processesWithHome(home) };
}

test('a signal that ends a reading command ends the servers that it started for itself', async () => {
  assert.deepEqual(await ended(await borrower(/open/), 'SIGTERM'), { by: 'SIGTERM', left: [] });
});

test('also while they are being started', async () => {
  assert.deepEqual(await ended(await borrower(/for the time of/), 'SIGINT'), { by: 'SIGINT', left: [] });
});

test('several share them: who ends first takes them from nobody, and the last one ends them', async () => {
  const first = await borrower(/open/);
  const second = await borrower(/open/);
  const others = processesWithHome(home).filter((line) => !line.startsWith(`${first.pid}:`));
  assert.deepEqual(await ended(first, 'SIGTERM'), { by: 'SIGTERM', left: others });
  const told = once(second, 'message');
  second.send('read');
  assert.deepEqual((await told)[0], '0 runs');
  // A command that needs workers, and so servers that stay, does not count on them.
  const { code, err } = await ratchet(['pause', 'some-run'], { env: { ...NO_SERVERS, RATCHET_HOME: home.path } });
  assert.equal(code, 3);
  assert.match(err, /no servers run for/);
  // Servers that the environment names are nobody's to borrow.
  const named = await ratchet(['pause', 'some-run'], { env: { RATCHET_HOME: home.path } });
  assert.deepEqual([named.code, /run: "some-run" is not valid/.test(named.err)], [2, true], named.err);
  assert.deepEqual(await ended(second, 'SIGTERM'), { by: 'SIGTERM', left: [] });
});

test('what a killed command leaves behind, the next one ends', async () => {
  const { by, left } = await ended(await borrower(/open/), 'SIGKILL');
  assert.deepEqual([by, left.length], ['SIGKILL', 2]);
  const { code } = await ratchet(['ls', '--json'], { env: { ...NO_SERVERS, RATCHET_HOME: home.path } });
  assert.equal(code, 0);
  assert.deepEqual(processesWithHome(home), []);
});

test('many at once, each ending when it likes: none fails, and nothing is left', async () => {
  const all = await Promise.all(
    Array.from({ length: 6 }, async () => ratchet(['ls', '--json'], { env: { ...NO_SERVERS, RATCHET_HOME: home.path } })),
  );
  assert.deepEqual(
    all.map(({ code, out }) => [code, out.trim()]),
    all.map(() => [0, '[]']),
  );
  assert.deepEqual(processesWithHome(home), []);
});

test('says on standard error what it starts, and leaves standard output to the result', async () => {
  const { code, out, err } = await ratchet(['ls', '--json'], { env: { ...NO_SERVERS, RATCHET_HOME: home.path } });
  assert.equal(code, 0);
  assert.deepEqual(JSON.parse(out), []);
  assert.match(err, /^servers: Temporal and the S3 server, for the time of this command/);
  assert.deepEqual(processesWithHome(home), []);
});
