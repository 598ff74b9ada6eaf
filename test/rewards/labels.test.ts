import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Episode } from '../../core/nouns.ts';
import { makeLabels } from '../../rewards/labels.ts';
import { outcomeTable, returnsToGo } from '../../rewards/outcome-table.ts';

function episode(repeat: number, actions: string[], outcome: number, over: Partial<Episode> = {}): Episode {
  return {
    id: `game#${repeat}`,
    task: 'game',
    family: 'pick',
    instruction: '',
    repeat,
    policy: 'p',
    outcome,
    ending: { kind: 'completed' },
    turns: actions.map((action, t) => ({
      observation: '',
      admissible: actions,
      action,
      logProbability: 0,
      reward: t === actions.length - 1 ? outcome : 0,
    })),
    ...over,
  };
}

test('the return-to-go of a terminal reward is discount^(T-1-t) R, not discount^t R (arXiv 2502.10325 Eq. 1; its code discounts from the start)', () => {
  assert.deepEqual(returnsToGo(episode(0, ['a', 'b', 'c'], 1), 0.5), [0.25, 0.5, 1]);
  assert.deepEqual(returnsToGo(episode(0, ['a', 'b', 'c'], 0), 0.5), [0, 0, 0]);
});

test('a label is the mean over all episodes that passed through the same history and command', () => {
  // Both begin with `a`; the first wins in two turns, the second loses: label of `a` is (0.9 + 0) / 2.
  const { labels, report } = makeLabels(
    [episode(0, ['a', 'b'], 1), episode(1, ['a', 'c'], 0)],
    { kind: 'monte-carlo', discount: 0.9, control: 'none' },
    ['k'],
  );
  assert.deepEqual(labels, [
    { episode: 'game#0', turn: 0, value: 0.45, visits: 2 },
    { episode: 'game#0', turn: 1, value: 1, visits: 1 },
    { episode: 'game#1', turn: 0, value: 0.45, visits: 2 },
    { episode: 'game#1', turn: 1, value: 0, visits: 1 },
  ]);
  assert.deepEqual(report, { labels: 4, distinct: 3, revisited: 1, mean: (0.45 + 1 + 0.45 + 0) / 4 });
});

test('the same command after another history, or in another game, is another state', () => {
  const other = episode(1, ['x', 'b'], 0);
  assert.equal(outcomeTable([episode(0, ['a', 'b'], 1), other], 1).rows.size, 4);
  assert.equal(outcomeTable([episode(0, ['a'], 1), episode(1, ['a'], 0, { task: 'other' })], 1).rows.size, 2);
});

test('failed and abandoned episodes are absent; they are not low outcomes', () => {
  const failed = episode(1, ['a', 'b'], 0, { ending: { kind: 'failed', reason: 'context-overflow' } });
  const { labels } = makeLabels([episode(0, ['a', 'b'], 1), failed], { kind: 'monte-carlo', discount: 1, control: 'none' }, ['k']);
  assert.deepEqual(
    labels.map(({ value }) => value),
    [1, 1],
  );
});

test('labels lie in [0, 1], and shuffling deals out the very same values', () => {
  const episodes = fc.array(
    fc.tuple(fc.array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 6 }), fc.integer({ min: 0, max: 1 })),
    { minLength: 1, maxLength: 12 },
  );
  fc.assert(
    fc.property(episodes, fc.double({ min: 0.1, max: 1, noNaN: true }), (made, discount) => {
      const all = made.map(([actions, outcome], repeat) => episode(repeat, actions, outcome));
      const plain = makeLabels(all, { kind: 'monte-carlo', discount, control: 'none' }, ['k']).labels.map(({ value }) => value);
      const shuffled = makeLabels(all, { kind: 'monte-carlo', discount, control: 'shuffled' }, ['k']).labels.map(({ value }) => value);
      assert.ok(plain.every((value) => value >= 0 && value <= 1));
      assert.deepEqual(shuffled.toSorted(), plain.toSorted());
    }),
  );
});
