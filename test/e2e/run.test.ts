/** One undisturbed run through the product, as a user starts it, traced, and what must be true of it. */
import assert from 'node:assert/strict';
import { createPublicKey } from 'node:crypto';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Client, Connection } from '@temporalio/client';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { replayRun } from '../../activities/replay.ts';
import type { StageRegistry } from '../../activities/run-stage.ts';
import { closeDecoders, storeModel } from '../../activities/stages/models.ts';
import { stages } from '../../activities/stages/registry.ts';
import { signingKey } from '../../artifacts/attestation.ts';
import { appendRecord } from '../../artifacts/run-log.ts';
import { storeConfigFromEnvironment } from '../../artifacts/store-config.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import { headOf, readChain } from '../../artifacts/run-log.ts';
import { verifyRun } from '../../artifacts/verify.ts';
import type { IterationBody } from '../../cli/records.ts';
import { recordsOf } from '../../cli/runs.ts';
import { readModelFolder } from '../../learning/model-files.ts';
import { inlineLoop } from '../../bench/inline-loop.ts';
import { homePaths } from '../../infra/home.ts';
import { endpointEnvironment, ensureServers, type Servers } from '../../infra/servers.ts';
import type { WorkflowSpan } from '../../infra/traces.ts';
import { numericFingerprint } from '../../learning/compute/fingerprint.ts';
import { loadRecipe } from '../../recipes/load.ts';
import { buildId } from '../../workers/bundle.ts';
import { RATCHET_CODE } from '../../workers/process.ts';
import { startCollector, type Collector } from '../support/collector.ts';
import { bareEnvironment, cli, MICRO, newHome, processesWithHome } from '../support/loop.ts';

/** The project's own bound on a payload. */
const LARGEST_PAYLOAD_BYTES = 64 * 1024;
/** Far below Temporal's first warning at 10,240 events. */
const MOST_EVENTS = 2_000;

const home = newHome();
let servers: Servers;
let store: ArtifactStore;
let collector: Collector;
let output = '';

before(async () => {
  collector = await startCollector();
  const run = cli(home, MICRO, collector.environment);
  const { code } = await run.exited;
  output = run.output();
  assert.equal(code, 0, output);
  assert.deepEqual(processesWithHome(home), [], 'start leaves nothing running');
  servers = await ensureServers({ home: home.path, onProgress: () => {}, env: bareEnvironment(home) });
  store = ArtifactStore.connect(storeConfigFromEnvironment(endpointEnvironment(servers.endpoints)));
});
after(async () => {
  await collector?.close();
  store?.close();
  await servers?.stop();
  home.remove();
});

test('start prints every iteration with its interval, and the exact next commands', () => {
  assert.match(output, /Success on 12 unseen games/);
  for (const iteration of [0, 1, 2]) assert.match(output, new RegExp(`^ +${iteration} +[0-9a-f]{12} `, 'm'));
  for (const command of ['npx ratchet history run', 'npx ratchet verify run', 'npm start']) assert.ok(output.includes(command), command);
});

test('the loop in one process, without Temporal, reaches the same records', async () => {
  const recipe = loadRecipe('agentprm-household', { scale: 'micro', seed: 1 });
  await inlineLoop({ recipe, store, runId: 'inline' });
  const durable = await readChain(store, 'run');
  const inline = await readChain(store, 'inline');
  assert.deepEqual(
    inline.map(({ entry }) => entry),
    durable.map(({ entry }) => entry),
  );
  assert.equal(headOf(inline)?.sha256, headOf(durable)?.sha256);
});

/** The histories of the run, one for each iteration. */
async function histories() {
  const connection = await Connection.connect({ address: servers.endpoints.temporal.address });
  try {
    const { workflow } = new Client({ connection });
    const executions = await listed(workflow.list({ query: 'WorkflowId = "run"' }));
    return await Promise.all(executions.map(({ workflowId, runId }) => workflow.getHandle(workflowId, runId).fetchHistory()));
  } finally {
    await connection.close();
  }
}

test('no payload in any history is above 64 KiB, and the histories are short: one iteration each', async () => {
  const all = await histories();
  assert.equal(all.length, 3, 'the warm start and two iterations');
  for (const { events } of all) {
    assert.ok(events && events.length > 20 && events.length < MOST_EVENTS, `${events?.length} events`);
    const largest = Math.max(...payloadSizes(events));
    assert.ok(largest > 100 && largest <= LARGEST_PAYLOAD_BYTES, `largest payload ${largest} bytes`);
  }
});

test('one trace holds the launch, every iteration beneath it, and every stage call beneath its iteration', async () => {
  const { spans } = collector;
  assert.equal(new Set(spans.map(({ traceId }) => traceId)).size, 1);
  assert.equal(new Set(spans.map(({ spanId }) => spanId)).size, spans.length, 'no span twice');
  const [launch, ...more] = spans.filter(({ parentSpanId }) => parentSpanId === undefined);
  assert.deepEqual([launch?.name, launch?.service, more], ['StartWorkflow:improvementLoop', 'ratchet', []]);
  const iterations = spans.filter(({ parentSpanId }) => parentSpanId === launch?.spanId);
  assert.deepEqual(
    iterations.map(({ name, service, status }) => [name, service, status]),
    Array.from({ length: 3 }, () => ['RunWorkflow:improvementLoop', 'ratchet-worker', 1]),
  );
  const calls = spans.filter((span) => span !== launch && !iterations.includes(span));
  for (const { name, parentSpanId, startMs, endMs } of calls) {
    const iteration = iterations.find(({ spanId }) => spanId === parentSpanId);
    assert.ok(iteration && iteration.startMs <= startMs && endMs <= iteration.endMs, name);
  }
  const scheduled = (await histories()).flatMap(({ events }) =>
    (events ?? []).flatMap((event) => event.activityTaskScheduledEventAttributes?.activityType?.name ?? []),
  );
  assert.deepEqual(calls.map(({ name }) => name).sort(), scheduled.map((name) => `RunActivity:${name}`).sort());
});

test('what is decided does not depend on who traces: the histories replay as they are, and as if nobody had', async () => {
  Runtime.install({ logger: new DefaultLogger('ERROR') });
  const codePath = join(home.path, 'cache', `workflows-${await buildId(RATCHET_CODE.workflowsPath)}.js`);
  /** The errors of the replays, and the spans of which they told. */
  const replayed = async (untraced: boolean) => {
    const spans: string[] = [];
    const ended = { callDuringReplay: true, fn: (_: unknown, { spanId }: WorkflowSpan) => void spans.push(spanId) };
    const all = await histories();
    const [first] = all.flatMap(({ events }) => events?.[0]?.workflowExecutionStartedEventAttributes ?? []);
    assert.ok(first?.header?.fields?.['_tracer-data'], 'traced');
    if (untraced)
      for (const event of all.flatMap(({ events }) => events ?? []))
        for (const begun of [event.workflowExecutionStartedEventAttributes, event.activityTaskScheduledEventAttributes])
          if (begun) begun.header = null;
    const given = all.map((history) => ({ workflowId: 'run', history }));
    const results = await listed(Worker.runReplayHistories({ workflowBundle: { codePath }, sinks: { traces: { ended } } }, given));
    return { errors: results.map(({ error }) => error), spans: spans.sort() };
  };
  const errors = [undefined, undefined, undefined];
  const iterations = collector.spans.filter(({ name }) => name === 'RunWorkflow:improvementLoop').map(({ spanId }) => spanId);
  // A worker tells nobody of what it only decides again; if it did, it would be of the same spans.
  assert.deepEqual(await replayed(false), { errors, spans: iterations.sort() });
  assert.deepEqual(await replayed(true), { errors, spans: [] });
});

test('the policy and the reward model leave the store as folders, and a folder goes back as the same model', async () => {
  const body = (await recordsOf(store, 'run'))!.iterations.at(-1)!.body as IterationBody;
  const folder = join(home.path, 'exported');
  for (const [extra, ref] of [
    [[], body.policy],
    [['--reward-model'], body.rewardModel.rewardModel],
  ] as const) {
    const to = `${folder}${extra.length}`;
    const { code } = await cli(home, ['model', 'export', 'run', '-o', to, '--shard-size', '100KB', ...extra]).exited;
    assert.equal(code, 0);
    const { model, tokenizerJson } = readModelFolder(to);
    assert.deepEqual(await storeModel(store, model, tokenizerJson!), ref);
  }
});

test('an iteration replayed from its stored inputs comes out bit for bit', async () => {
  const seen: string[] = [];
  try {
    const report = await replayRun({
      store,
      runId: 'run',
      stages,
      fingerprint: numericFingerprint(),
      iteration: 1,
      onReplayed: ({ stage }) => seen.push(stage),
    });
    assert.deepEqual(
      report.calls.filter(({ equal }) => !equal),
      [],
    );
    assert.equal(report.level, 'R2');
    // Every kind of work of an iteration was among them; only the panels and the warm start are made before it.
    for (const stage of ['rolloutShard', 'makeLabels', 'fitRewardModel', 'updatePolicy', 'evaluate', 'pairTruth'])
      assert.ok(seen.includes(stage), stage);
  } finally {
    await closeDecoders();
  }
});

test('a replay names the stage and the field that came out differently', async () => {
  const evaluate: StageRegistry[string] = {
    queue: 'cpu',
    run: async (input, context) => ({ ...((await stages.evaluate.run(input, context)) as object), policy: 'another' }),
  };
  const report = await replayRun({
    store,
    runId: 'run',
    stages: { ...stages, evaluate },
    fingerprint: 'x',
    iteration: 1,
    stage: 'evaluate',
  });
  assert.equal(report.level, 'R0');
  assert.equal(report.calls[0]?.difference?.path, 'output.policy');
  assert.equal(report.calls[0]?.difference?.b, '"another"');
});

test('every record is vouched for by a signature of this home', async () => {
  const { publicKey } = signingKey(homePaths(home.path).signingKey);
  const report = await verifyRun(store, 'run', { trusted: [createPublicKey(publicKey)] });
  assert.deepEqual(report.problems, []);
  assert.deepEqual(
    report.signers.map(({ records, trusted }) => [records, trusted]),
    [[report.counts.records, true]],
  );
});

test('a closed iteration cannot be closed again with something else', async () => {
  const chain = await readChain(store, 'run');
  const last = chain.at(-1)?.entry;
  assert.ok(last);
  const closed = chain[2];
  assert.ok(closed && closed.entry.kind === 'outcome');
  const { stages: _, ...asked } = closed.entry;
  assert.deepEqual(await appendRecord(store, 'run', asked), closed.ref, 'asked again after later stages were committed: the same record');
  await assert.rejects(appendRecord(store, 'run', { ...last, body: { ...last.body, policy: null } }), { type: 'Conflict' });
});

async function listed<T>(all: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const one of all) found.push(one);
  return found;
}

/** Sizes of all byte strings named `data` anywhere in the events: Temporal's payloads. */
function payloadSizes(value: unknown): number[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([name, inner]) =>
    name === 'data' && inner instanceof Uint8Array ? [inner.length] : inner instanceof Uint8Array ? [] : payloadSizes(inner),
  );
}
