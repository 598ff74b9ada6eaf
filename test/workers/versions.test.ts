/**
 * New code under running loops: recorded histories replay on the bundle, and a run whose version is gone is taken over, whether its history
 * replays or not. On real servers, with real workers.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { globSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { after, before, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { createRun, headOf, readChain } from '../../artifacts/run-log.ts';
import { inlineLoop } from '../../bench/inline-loop.ts';
import { digestJson } from '../../core/digest.ts';
import { loadRecipe } from '../../recipes/load.ts';
import { buildId, workflowBundle } from '../../workers/bundle.ts';
import { RATCHET_CODE } from '../../workers/process.ts';
import { takeOverRun, takeOverRuns, type TakeOver } from '../../workers/take-over.ts';
import type { LoopInput, LoopResult } from '../../workflows/durable-loop.ts';
import { QUEUES, taskQueue } from '../../workflows/task-queues.ts';
import { eventually, startFleet, type Fleet } from './fixtures/fleet.ts';
import { IDENTITY, SMALL } from './fixtures/small-run.ts';
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
/** A new version is routed to within a second or two; on a busy machine of two cores it was seen to take a minute. */
const ROUTING_BOUND_MS = 120_000;
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

const recorded = histories.map((path) => ({
  workflowId: basename(path),
  history: JSON.parse(gunzipSync(readFileSync(path)).toString()) as unknown,
}));

/** The names of the histories that do not replay on a version. */
async function refused(version: Version): Promise<string[]> {
  const names: string[] = [];
  for await (const { workflowId, error } of Worker.runReplayHistories({ workflowBundle: bundles[version] }, recorded)) {
    if (error) names.push(workflowId);
  }
  return names.sort();
}

test('the recorded histories of earlier builds replay on the bundle, and on none that decides otherwise', async () => {
  assert.ok(histories.length >= 5, `${histories.length} histories`);
  assert.deepEqual(await refused('ratchet'), []);
  assert.deepEqual(await refused('other'), histories.map((path) => basename(path)).sort());
});

test('recorded histories name neither a machine nor a user, and hold nothing of what was said in an episode', () => {
  const named = new Set<string>();
  const payloads: string[] = [];
  for (const { history } of recorded)
    JSON.stringify(history, (key, value: unknown) => {
      if (key === 'identity') named.add(String(value));
      if (key === 'data') payloads.push(Buffer.from(String(value), 'base64').toString());
      return value;
    });
  assert.deepEqual([...named], [IDENTITY]);
  // Every game begins with these words.
  assert.deepEqual(
    payloads.filter((text) => text.includes('in the middle of a room')),
    [],
  );
  // An operator who is not told otherwise is <user>@<host>.
  const operators = payloads.flatMap((text) => [...text.matchAll(/"by":"([^"]*)"/g)].map(([, by]) => by));
  assert.deepEqual([...new Set(operators)], ['operator']);
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

/** What a worker of a version does for a fleet. `onDownload`: called when it has the history of a run, which it replays next. */
function takingOver(name: string, version: Version, onDownload: () => unknown = () => {}): TakeOver {
  const { workflow } = fleet.client;
  const watched = Object.assign(Object.create(workflow) as typeof workflow, {
    getHandle: (workflowId: string, runId?: string) => {
      const handle = workflow.getHandle(workflowId, runId);
      const fetchHistory = async () => {
        const history = await handle.fetchHistory();
        await onDownload();
        return history;
      };
      return { ...handle, fetchHistory };
    },
  });
  const client = Object.create(fleet.client, { workflow: { value: watched } }) as typeof fleet.client;
  const logger = new DefaultLogger('ERROR');
  return { client, queue: taskQueue('loop', name), build: builds[version], ...bundles[version], pinned: false, logger };
}

test('a run that has ended is not brought back, though its build is gone and the list still shows it', async () => {
  const first = await fleet.worker('ended', QUEUES);
  const run = await fleet.call('ended', {
    queue: 'gpu',
    name: 'count',
    input: { steps: 1, stepMs: 1, log: join(fleet.directory, 'ended.log') },
  });
  await run.result();
  first.kill('SIGKILL');
  await takeOverRun(takingOver('ended', 'other'), builds.test, run.workflowId, run.firstExecutionRunId);
  const { runId, status } = await fleet.client.workflow.getHandle(run.workflowId).describe();
  assert.deepEqual([runId, status.name], [run.firstExecutionRunId, 'COMPLETED']);
});

test('no history is downloaded of a run that is served or of this build; what is begun in place of a run while it is replayed stays as it is', async () => {
  const { client } = fleet;
  const first = await fleet.worker('restarted', QUEUES);
  const input: CountInput = { steps: 100_000, stepMs: 25, log: join(fleet.directory, 'restarted.log') };
  const run = await fleet.call('restarted', { queue: 'gpu', name: 'count', input });
  await eventually('step 1', () => readLog(input.log).length > 0);
  await eventually('the run in the list', async () => {
    for await (const { workflowId } of client.workflow.list({ query: "ExecutionStatus = 'Running'" }))
      if (workflowId === run.workflowId) return true;
    return false;
  });
  const refusing = () => assert.fail('a history is downloaded');
  assert.deepEqual(await takeOverRuns(takingOver('restarted', 'other', refusing), new Set()), new Set());
  first.kill('SIGKILL');
  await once(first, 'exit');
  assert.deepEqual(await takeOverRuns(takingOver('restarted', 'test', refusing), new Set()), new Set());

  const begun: string[] = [];
  const restart = async () => {
    await run.terminate();
    begun.push(
      (await client.workflow.start('callStage', { workflowId: run.workflowId, taskQueue: taskQueue('loop', 'restarted') }))
        .firstExecutionRunId,
    );
  };
  assert.deepEqual(await takeOverRuns(takingOver('restarted', 'other', restart), new Set()), new Set([builds.test]));
  const now = client.workflow.getHandle(run.workflowId);
  const { runId, status } = await now.describe();
  assert.deepEqual([[runId], status.name], [begun, 'RUNNING']);
  await now.terminate();
});

/** Makes a build the current one, as an operator does with Temporal's own command, and waits until the loop's queue knows. */
async function makeCurrent(deploymentName: string, build: string): Promise<void> {
  const { workflowService, options } = fleet.client;
  const { namespace } = options;
  await eventually(
    `${build} is accepted as the current build`,
    () =>
      workflowService.setWorkerDeploymentCurrentVersion({ namespace, deploymentName, buildId: build }).then(
        () => true,
        // NOT_FOUND, then FAILED_PRECONDITION, until Temporal has seen its workers at every queue.
        (error: Error & { code?: number }) => ([5, 9].includes(error.code ?? 0) ? false : Promise.reject(error)),
      ),
    ROUTING_BOUND_MS,
  );
  await eventually(
    `the queue knows ${build}`,
    async () => {
      const queue = { name: taskQueue('loop', deploymentName) };
      const { versioningInfo } = await workflowService.describeTaskQueue({ namespace, taskQueue: queue, taskQueueType: 1 });
      return versioningInfo?.currentDeploymentVersion?.buildId === build;
    },
    ROUTING_BOUND_MS,
  );
}

test('drill: version N runs, N+1 is deployed beside it; the iteration ends on N, the next is of N+1, the records are those of an undisturbed run; a run of N+1 goes back to N', async () => {
  const recipe = loadRecipe('agentprm-household', { scale: 'micro', seed: 1, overrides: ['iterations=1', ...SMALL] });
  const undisturbed = await inlineLoop({ recipe, store: fleet.store, runId: 'undisturbed' });

  const pinned = { RATCHET_VERSIONING: 'pinned' };
  await fleet.worker('drill', [], pinned, './ratchet-process.ts');
  await makeCurrent('drill', builds.ratchet);
  await createRun(fleet.store, 'drilled', recipe);
  const control = { paused: false, stopping: false, amendments: [] };
  const input: LoopInput = { runId: 'drilled', recipe, recipeSha256: digestJson(recipe), initial: null, state: null, control };
  const run = await fleet.client.workflow.start('improvementLoop', {
    workflowId: 'drilled',
    taskQueue: taskQueue('loop', 'drill'),
    args: [input],
  });
  // Held in its first iteration, so that the deployment falls into it on any machine.
  const operator = { by: 'test', reason: 'a deployment' };
  await run.executeUpdate('pause', { args: [operator] });
  const later = await fleet.worker('drill', [], { ...pinned, RATCHET_TEST_WORKFLOWS: './later/workflows.ts' }, './ratchet-process.ts');
  await makeCurrent('drill', builds.later);
  await run.executeUpdate('resume', { args: [operator] });

  const { head } = (await run.result()) as LoopResult;
  assert.equal(head.sha256, undisturbed.head.sha256);
  assert.deepEqual(await buildsOf('drilled'), [[builds.ratchet], [builds.later]]);
  assert.equal(headOf(await readChain(fleet.store, 'drilled'))?.sha256, head.sha256);

  // Rolled back, and the workers of N+1 gone: its run is taken by the current build alone, and not while N+1 might only have crashed.
  await createRun(fleet.store, 'back', recipe);
  const back = await fleet.client.workflow.start('improvementLoop', {
    workflowId: 'back',
    taskQueue: taskQueue('loop', 'drill'),
    args: [{ ...input, runId: 'back', control: { ...control, paused: true } } satisfies LoopInput],
  });
  const described = async () => (await back.describe()).raw.workflowExecutionInfo;
  await eventually('a decision of N+1', async () => (await described())?.mostRecentWorkerVersionStamp?.buildId === builds.later);
  // Nothing of it is under way, and it only waits for an operator: nothing is wrong with it.
  await takeOverRuns({ ...takingOver('drill', 'later'), pinned: true }, new Set());
  assert.equal((await back.describe()).runId, back.firstExecutionRunId);
  await makeCurrent('drill', builds.ratchet);
  later.kill('SIGKILL');
  await once(later, 'exit');
  const [current, neither] = (['ratchet', 'other'] as const).map((version) => ({ ...takingOver('drill', version), pinned: true }));
  const gone = new Set([builds.later]);
  const override = async () => (await described())?.versioningInfo?.versioningOverride ?? null;
  await eventually('a round that misses N+1', async () => (await takeOverRuns(current!, new Set())).has(builds.later));
  assert.deepEqual(await takeOverRuns(neither!, gone), new Set());
  assert.equal(await override(), null);
  assert.deepEqual(await takeOverRuns(current!, gone), gone);
  assert.equal((await override())?.autoUpgrade, true);
  await back.terminate();
});
