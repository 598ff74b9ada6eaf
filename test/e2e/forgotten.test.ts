/**
 * A run whose history Temporal no longer keeps, because the retention has passed: the store still tells all of it, also how it ended. That finished runs are
 * told from the store alone is shown in test/cli/reading.test.ts; here is one that was cancelled, which no record says.
 */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import { executionState } from '../../cli/launch.ts';
import { homePaths } from '../../infra/home.ts';
import { runningServers } from '../../infra/servers.ts';
import { bareEnvironment, cli, newHome, processesWithHome } from '../support/loop.ts';

/** A stage in flight ends within seconds of being cancelled; other tests run beside it. */
const ASK_BOUND_MS = 120_000;
const LOOK_EVERY_MS = 100;

const home = newHome();
let client: Client;

async function ratchet(...args: string[]): Promise<string> {
  const run = cli(home, args);
  const { code } = await run.exited;
  assert.equal(code, 0, `${args.join(' ')}\n${run.output()}`);
  return run.output();
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  for (const deadline = performance.now() + ASK_BOUND_MS; !(await holds()); await delay(LOOK_EVERY_MS))
    assert.ok(performance.now() < deadline, `${what}: not within ${ASK_BOUND_MS} ms`);
}

async function up(): Promise<Client> {
  await ratchet('up');
  const endpoints = await runningServers(home.path, bareEnvironment(home));
  assert.ok(endpoints);
  return new Client({ connection: await Connection.connect({ address: endpoints.temporal.address }) });
}

before(async () => {
  client = await up();
});
after(async () => {
  await client?.connection.close();
  await ratchet('down');
  const left = processesWithHome(home);
  home.remove();
  assert.deepEqual(left, []);
});

test('a cancelled run is still known as cancelled, with the same records, when Temporal has forgotten it', async () => {
  await ratchet('run', 'agentprm-household', '--scale', 'micro', '--id', 'ended');
  await ratchet('cancel', 'ended');
  await until('the run ends', async () => (await executionState(client, 'ended')) === 'CANCELLED');
  const told = async () => JSON.parse(await ratchet('ls', '--json')) as { run: string; state: string }[];
  const before = await told();
  assert.deepEqual(
    before.map(({ run, state }) => [run, state]),
    [['ended', 'cancelled']],
  );
  // As when the retention has passed, only at once: the server takes half a minute to delete a run that it is told to.
  await client.connection.close();
  await ratchet('down');
  rmSync(dirname(homePaths(home.path).temporalDatabase), { recursive: true });
  client = await up();
  assert.equal(await executionState(client, 'ended'), null);
  assert.deepEqual(await told(), before);
});
