/**
 * How a loop grows: no history with the iterations, the shards or the loops beside it. The law only, at small sizes; `bench/limits/run.ts` measures large ones
 * with the same code.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { smallRecipe, startLimitsFleet, type LimitsFleet } from '../../bench/limits/fleet.ts';
import { manyLoops, manyShards } from '../../bench/limits/scenarios.ts';
import { stages } from '../../bench/limits/stages.ts';
import { inlineLoop } from '../../bench/inline-loop.ts';
import { startTraces, type Traces } from '../../infra/traces.ts';
import { CancelledFailure, type WorkflowHandle } from '@temporalio/client';
import { SHARDS_PER_HISTORY } from '../../workflows/shards.ts';
import { startCollector, type Collector } from '../support/collector.ts';
import { eventually } from './fixtures/fleet.ts';

/** One iteration of these recipes is 22 activities, of six events at most: three of its own, three of the decision after it. */
const EVENTS_OF_A_SMALL_ITERATION = 160;

let fleet: LimitsFleet;
let collector: Collector;
let traces: Traces;
before(async () => {
  collector = await startCollector();
  // Spans are sent at once, not every five seconds.
  Object.assign(process.env, collector.environment, { OTEL_BSP_SCHEDULE_DELAY: '100' });
  traces = await startTraces('launcher', (message) => assert.fail(message));
  fleet = await startLimitsFleet(traces);
});
after(async () => {
  await fleet.close();
  await traces.end();
  await collector.close();
});

describe('limits', { timeout: 120_000 }, () => {
  test('loops at once all come to their end, each with records of its own and a history for each iteration', async () => {
    const { completed, heads, histories } = await manyLoops(fleet, 3, 1);
    assert.deepEqual([completed, heads], [3, 3]);
    assert.equal(histories.executions, 3 * 2, 'the warm start, and each iteration');
    assert.ok(histories.mostEvents <= EVENTS_OF_A_SMALL_ITERATION, `${histories.mostEvents}`);
  });

  test('more shards than a history should hold are handed to others, and the records are those of a loop in one process', async () => {
    const shards = SHARDS_PER_HISTORY + 1;
    const [{ head, loop, children }, inline] = await Promise.all([
      manyShards(fleet, shards),
      inlineLoop({ recipe: smallRecipe(1, shards), store: fleet.store, runId: 'inline', stages }),
    ]);
    assert.equal(children.executions, 2);
    assert.ok(children.mostEvents <= 6 * SHARDS_PER_HISTORY + 10, `${children.mostEvents}`);
    // Initiated, started, ended, and two decisions for each child.
    assert.ok(loop.mostEvents <= EVENTS_OF_A_SMALL_ITERATION + 2 * 9, `${loop.mostEvents}`);
    assert.deepEqual(inline.head, head);
    const [launch, ...handed] = await eventually('the spans of the children and of their shards', () => {
      const children = collector.spans.filter(({ name }) => name === 'RunWorkflow:playShards');
      const calls = collector.spans.filter(({ parentSpanId }) => children.some(({ spanId }) => spanId === parentSpanId));
      const parents = collector.spans.filter(({ spanId }) => children.some(({ parentSpanId }) => spanId === parentSpanId));
      const [root] = collector.spans.filter(({ spanId }) => spanId === parents[0]?.parentSpanId);
      return root && children.length === 2 && calls.length === shards && [root, ...parents, ...children, ...calls];
    });
    assert.deepEqual([launch?.name, launch?.parentSpanId], ['StartWorkflow:improvementLoop', undefined]);
    assert.deepEqual(
      handed.map(({ name }) => name),
      [
        'RunWorkflow:improvementLoop',
        ...Array.from({ length: 2 }, () => 'RunWorkflow:playShards'),
        ...Array.from({ length: shards }, () => 'RunActivity:rolloutShard'),
      ],
      'the iteration, beneath it the children, beneath these their shards',
    );
    assert.deepEqual([...new Set(handed.map(({ traceId }) => traceId))], [launch?.traceId]);
  });
});

/** Three stretches of ten shards at most: two are under way at once, for half a second or more, and the last begins when the first is done. */
const FEW = { shardsPerHistory: 10 };
const STRETCHED = smallRecipe(1, 21);
const SHARD_MS = 100;
const operator = { by: 'tester', reason: null };

/** The children of a run that have begun, each with its state. */
async function childrenOf(runId: string): Promise<string[]> {
  const states: string[] = [];
  for await (const { workflowId, status } of fleet.client.workflow.list({ query: `RootWorkflowId = '${runId}'` }))
    if (workflowId !== runId) states.push(status.name);
  return states.sort();
}

/** Waits until two children of a run have shards at work. */
async function handedOut(handle: WorkflowHandle): Promise<void> {
  await eventually('shards at work', async () => {
    const begun = ((await handle.describe()).raw.pendingChildren ?? []).filter(({ runId }) => runId);
    const each = begun.map(({ workflowId, runId }) => fleet.client.workflow.getHandle(workflowId ?? '', runId ?? '').describe());
    return begun.length === 2 && (await Promise.all(each)).every(({ raw }) => (raw.pendingActivities ?? []).length > 0);
  });
}

describe('shards that children play', { timeout: 120_000 }, () => {
  let undisturbed: unknown;
  before(async () => {
    await fleet.kill();
    await fleet.wake(SHARD_MS);
    undisturbed = (await inlineLoop({ recipe: STRETCHED, store: fleet.store, runId: 'stretched', stages })).head;
  });

  test('the worker killed and the run paused meanwhile: those handed out are played, no others begin, and the records are the same', async () => {
    const handle = await fleet.start('children-hurt', STRETCHED, FEW);
    await handedOut(handle);
    await fleet.kill();
    // Taken by the next worker, before it decides anything else.
    const paused = handle.executeUpdate('pause', { args: [operator] });
    await fleet.wake(SHARD_MS);
    await paused;
    await eventually('nothing at work', async () => {
      const { pendingChildren, pendingActivities } = (await handle.describe()).raw;
      return [...(pendingChildren ?? []), ...(pendingActivities ?? [])].length === 0;
    });
    await eventually('both known as completed', async () => String(await childrenOf('children-hurt')) === 'COMPLETED,COMPLETED');
    assert.equal((await handle.describe()).status.name, 'RUNNING');
    await handle.executeUpdate('resume', { args: [operator] });
    assert.deepEqual((await handle.result()).head, undisturbed);
    await eventually('the last stretch', async () => (await childrenOf('children-hurt')).length === 3);
  });

  test('cancelled meanwhile: the children are, nothing is left at work, and the run can be taken up again', async () => {
    const handle = await fleet.start('children-cancelled', STRETCHED, FEW);
    await handedOut(handle);
    await handle.cancel();
    await assert.rejects(handle.result(), (error: Error) => error.cause instanceof CancelledFailure);
    await eventually('both cancelled', async () => String(await childrenOf('children-cancelled')) === 'CANCELLED,CANCELLED');
    await eventually('idle slots', async () =>
      Object.values((await fleet.report()).slots).every((of) => of.every(({ job }) => job === null)),
    );
    assert.deepEqual((await (await fleet.start('children-cancelled', STRETCHED, FEW)).result()).head, undisturbed);
  });
});
