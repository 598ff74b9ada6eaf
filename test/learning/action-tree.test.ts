import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { actionTree, candidateAppend, commandLogProbabilities, greedyCommand } from '../../learning/action-tree.ts';
import { logSoftmaxOver } from '../../learning/sampling.ts';

/** Distinct token lists of which none is a prefix of another: every list ends with a token of its own kind. */
const commands = fc
  .uniqueArray(fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 4 }), { minLength: 1, maxLength: 12, selector: (ids) => ids.join() })
  .map((lists) => lists.map((ids) => [...ids, 99]));

/** Arbitrary logits for the options of each point, from its path. */
const optionsOf = (tree: ReturnType<typeof actionTree>, seed: number) =>
  tree.points.map((point, p) =>
    logSoftmaxOver(
      Array.from({ length: 100 }, (_, id) => Math.sin(seed + 7 * p + id) * 3),
      point.allowed,
      1,
    ),
  );

test('the probabilities of all commands are exact under the constraint: they sum to 1', () => {
  fc.assert(
    fc.property(commands, fc.integer(), (lists, seed) => {
      const tree = actionTree(lists);
      const sum = commandLogProbabilities(tree, optionsOf(tree, seed)).reduce((total, value) => total + Math.exp(value), 0);
      assert.ok(Math.abs(sum - 1) < 1e-12);
    }),
  );
});

test('greedy decoding follows the likeliest token at each point to exactly one command', () => {
  fc.assert(
    fc.property(commands, fc.integer(), (lists, seed) => {
      const tree = actionTree(lists);
      const options = optionsOf(tree, seed);
      // The reference walks the commands token by token.
      let left = lists.map((ids, index) => ({ ids, index }));
      for (let depth = 0; left.length > 1; depth++) {
        const ids = [...new Set(left.map((one) => one.ids[depth] as number))];
        if (ids.length > 1) {
          const point = tree.points.findIndex(
            (candidate) =>
              candidate.allowed.join() === ids.join() && pathTo(tree, candidate.after).join() === left[0]?.ids.slice(0, depth).join(),
          );
          const values = options[point] as Float64Array;
          const best = ids[values.indexOf(Math.max(...values))];
          left = left.filter((one) => one.ids[depth] === best);
        }
      }
      assert.equal(greedyCommand(tree, options), left[0]?.index);
    }),
  );
});

test('a verb and its arguments: two points, forced tokens cost nothing', () => {
  // goto a | goto b | take x a (the third token is forced): points after the state {goto, take} and after goto {a, b}.
  const tree = actionTree([
    [1, 10],
    [1, 11],
    [2, 20, 10],
  ]);
  assert.deepEqual(tree.branches, [{ id: 1, parent: -1 }]);
  assert.deepEqual(tree.points, [
    { after: -1, allowed: [1, 2] },
    { after: 0, allowed: [10, 11] },
  ]);
  assert.deepEqual(tree.choices[2], [{ point: 0, option: 1 }]);
  const [gotoA, gotoB, take] = commandLogProbabilities(tree, [
    [Math.log(0.25), Math.log(0.75)],
    [Math.log(0.4), Math.log(0.6)],
  ]).map(Math.exp) as unknown as [number, number, number];
  assert.ok(Math.abs(gotoA - 0.1) < 1e-12 && Math.abs(gotoB - 0.15) < 1e-12 && Math.abs(take - 0.75) < 1e-12);
});

test('law: candidates on a chain: each node path spells its candidate, and no common beginning is read twice', () => {
  const lists = fc.array(fc.array(fc.nat(3), { minLength: 1, maxLength: 5 }), { minLength: 1, maxLength: 10 });
  fc.assert(
    fc.property(fc.array(fc.nat(9), { maxLength: 4 }), lists, (chain, candidates) => {
      const { ids, parents, nodes } = candidateAppend(chain, candidates);
      const spelt = (node: number): number[] => (node < 0 ? [] : [...spelt(parents[node]!), ids[node]!]);
      candidates.forEach((candidate, c) => assert.deepEqual(spelt(nodes[c]!.at(-1)!), [...chain, ...candidate]));
      const beginnings = new Set(candidates.flatMap((candidate) => candidate.map((_, i) => candidate.slice(0, i + 1).join())));
      assert.equal(ids.length, chain.length + beginnings.size);
    }),
  );
});

test('a command that is a prefix of another is refused: its probability would not be defined', () => {
  assert.throws(() => actionTree([[1], [1, 2]]), /prefix/);
});

function pathTo(tree: ReturnType<typeof actionTree>, branch: number): number[] {
  return branch < 0 ? [] : [...pathTo(tree, tree.branches[branch]?.parent as number), tree.branches[branch]?.id as number];
}
