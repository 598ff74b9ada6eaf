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
import { signingKey } from '../../artifacts/attestation.ts';
import { readEnding } from '../../artifacts/ending.ts';
import { giveUp } from '../../artifacts/retention.ts';
import { readChain } from '../../artifacts/run-log.ts';
import { storeConfigFromEnvironment } from '../../artifacts/store-config.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import { executionState } from '../../cli/launch.ts';
import { recipeOf, requireRun } from '../../cli/runs.ts';
import { digestJson } from '../../core/digest.ts';
import { homePaths } from '../../infra/home.ts';
import { endpointEnvironment, runningServers, type Endpoints } from '../../infra/servers.ts';
import type { LoopInput } from '../../workflows/durable-loop.ts';
import { taskQueue } from '../../workflows/task-queues.ts';
import { failureOf } from '../workers/fixtures/fleet.ts';
import { bareEnvironment, cli, newHome, processesWithHome } from '../support/loop.ts';

/** A stage in flight ends within seconds of being cancelled; other tests run beside it. */
const ASK_BOUND_MS = 120_000;
const LOOK_EVERY_MS = 100;

const home = newHome();
let client: Client;
let endpoints: Endpoints;

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
  const running = await runningServers(home.path, bareEnvironment(home));
  assert.ok(running);
  endpoints = running;
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

test('a run that gave up its bulk at the very moment that it was taken up again appends no record, and is known to have failed', async () => {
  const environment = endpointEnvironment(endpoints);
  const store = ArtifactStore.connect(storeConfigFromEnvironment(environment));
  try {
    const records = (await readChain(store, 'ended')).length;
    const recipe = await recipeOf(store, await requireRun(store, 'ended'));
    // Between its question and its start the launcher cannot know.
    await giveUp(store, 'ended', { head: null, objects: new Map(), by: 'test' }, signingKey(homePaths(home.path).signingKey));
    const control = { paused: false, stopping: false, amendments: [] };
    const input: LoopInput = { runId: 'ended', recipe, recipeSha256: digestJson(recipe), initial: null, state: null, control };
    const run = await client.workflow.start('improvementLoop', { workflowId: 'ended', taskQueue: taskQueue('loop'), args: [input] });
    const { type, message } = await failureOf(run);
    assert.equal(type, 'BadInput');
    assert.match(message, /test gave up those of this one/);
    assert.equal((await readChain(store, 'ended')).length, records);
    await until('the store knows', async () => (await readEnding(store, 'ended'))?.state === 'failed');
  } finally {
    store.close();
  }
});
