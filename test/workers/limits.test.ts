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
import { SHARDS_PER_HISTORY } from '../../workflows/shards.ts';

/** One iteration of these recipes is 22 activities, of six events at most: three of its own, three of the decision after it. */
const EVENTS_OF_A_SMALL_ITERATION = 160;

let fleet: LimitsFleet;
before(async () => {
  fleet = await startLimitsFleet();
});
after(() => fleet.close());

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
  });
});
