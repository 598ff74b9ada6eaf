/**
 * An older copy of Temporal's database is put back under a living worker, which remembers runs further than it holds: they go on. On a Temporal of this
 * test's own, whose files are exchanged between two of its lives.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { cpSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { QueryNotRegisteredError } from '@temporalio/client';
import { DefaultLogger, Runtime } from '@temporalio/worker';
import { digestJson } from '../../core/digest.ts';
import { homePaths, type HomeRecord } from '../../infra/home.ts';
import { loadRecipe } from '../../recipes/load.ts';
import { buildId, workflowBundle } from '../../workers/bundle.ts';
import { RATCHET_CODE } from '../../workers/process.ts';
import { takeOverRuns, type TakeOver } from '../../workers/take-over.ts';
import type { LoopInput } from '../../workflows/durable-loop.ts';
import { taskQueue } from '../../workflows/task-queues.ts';
import { eventually, HEARTBEAT_TIMEOUT_MS, startFleet, type Fleet } from './fixtures/fleet.ts';
import { SMALL } from './fixtures/small-run.ts';
import type { callStages, OneCall } from './fixtures/workflows.ts';

const NAME = 'older';
const logger = new DefaultLogger('ERROR');

let fleet: Fleet;
let takeOver: TakeOver;
before(async () => {
  delete process.env['TEMPORAL_ADDRESS'];
  fleet = await startFleet();
  const path = join(import.meta.dirname, 'fixtures', 'workflows.ts');
  const build = await buildId(path);
  const { codePath } = await workflowBundle(path, build, join(fleet.home, 'cache'), logger);
  takeOver = { client: fleet.client, queue: taskQueue('loop', NAME), build, codePath, pinned: false, logger };
});
after(async () => {
  await fleet.close();
  // Where no round came that would have ended it.
  await Runtime.instance().shutdown();
});

/** Copies or exchanges what Temporal has on disk while it cannot write. One that was killed is started again by this process. */
function onDisk(how: 'SIGSTOP' | 'SIGKILL', change: (folder: string, copy: string) => void): void {
  const home = join(fleet.directory, 'servers');
  const { temporal } = JSON.parse(readFileSync(join(home, 'servers.json'), 'utf8')) as HomeRecord;
  const pid = temporal!.process!.pid;
  process.kill(pid, how);
  // Nothing else of this process happens meanwhile: it is the one that would start the server again.
  const state = () => /\) (\w)/.exec(readFileSync(`/proc/${pid}/stat`, 'latin1'))?.[1] ?? '';
  while (!'TtZX'.includes(state()));
  change(dirname(homePaths(home).temporalDatabase), join(fleet.directory, 'copy'));
  if (how === 'SIGSTOP') process.kill(pid, 'SIGCONT');
}

/** The executions that a round would find. */
async function listed(query: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { runId } of fleet.client.workflow.list({ query })) found.push(runId);
  return found;
}

const call = (queue: OneCall['queue'], name: string, input: object): OneCall => {
  return { queue, name, scope: NAME, input, heartbeatTimeoutMs: HEARTBEAT_TIMEOUT_MS };
};
const onCpu = (bytes: number) => call('cpu', 'big', { bytes });
const onGpu = (of: string) => call('gpu', 'count', { steps: 1, stepMs: 1, log: join(fleet.directory, of) });

async function started(workflowId: string, groups: OneCall[][], type: 'callStages' | 'callStagesAsked' = 'callStages') {
  const { workflow } = fleet.client;
  const { firstExecutionRunId } = await workflow.start<typeof callStages>(type, {
    workflowId,
    taskQueue: takeOver.queue,
    args: [groups],
  });
  const run = workflow.getHandle(workflowId, firstExecutionRunId);
  /** The calls of stages that the history has, and those that are done, once nothing is left to decide. */
  const calls = async (scheduled: number, done: number) =>
    eventually(`${workflowId}: ${done} of ${scheduled} calls done`, async () => {
      const { events } = await run.fetchHistory();
      const of = (name: 'activityTaskScheduledEventAttributes' | 'activityTaskCompletedEventAttributes') =>
        events?.filter((event) => event[name]).length;
      const { pendingWorkflowTask } = (await run.describe()).raw;
      return (
        of('activityTaskScheduledEventAttributes') === scheduled &&
        of('activityTaskCompletedEventAttributes') === done &&
        !pendingWorkflowTask
      );
    });
  /** What goes on under this id. */
  const now = () => workflow.getHandle(workflowId).describe();
  const isAgain = async () => (await now()).runId !== firstExecutionRunId;
  return { run, calls, now, isAgain };
}

test('runs that a worker remembers further than an older database holds them begin again, and end', { timeout: 120_000 }, async () => {
  // This one lives through all of it. Nobody serves the other queues yet.
  await fleet.worker(NAME, ['loop']);
  // The memory of one has a call in it that the older history has not asked for; that of the others waits for what both have, and one can be asked.
  const ahead = await started('ahead', [[onCpu(1)], [onCpu(2)], [onGpu('ahead'), onGpu('too')]]);
  const waiting = await started('waiting', [[onCpu(3), onGpu('waiting')]]);
  const asked = await started('asked', [[onCpu(5), onGpu('asked')]], 'callStagesAsked');
  await Promise.all([ahead.calls(1, 0), waiting.calls(2, 0), asked.calls(2, 0)]);
  onDisk('SIGSTOP', (folder, copy) => cpSync(folder, copy, { recursive: true }));
  await fleet.worker(NAME, ['cpu']);
  await Promise.all([ahead.calls(4, 2), waiting.calls(2, 1), asked.calls(2, 1)]);
  // More events than the other call will be.
  for (const each of [waiting, asked, waiting, asked]) await each.run.signal('noted').then(() => each.calls(2, 1));
  onDisk('SIGKILL', (folder, copy) => {
    rmSync(folder, { recursive: true });
    cpSync(copy, folder, { recursive: true });
  });
  await fleet.worker(NAME, ['gpu']);

  await eventually(
    'a decision fails again',
    async () => ((await ahead.now()).raw.pendingWorkflowTask?.attempt ?? 0) >= 3 || ahead.isAgain(),
  );
  await Promise.all([waiting.calls(2, 2), asked.calls(2, 2)]);
  // Replaying, it says what does not fit.
  Runtime.install({ logger, telemetryOptions: { logging: { filter: { core: 'ERROR', other: 'ERROR' }, forward: {} } } });
  assert.deepEqual(await takeOverRuns(takeOver, new Set()), new Set());
  for (const { run, now, isAgain } of [ahead, waiting, asked]) {
    await eventually(`${run.workflowId} is completed`, async () => (await now()).status.name === 'COMPLETED');
    assert.ok(await isAgain(), `${run.workflowId} could not go on where it was`);
  }
});

test('paused runs are left where they are, though another build answers for them, and do not hold up a worker that starts beside them', async () => {
  const name = 'paused';
  const query = `TaskQueue = '${taskQueue('loop', name)}'`;
  const ratchet = RATCHET_CODE.workflowsPath;
  const build = await buildId(ratchet);
  const { codePath } = await workflowBundle(ratchet, build, join(fleet.home, 'cache'), logger);
  const own = await fleet.worker(name, [], {}, './ratchet-process.ts');
  const recipe = loadRecipe('agentprm-household', { scale: 'micro', seed: 1, overrides: ['iterations=1', ...SMALL] });
  const control = { paused: true, stopping: false, amendments: [] };
  const runs = await Promise.all(
    ['one', 'two'].map((runId) => {
      const input: LoopInput = { runId, recipe, recipeSha256: digestJson(recipe), initial: null, state: null, control };
      return fleet.client.workflow.start('improvementLoop', { workflowId: runId, taskQueue: taskQueue('loop', name), args: [input] });
    }),
  );
  const states = async () => {
    const found: (string | boolean)[][] = [];
    for (const run of runs) {
      const { runId, raw } = await fleet.client.workflow.getHandle(run.workflowId).describe();
      const { mostRecentWorkerVersionStamp: by } = raw.workflowExecutionInfo ?? {};
      found.push([runId === run.firstExecutionRunId, by?.buildId ?? '', raw.pendingWorkflowTask ? 'decides' : 'waits']);
    }
    return found;
  };
  const waiting = runs.map(() => [true, build, 'waits']);
  await eventually('both wait', async () => isDeepStrictEqual(await states(), waiting));
  await eventually('both are in the list', async () => (await listed(query)).length === 2);

  // Beside the one whose runs they are, so that it takes none over.
  const other = await fleet.worker(name, [], { RATCHET_TEST_WORKFLOWS: './other/workflows.ts' }, './ratchet-process.ts');
  own.kill('SIGKILL');
  await once(own, 'exit');
  await assert.rejects(runs[0]!.query('status'), QueryNotRegisteredError);
  await takeOverRuns({ ...takeOver, queue: taskQueue('loop', name), build, codePath }, new Set());
  assert.deepEqual(await states(), waiting);

  other.kill('SIGKILL');
  await once(other, 'exit');
  const began = performance.now();
  await fleet.worker(name, [], {}, './ratchet-process.ts');
  // The server holds a question that nobody can answer for as long as the asker waits: half a minute for each run.
  assert.ok(performance.now() - began < 30_000);
  assert.deepEqual(await states(), waiting);
  await Promise.all(runs.map((run) => run.terminate()));
});

test('a run that stands still again after it began again for that is left where it is', async () => {
  const { workflow } = fleet.client;
  const { firstExecutionRunId } = await workflow.start('standStill', { workflowId: 'still', taskQueue: takeOver.queue });
  const now = () => workflow.getHandle('still').describe();
  /** One more round, once the execution of `runId` is in the list and has nothing left to decide. Gives the one that goes on after it. */
  const round = async (runId: string) => {
    await eventually(`${runId} stands still`, async () => {
      const query = `WorkflowId = 'still' AND ExecutionStatus = 'Running'`;
      const [found] = await listed(query);
      const { raw } = await now();
      const { mostRecentWorkerVersionStamp: decided } = raw.workflowExecutionInfo ?? {};
      return found === runId && decided && !raw.pendingWorkflowTask;
    });
    await takeOverRuns(takeOver, new Set());
    return (await now()).runId;
  };
  // As a worker does: what changes while a round looks at it is left to the next one.
  let again = firstExecutionRunId;
  await eventually('it begins again', async () => (again = await round(firstExecutionRunId)) !== firstExecutionRunId);
  assert.equal(await round(again), again);
  await workflow.getHandle('still').terminate();
});

test('a run whose own code fails is left where it is', async () => {
  const { workflow } = fleet.client;
  const run = await workflow.start('callThenThrow', { workflowId: 'buggy', taskQueue: takeOver.queue, args: [onCpu(4)] });
  const attempt = async () => (await workflow.getHandle('buggy').describe()).raw.pendingWorkflowTask?.attempt ?? 0;
  await eventually('it fails again', async () => (await attempt()) >= 3);
  await takeOverRuns(takeOver, new Set());
  assert.equal((await workflow.getHandle('buggy').describe()).runId, run.firstExecutionRunId);
  await run.terminate();
});
