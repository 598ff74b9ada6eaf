/**
 * New code under running loops: histories of released versions replay on the bundle, and a run whose version is gone is taken over, whether its history
 * replays or not. On real servers, with real workers.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { globSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { after, before, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { buildId, workflowBundle } from '../../workers/bundle.ts';
import { RATCHET_CODE } from '../../workers/process.ts';
import { QUEUES } from '../../workflows/task-queues.ts';
import { eventually, startFleet, type Fleet } from './fixtures/fleet.ts';
import { readLog, type CountInput, type CountOutput } from './fixtures/stages.ts';

const FIXTURES = join(import.meta.dirname, 'fixtures');
/** The modules that each version of the workflows is made of. */
const MODULES = {
  ratchet: RATCHET_CODE.workflowsPath,
  test: join(FIXTURES, 'workflows.ts'),
  later: join(FIXTURES, 'later', 'workflows.ts'),
  other: join(FIXTURES, 'other', 'workflows.ts'),
};
type Version = keyof typeof MODULES;
/** Every step is checkpointed. */
const ALWAYS = { RATCHET_CHECKPOINT_INTERVAL_MS: '0' };

// A history that does not replay is what some of these tests are about: no warning.
Runtime.install({
  logger: new DefaultLogger('ERROR'),
  telemetryOptions: { logging: { filter: { core: 'ERROR', other: 'ERROR' }, forward: {} } },
});

let fleet: Fleet;
const builds = {} as Record<Version, string>;
const bundles = {} as Record<Version, { codePath: string }>;
before(async () => {
  fleet = await startFleet();
  // Made here once, where the workers look for them.
  for (const [version, path] of Object.entries(MODULES) as [Version, string][]) {
    builds[version] = await buildId(path);
    bundles[version] = await workflowBundle(path, builds[version], join(fleet.home, 'cache'), new DefaultLogger('ERROR'));
  }
});
after(() => fleet.close());

const histories = globSync(join(FIXTURES, 'histories', '*', '*.json.gz')).sort();

/** The names of the histories that do not replay on a version. */
async function refused(version: Version): Promise<string[]> {
  const all = histories.map((path) => ({
    workflowId: basename(path),
    history: JSON.parse(gunzipSync(readFileSync(path)).toString()) as unknown,
  }));
  const names: string[] = [];
  for await (const { workflowId, error } of Worker.runReplayHistories({ workflowBundle: bundles[version] }, all)) {
    if (error) names.push(workflowId);
  }
  return names.sort();
}

test('histories of every released version replay on the bundle, and on none that decides otherwise', async () => {
  assert.ok(histories.length >= 5, `${histories.length} histories`);
  assert.deepEqual(await refused('ratchet'), []);
  assert.deepEqual(await refused('other'), histories.map((path) => basename(path)).sort());
});

/** A run whose workers were killed in the middle of a stage, and a worker of another version in their place. */
async function replaced(name: string, version: 'later' | 'other') {
  const input: CountInput = { steps: 30, stepMs: 25, log: join(fleet.directory, `${name}.log`) };
  const first = await fleet.worker(name, QUEUES, ALWAYS);
  const run = await fleet.call(name, { queue: 'gpu', name: 'count', input });
  await eventually('step 10', () => readLog(input.log).find(({ step }) => step >= 10));
  first.kill('SIGKILL');
  await once(first, 'exit');
  await fleet.worker(name, QUEUES, { ...ALWAYS, RATCHET_TEST_WORKFLOWS: `./${version}/workflows.ts` });
  // Whoever asks by the id is led to the execution that goes on.
  const now = fleet.client.workflow.getHandle(run.workflowId);
  assert.deepEqual(((await now.result()) as CountOutput).sum, 465, '30 * 31 / 2');
  const steps = readLog(input.log).map(({ step }) => step);
  assert.ok(steps.length <= 31, `only the step that was not yet saved is repeated: ${steps.join(' ')}`);
  return { before: run.firstExecutionRunId, after: (await now.describe()).runId, build: await buildsOf(run.workflowId) };
}

/** The builds that decided for each execution of a run, oldest execution first. */
async function buildsOf(workflowId: string): Promise<string[][]> {
  const found: { at: number; builds: string[] }[] = [];
  for await (const { runId, startTime } of fleet.client.workflow.list({ query: `WorkflowId = '${workflowId}'` })) {
    const { events } = await fleet.client.workflow.getHandle(workflowId, runId).fetchHistory();
    const decided = (events ?? []).flatMap(({ workflowTaskCompletedEventAttributes: done }) =>
      done ? [done.workerVersion?.buildId ?? ''] : [],
    );
    found.push({ at: startTime.getTime(), builds: [...new Set(decided)] });
  }
  return found.sort((a, b) => a.at - b.at).map((one) => one.builds);
}

test('a run whose version is gone goes on with a later one, and from its checkpoint where its history does not replay', async () => {
  const [kept, again] = await Promise.all([replaced('kept', 'later'), replaced('again', 'other')]);
  assert.equal(kept.after, kept.before, 'where it replays it goes on where it is');
  assert.deepEqual(kept.build, [[builds.test, builds.later]]);
  assert.notEqual(again.after, again.before, 'where it does not it begins again');
  assert.deepEqual(again.build, [[builds.test], [builds.other]]);
});
