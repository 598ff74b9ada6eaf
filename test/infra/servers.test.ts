import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { GetObjectCommand, ListObjectsV2Command, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { Client, Connection } from '@temporalio/client';
import { diagnose } from '../../infra/doctor.ts';
import { homePaths, makeHome, readHome } from '../../infra/home.ts';
import type { HomeRecord } from '../../infra/home.ts';
import { LOOPBACK } from '../../infra/ports.ts';
import { identify, processesWithArguments } from '../../infra/processes.ts';
import { ensureServers, runningServers, serversStatus, stopServers } from '../../infra/servers.ts';
import type { Endpoints, ProcessEvent, Servers } from '../../infra/servers.ts';
import { cleanEnvironment, temporaryDirectory, until } from './clean.ts';

const env = cleanEnvironment();
const quiet = { env, onProgress: () => {} };
/** Noticing a death and having the port served again; a loaded machine needs longer for the second half. */
const NOTICED_MS = 1_000;

const newHome = () => join(temporaryDirectory(), '.ratchet');
const recordOf = (home: string) => JSON.parse(readFileSync(homePaths(home).record, 'utf8')) as HomeRecord;

/** Every process on this home's data, recorded or not. */
async function processesOf(home: string): Promise<number[]> {
  const found = await Promise.all([homePaths(home).temporalDatabase, homePaths(home).s3Data].map((path) => processesWithArguments([path])));
  return found.flat().map(({ pid }) => pid);
}

function s3Of({ s3 }: Endpoints): S3Client {
  const credentials = { accessKeyId: s3.accessKeyId!, secretAccessKey: s3.secretAccessKey! };
  return new S3Client({ endpoint: s3.endpoint!, region: s3.region, forcePathStyle: s3.forcePathStyle, credentials });
}

async function putText(endpoints: Endpoints, key: string, text: string): Promise<void> {
  await s3Of(endpoints).send(new PutObjectCommand({ Bucket: endpoints.s3.bucket, Key: key, Body: text }));
}

async function getText(endpoints: Endpoints, key: string): Promise<string> {
  const { Body } = await s3Of(endpoints).send(new GetObjectCommand({ Bucket: endpoints.s3.bucket, Key: key }));
  return await Body!.transformToString();
}

async function withTemporal<T>({ temporal }: Endpoints, work: (client: Client) => Promise<T>): Promise<T> {
  const connection = await Connection.connect({ address: temporal.address });
  try {
    return await work(new Client({ connection, namespace: temporal.namespace }));
  } finally {
    await connection.close();
  }
}

/** Kills with SIGKILL and waits for the replacement. Returns the time from the kill to its start and until it answers. */
async function killAndWait(servers: Servers, name: 'temporal' | 's3'): Promise<{ noticedMs: number; readyMs: number }> {
  const events: ProcessEvent[] = [];
  const end = servers.onExit((event) => void (event.name === name && events.push(event)));
  process.kill(servers.pids[name]!, 'SIGKILL');
  const noticedMs = await until(`${name} exit noticed`, () => events.some(({ kind }) => kind === 'exited'));
  const readyMs = noticedMs + (await until(`${name} ready again`, () => events.some(({ kind }) => kind === 'ready'), 60_000));
  end();
  return { noticedMs, readyMs };
}

/** Another process that uses the home, once its servers are ready. */
async function user(home: string): Promise<{ child: ChildProcess; pids: { temporal: number; s3: number }; endpoints: Endpoints }> {
  const child = fork(join(import.meta.dirname, 'servers-user.ts'), [home], { env: env as NodeJS.ProcessEnv });
  const [message] = (await once(child, 'message')) as [{ pids: { temporal: number; s3: number }; endpoints: Endpoints }];
  return { child, ...message };
}

test('both servers start, survive kill -9 with ports, credentials and data, and stop without a trace', async () => {
  const home = newHome();
  const servers = await ensureServers({ home, ...quiet });
  try {
    const { endpoints } = servers;
    await putText(endpoints, 'a/b', 'kept');
    await withTemporal(endpoints, async (client) => {
      const typed = { RatchetPhase: ['collect'], RatchetIteration: [3], RatchetRecipe: ['agentprm'], RatchetBestSuccess: [0.5] };
      // No worker is needed: the workflow waits for one, across the restart.
      await client.workflow.start('anything', { workflowId: 'kept', taskQueue: 'none', searchAttributes: typed });
    });

    for (const name of ['s3', 'temporal'] as const) {
      const before = servers.pids[name];
      const { noticedMs } = await killAndWait(servers, name);
      assert.ok(noticedMs < NOTICED_MS, `${name} noticed after ${noticedMs} ms`);
      assert.notEqual(servers.pids[name], before);
    }
    // The same addresses and keys, without asking again.
    assert.equal(await getText(endpoints, 'a/b'), 'kept');
    await withTemporal(endpoints, async (client) => {
      const { status } = await client.workflow.getHandle('kept').describe();
      assert.equal(status.name, 'RUNNING');
      const query = 'RatchetPhase="collect" AND RatchetIteration>=3 AND RatchetRecipe="agentprm" AND RatchetBestSuccess>0.4';
      await until('found by its search attributes', async () => (await client.workflow.count(query)).count === 1);
    });
    const ui = await fetch(endpoints.temporal.uiUrl!);
    assert.equal(ui.status, 200);

    await until('recorded', async () => (await serversStatus(home, env)).temporal.state === 'running');
    const status = await serversStatus(home, env);
    assert.deepEqual(status.temporal, { state: 'running', reason: null, pid: servers.pids.temporal, restarts: 1 });
    assert.deepEqual(status.s3, { state: 'running', reason: null, pid: servers.pids.s3, restarts: 1 });
    assert.equal(status.disk!.full, false);
    assert.deepEqual(await runningServers(home, env), endpoints);

    const checks = await diagnose(home, env);
    assert.deepEqual(
      checks.filter(({ state }) => state === 'failed'),
      [],
    );
    assert.match(checks.find(({ name }) => name === 's3 server')!.found, /bucket ratchet is there/);
    assert.match(checks.find(({ name }) => name === 'temporal server')!.found, /running at/);
  } finally {
    await servers.stop();
  }
  assert.deepEqual(await processesOf(home), []);
  assert.equal(await runningServers(home, env), null);

  const again = await ensureServers({ home, ...quiet });
  try {
    assert.deepEqual(again.endpoints, servers.endpoints, 'ports and credentials are remembered');
    assert.equal(await getText(again.endpoints, 'a/b'), 'kept');
    assert.equal((await serversStatus(home, env)).s3.restarts, 0);
  } finally {
    await again.stop();
  }
});

test('only this machine can reach the servers, and only the owner can read the secret', async () => {
  const home = newHome();
  const servers = await ensureServers({ home, ...quiet });
  try {
    for (const pid of Object.values(servers.pids)) {
      const addresses = listeningAddresses(pid);
      assert.ok(addresses.length > 0);
      for (const address of addresses)
        assert.match(address, /^(0100007F|00000000000000000000000001000000|0000000000000000FFFF00000100007F):/);
      assert.ok(!readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(servers.endpoints.s3.secretAccessKey!));
    }
    assert.equal(statSync(home).mode & 0o777, 0o700);
    const holders = filesBelow(home).filter((path) => readFileSync(path).includes(servers.endpoints.s3.secretAccessKey!));
    assert.deepEqual(holders, [homePaths(home).credentials]);
    assert.equal(statSync(homePaths(home).credentials).mode & 0o777, 0o600);
    const stranger = s3Of({ ...servers.endpoints, s3: { ...servers.endpoints.s3, secretAccessKey: 'guessed' } });
    await assert.rejects(stranger.send(new ListObjectsV2Command({ Bucket: 'ratchet' })), { name: 'SignatureDoesNotMatch' });
  } finally {
    await servers.stop();
  }
});

test('two processes at once share one pair of servers; the first to leave leaves them, the last one ends them', async () => {
  const home = newHome();
  const [first, second] = await Promise.all([user(home), user(home)]);
  assert.deepEqual(first.endpoints, second.endpoints);
  assert.deepEqual(first.pids, second.pids);
  assert.deepEqual((await processesOf(home)).sort(), Object.values(first.pids).sort());

  first.child.send('stop');
  await once(first.child, 'exit');
  await putText(second.endpoints, 'still', 'there');

  // Whoever did not start a server restarts it all the same.
  const events: ProcessEvent[] = [];
  second.child.on('message', ({ event }: { event?: ProcessEvent }) => void (event && events.push(event)));
  process.kill(second.pids.s3, 'SIGKILL');
  const noticed = await until('noticed by the one that is left', () => events.some(({ kind }) => kind === 'exited'));
  assert.ok(noticed < NOTICED_MS, `${noticed} ms`);
  await until('restarted', () => events.some(({ kind }) => kind === 'ready'));
  assert.equal(await getText(second.endpoints, 'still'), 'there');

  second.child.send('stop');
  await once(second.child, 'exit');
  assert.deepEqual(await processesOf(home), []);
});

test('servers whose user was killed go on, are adopted by the next, and rest when they are stopped by hand', async () => {
  const home = newHome();
  const killed = await user(home);
  await putText(killed.endpoints, 'before', 'the crash');
  killed.child.kill('SIGKILL');
  await once(killed.child, 'exit');

  const servers = await ensureServers({ home, ...quiet });
  try {
    assert.deepEqual(servers.pids, killed.pids);
    assert.deepEqual(servers.endpoints, killed.endpoints);
    const { noticedMs } = await killAndWait(servers, 's3');
    assert.ok(noticedMs < NOTICED_MS, `noticed after ${noticedMs} ms`);
    assert.equal(await getText(servers.endpoints, 'before'), 'the crash');
    const { pids: before } = await user(home).then(async (other) => {
      other.child.send('release');
      await once(other.child, 'exit');
      return other;
    });
    assert.deepEqual(servers.pids, before);

    const stopped: string[] = [];
    servers.onExit(({ kind, name }) => void (kind === 'stopped' && stopped.push(name)));
    await stopServers(home);
    assert.deepEqual(await processesOf(home), []);
    await until('both left to rest', () => stopped.length === 2);
    assert.deepEqual(await processesOf(home), []);
    assert.equal((await serversStatus(home, env)).temporal.state, 'stopped');
  } finally {
    await servers.stop();
  }
});

test('a record of dead processes, and of a pid that now is somebody else, is stale: nobody is harmed', async () => {
  const home = newHome();
  const servers = await ensureServers({ home, ...quiet });
  await servers.stop();
  const record = recordOf(home);
  // This very process under another start time, and a pid that cannot be.
  record.temporal!.process = { pid: process.pid, startedAt: 'another start' };
  record.s3!.process = { pid: 2 ** 22 + 1, startedAt: 'long ago' };
  Object.assign(record, { wanted: true, users: [{ pid: 2 ** 22 + 2, startedAt: 'long ago', token: 'dead' }] });
  for (const name of ['temporal', 's3'] as const) record[name]!.state = 'running';
  writeFileSync(homePaths(home).record, JSON.stringify(record));

  assert.equal(await runningServers(home, env), null);
  assert.equal((await serversStatus(home, env)).temporal.state, 'down');
  const again = await ensureServers({ home, ...quiet });
  try {
    assert.deepEqual(again.endpoints, servers.endpoints);
    assert.deepEqual((await readHome(home))!.users.length, 1);
  } finally {
    await again.stop();
  }
});

test('servers that nobody recorded make room for new ones on the same data', async () => {
  const home = newHome();
  const killed = await user(home);
  await putText(killed.endpoints, 'kept', 'data');
  killed.child.kill('SIGKILL');
  await once(killed.child, 'exit');
  const orphans = await Promise.all([identify(killed.pids.temporal), identify(killed.pids.s3)]);
  assert.ok(orphans.every(Boolean));
  rmSync(homePaths(home).record);

  const servers = await ensureServers({ home, ...quiet });
  try {
    assert.deepEqual((await processesOf(home)).sort(), Object.values(servers.pids).sort());
    assert.equal(await getText(servers.endpoints, 'kept'), 'data');
  } finally {
    await servers.stop();
  }
});

test('a restart waits for a port that lingers; a home at rest moves when its port was taken', async () => {
  const home = newHome();
  const before = await ensureServers({ home, ...quiet });
  await before.stop();
  const squat = async () => {
    const server = createServer().listen({ host: LOOPBACK, port: recordOf(home).s3!.port, exclusive: true });
    await once(server, 'listening');
    return server;
  };
  // As after a crash in the middle of use: another process that lives knows these ports.
  const record = recordOf(home);
  record.s3!.process = { pid: process.pid, startedAt: 'another start' };
  record.users = [{ ...(await identify(process.pid))!, token: 'another' }];
  writeFileSync(homePaths(home).record, JSON.stringify(record));
  const lingering = await squat();
  const lingeringMs = 500;
  setTimeout(() => lingering.close(), lingeringMs);
  const start = performance.now();
  const restarted = await ensureServers({ home, ...quiet });
  assert.ok(performance.now() - start >= lingeringMs);
  assert.deepEqual(restarted.endpoints, before.endpoints);
  await stopServers(home);
  await restarted.stop();

  const thief = await squat();
  const moved = await ensureServers({ home, ...quiet });
  try {
    assert.notEqual(moved.endpoints.s3.endpoint, before.endpoints.s3.endpoint);
    assert.deepEqual(moved.endpoints.temporal, before.endpoints.temporal);
    await putText(moved.endpoints, 'x', 'at the new port');
  } finally {
    await moved.stop();
    thief.close();
  }
});

test('where the file system keeps no extended attributes, metadata goes beside the objects, from the first object on', async () => {
  const home = newHome();
  await makeHome(home);
  // What the S3 server says before it ends on such a file system.
  writeFileSync(homePaths(home).log('s3'), 'failed to init posix: xattrs are not supported on this filesystem\n');
  const servers = await ensureServers({ home, ...quiet });
  try {
    await putText(servers.endpoints, 'a', 'b');
    assert.ok(filesBelow(homePaths(home).s3Sidecar).length > 0);
    writeFileSync(homePaths(home).log('s3'), '');
    await killAndWait(servers, 's3');
    assert.equal(await getText(servers.endpoints, 'a'), 'b');
    assert.equal(recordOf(home).s3!.sidecar, true);
  } finally {
    await servers.stop();
  }
});

test('servers that the environment names are used, never started, and must answer', async () => {
  const home = newHome();
  const servers = await ensureServers({ home, ...quiet });
  const elsewhere = newHome();
  const { temporal, s3 } = servers.endpoints;
  const named = {
    ...env,
    TEMPORAL_ADDRESS: temporal.address,
    AWS_ENDPOINT_URL_S3: s3.endpoint!,
    AWS_ACCESS_KEY_ID: s3.accessKeyId!,
    AWS_SECRET_ACCESS_KEY: s3.secretAccessKey!,
    RATCHET_BUCKET: 'another',
  };
  try {
    const external = await ensureServers({ home: elsewhere, env: named, onProgress: () => {} });
    assert.equal(external.endpoints.temporal.address, temporal.address);
    assert.deepEqual(external.endpoints.s3, { ...s3, bucket: 'another' });
    assert.deepEqual(external.pids, {});
    await putText(external.endpoints, 'x', 'the bucket was made');
    await external.stop();
    assert.throws(() => statSync(elsewhere), { code: 'ENOENT' });

    const refused = { ...named, AWS_SECRET_ACCESS_KEY: 'wrong' };
    await assert.rejects(ensureServers({ home: elsewhere, env: refused, onProgress: () => {} }), {
      type: 'Unavailable',
      message: /refuses these credentials/,
    });
  } finally {
    await servers.stop();
  }
  // The same addresses, now with nobody there.
  await assert.rejects(ensureServers({ home: elsewhere, env: named, onProgress: () => {} }), {
    type: 'Unavailable',
    message: /S3 at .* does not answer/,
  });
  const temporalOnly = { ...env, TEMPORAL_ADDRESS: temporal.address };
  await assert.rejects(ensureServers({ home: elsewhere, env: temporalOnly, onProgress: () => {} }), {
    type: 'Unavailable',
    message: /Temporal at .* does not answer/,
  });
});

/** Local addresses, in the kernel's hexadecimal, on which a process accepts connections. */
function listeningAddresses(pid: number): string[] {
  const sockets = new Set<string>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    const match = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`));
    if (match) sockets.add(match[1]!);
  }
  const rows = ['tcp', 'tcp6'].flatMap((table) => readFileSync(`/proc/${pid}/net/${table}`, 'utf8').split('\n').slice(1));
  const fields = rows.map((row) => row.trim().split(/\s+/));
  return fields.filter((row) => row[3] === '0A' && sockets.has(row[9]!)).map((row) => row[1]!);
}

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}
