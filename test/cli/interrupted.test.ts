/** Runs that nobody works on: what is told of them, and how they are taken up. On a real Temporal and store, with a fleet that has no workers. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { Client, Connection } from '@temporalio/client';
import { defaultPayloadConverter } from '@temporalio/common';
import { appendRecord, createRun, readRun } from '../../artifacts/run-log.ts';
import type { RecordRef } from '../../artifacts/record.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import { storeConfigFromEnvironment } from '../../artifacts/store-config.ts';
import type { LoopInput } from '../../workflows/durable-loop.ts';
import { ratchet } from './cli.ts';
import { recipe, sampleEntries } from './records.ts';

const mark = randomUUID().slice(0, 8);
const env = { RATCHET_PREFIX: `test-cli-${mark}`, RATCHET_FLEET: `nobody-${mark}` };
const parent = `parent-${mark}`;
const forked = `forked-${mark}`;
let store: ArtifactStore;
let client: Client;
/** The parent's record that closes iteration 1. */
let closed: RecordRef | null = null;

before(async () => {
  store = ArtifactStore.connect(storeConfigFromEnvironment({ ...process.env, ...env }));
  client = new Client({ connection: await Connection.connect({ address: process.env['TEMPORAL_ADDRESS'] ?? '' }) });
  await createRun(store, parent, recipe);
  let last: RecordRef | null = null;
  for (const entry of sampleEntries()) {
    last = await appendRecord(store, parent, { ...entry, previous: last?.sha256 ?? null });
    if (entry.kind === 'outcome' && entry.iteration === 1) closed = last;
  }
});
after(async () => {
  await client.workflow.getHandle(forked).terminate();
  await client.connection.close();
  store.close();
});

/** What the newest execution of a run was started with. */
async function inputOf(runId: string): Promise<LoopInput> {
  const { events } = await client.workflow.getHandle(runId).fetchHistory();
  const payload = events?.[0]?.workflowExecutionStartedEventAttributes?.input?.payloads?.[0];
  assert.ok(payload);
  return defaultPayloadConverter.fromPayload<LoopInput>(payload);
}

test('a fork that ended before its first record is taken up as the fork that it is', async () => {
  const { code, err } = await ratchet(['fork', parent, '--at-iteration', '1', '--id', forked], { env });
  assert.equal(code, 0, err);
  const launched = await inputOf(forked);
  assert.equal(launched.fork, true);
  assert.deepEqual(launched.state?.head, closed);
  // No worker has taken it, so it has no record yet.
  await client.workflow.getHandle(forked).terminate();
  assert.deepEqual((await readRun(store, forked))?.parent, { runId: parent, iteration: 1 });
  const restored = await ratchet(['restore', forked], { env });
  assert.equal(restored.code, 0, restored.err);
  assert.deepEqual(await inputOf(forked), launched);
});

test('ls: a run that is under way for Temporal and has no worker is interrupted, and what goes on with it is told', async () => {
  const { out } = await ratchet(['ls'], { env });
  assert.match(out, new RegExp(`^${forked} +interrupted`, 'm'));
  assert.match(out, new RegExp(`^${parent} +finished`, 'm'));
  assert.match(out, /^interrupted: no worker is up; `npm start` or `npx ratchet up` goes on$/m);
  const { out: json } = await ratchet(['ls', '--json'], { env });
  const rows = JSON.parse(json) as { run: string; state: string }[];
  assert.deepEqual(
    rows.map(({ run, state }) => [run, state]),
    [
      [forked, 'interrupted'],
      [parent, 'finished'],
    ],
  );
});
