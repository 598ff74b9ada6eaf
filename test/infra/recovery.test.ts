import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { homePaths, makeHome, readHome } from '../../infra/home.ts';
import { LOOPBACK } from '../../infra/ports.ts';
import { identify } from '../../infra/processes.ts';
import { ensureServers, runningServers, serversStatus, stopServers } from '../../infra/servers.ts';
import { until } from './clean.ts';
import { NOTICED_MS, env, filesBelow, getText, killAndWait, newHome, processesOf, putText, quiet, recordOf, user } from './homes.ts';

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
