/**
 * A run cancelled in each of its phases and taken up again each time: it ends as cancelled, leaves no slot at work, and what it had finished is not lost: it
 * comes to the head of an undisturbed run.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { WorkflowFailedError } from '@temporalio/client';
import { CancelledFailure } from '@temporalio/common';
import { readEnding } from '../../artifacts/ending.ts';
import { createRun } from '../../artifacts/run-log.ts';
import { verifyRun } from '../../artifacts/verify.ts';
import { inlineLoop } from '../../bench/inline-loop.ts';
import { digestJson } from '../../core/digest.ts';
import { loopStateOf } from '../../cli/records.ts';
import { recordsOf } from '../../cli/runs.ts';
import { loadRecipe } from '../../recipes/load.ts';
import type { LoopInput, LoopResult, LoopStatus } from '../../workflows/durable-loop.ts';
import type { Phase } from '../../workflows/improvement-loop.ts';
import { QUEUES, taskQueue } from '../../workflows/task-queues.ts';
import { eventually, startFleet, type Fleet } from '../workers/fixtures/fleet.ts';
import { SMALL } from '../workers/fixtures/small-run.ts';

const RUN = 'cancelled';
/** In the order of an iteration. Those that compute something; the others last for milliseconds. */
const PHASES: Phase[] = ['collect', 'fit reward model', 'update policy', 'check pairs', 'validate', 'report'];
/** All that an iteration tells, in order. */
const ORDER: Phase[] = ['collect', 'label', 'fit reward model', 'update policy', 'check pairs', 'validate', 'report', 'record', 'finished'];
/** A phase may be over between two looks on a machine that is busy with other tests; it is then cancelled in the next. */
const LEAST_PHASES = 5;
/** A stage in flight hears of it with its next heartbeat and ends between two steps; other tests run beside it. */
const IDLE_BOUND_MS = 30_000;
const PHASE_BOUND_MS = 120_000;

let fleet: Fleet;
before(async () => {
  fleet = await startFleet();
});
after(() => fleet.close());

test('cancelled in every phase: ended as cancelled, nothing left at work, and in the end the head of an undisturbed run', async () => {
  const recipe = loadRecipe('agentprm-household', { scale: 'micro', seed: 1, overrides: ['iterations=1', ...SMALL] });
  const worker = await fleet.worker(RUN, QUEUES, {}, './ratchet-process.ts');
  await createRun(fleet.store, RUN, recipe);
  const start = async () => {
    const records = await recordsOf(fleet.store, RUN);
    const control = { paused: false, stopping: false, amendments: [] };
    const state = records && loopStateOf(records);
    const input: LoopInput = { runId: RUN, recipe, recipeSha256: digestJson(recipe), initial: null, state, control };
    return fleet.client.workflow.start('improvementLoop', { workflowId: RUN, taskQueue: taskQueue('loop', RUN), args: [input] });
  };
  const ended: string[] = [];
  const cancelledIn = new Set<Phase>();
  for (const phase of ['warm start', ...PHASES] as const) {
    const run = await start();
    // By the id alone: the warm start and the iteration are executions of their own.
    const now = fleet.client.workflow.getHandle(RUN);
    const reached = await eventually(
      `${phase} or what follows it`,
      async () => {
        const status = await now.query<LoopStatus>('status');
        const isThere =
          phase === 'warm start' ? status.phase === phase : status.iteration === 1 && ORDER.indexOf(status.phase) >= ORDER.indexOf(phase);
        return isThere && status.phase;
      },
      PHASE_BOUND_MS,
    );
    cancelledIn.add(reached);
    await now.cancel();
    await assert.rejects(run.result(), (error) => error instanceof WorkflowFailedError && error.cause instanceof CancelledFailure, phase);
    ended.push((await now.describe()).status.name);
    await eventually(
      `no slot at work after ${phase}`,
      async () => Object.values((await fleet.reportOf(worker))?.slots ?? {}).every((slots) => slots.every(({ job }) => job === null)),
      IDLE_BOUND_MS,
    );
    await eventually('the store knows', async () => (await readEnding(fleet.store, RUN))?.state === 'cancelled');
  }
  assert.deepEqual([...new Set(ended)], ['CANCELLED']);
  assert.ok(cancelledIn.size >= LEAST_PHASES, `cancelled in ${[...cancelledIn].join(', ')} alone`);
  const { head } = (await (await start()).result()) as LoopResult;
  const undisturbed = await inlineLoop({ recipe, store: fleet.store, runId: 'undisturbed' });
  assert.equal(head.sha256, undisturbed.head.sha256);
  assert.deepEqual((await verifyRun(fleet.store, RUN)).problems, []);
});
