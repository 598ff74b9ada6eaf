import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { actionTree } from '../../learning/action-tree.ts';
import { choose, distinctCommands, propose, sampleCommand, type Decision } from '../../agents/strategy.ts';
import { Random } from '../../core/random.ts';

const P = [0.5, 0.3, 0.15, 0.05];
const logP = Float64Array.from(P, Math.log);
const decision = (key: string): Decision => ({
  tree: actionTree([[1], [2], [3], [4]]),
  options: [logP],
  logProbabilities: logP,
  random: new Random([key]),
});

test('sampling draws each command with its probability', () => {
  const random = new Random(['sampling']);
  const draws = 20_000;
  const counts = [0, 0, 0, 0];
  for (let i = 0; i < draws; i++) {
    const index = sampleCommand(logP, random);
    counts[index] = (counts[index] as number) + 1;
  }
  // Five binomial standard errors: a right sampler misses this once in a million runs, and the draws are fixed by the key.
  for (let i = 0; i < 4; i++) {
    const p = P[i] as number;
    const n = counts[i] as number;
    assert.ok(Math.abs(n / draws - p) < 5 * Math.sqrt((p * (1 - p)) / draws), `command ${i}: ${n} of ${draws}`);
  }
});

test('distinct candidates never repeat, never fall below the least probability, and the first is a draw from the policy', () => {
  fc.assert(
    fc.property(fc.string(), fc.integer({ min: 1, max: 6 }), (key, k) => {
      const drawn = distinctCommands(logP, k, 0.1, new Random([key]));
      assert.equal(new Set(drawn).size, drawn.length);
      assert.equal(drawn.length, Math.min(k, 3));
      assert.ok(drawn.every((index) => (P[index] as number) >= 0.1));
    }),
  );
  const draws = 20_000;
  let first = 0;
  for (let i = 0; i < draws; i++) if (distinctCommands(logP, 2, 0, new Random(['gumbel', i]))[0] === 0) first++;
  // Gumbel-max: the largest perturbed log-probability is a draw from the distribution itself.
  assert.ok(Math.abs(first / draws - 0.5) < 5 * Math.sqrt(0.25 / draws), `${first} of ${draws}`);
});

test('greedy takes the likeliest command without asking the reward model', () => {
  assert.deepEqual(propose({ kind: 'greedy' }, decision('greedy')), [0]);
});

test('best-of-N executes what the reward model scores highest among the sampled; the policy weight shifts the balance', () => {
  const spec = { kind: 'best-of-n', n: 64, temperature: 1, policyWeight: 0, minProbability: 0.1 } as const;
  const proposed = propose(spec, decision('bon'));
  assert.deepEqual(proposed, [0, 1, 2], 'with 64 draws all likely commands are there and the rare one is dropped');
  assert.equal(choose(spec, decision('bon'), proposed, [0, 0.2, 0.3]), 2);
  // 0.3 + ln 0.15 < 0.2 + ln 0.3 < 0 + ln 0.5
  assert.equal(choose({ ...spec, policyWeight: 1 }, decision('bon'), proposed, [0, 0.2, 0.3]), 0);
});
