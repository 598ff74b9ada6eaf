import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import { test } from 'node:test';
import { ListObjectsV2Command } from '@aws-sdk/client-s3';
import { diagnose } from '../../infra/doctor.ts';
import { homePaths } from '../../infra/home.ts';
import { ensureServers, runningServers, serversStatus } from '../../infra/servers.ts';
import type { ProcessEvent } from '../../infra/servers.ts';
import { until } from './clean.ts';
import {
  NOTICED_MS,
  env,
  filesBelow,
  getText,
  killAndWait,
  listeningAddresses,
  newHome,
  processesOf,
  putText,
  quiet,
  s3Of,
  user,
  withTemporal,
} from './homes.ts';

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
    // Who asks second waits for the same end.
    const first = again.stop();
    await again.stop();
    assert.deepEqual(await processesOf(home), []);
    await first;
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
