/** Sums of gradients and the way back from folded matrices, against the product rule in plain double precision. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Random } from '../../core/random.ts';
import { WAVE, foldPart, sumShare } from '../../learning/lanes/folding.ts';
import type { ShareOrder } from '../../learning/lanes/folding.ts';

const shared = (data: Float32Array) => {
  const out = new Float32Array(new SharedArrayBuffer(data.byteLength));
  out.set(data);
  return out;
};

/** Two matrices under one gain, the second with a factor; a third of the first one's tensor (as a tied head), without gain. */
function example(seed: number, rows: number, width: number, count: number) {
  const random = new Random(['folding', seed]);
  const draw = (length: number) => Float32Array.from({ length }, () => random.normal());
  const size = rows * width;
  const [weightA, weightB, gain] = [shared(draw(size)), shared(draw(size)), shared(draw(width))];
  const gradients = Array.from({ length: 3 }, () => Array.from({ length: count }, () => draw(size)));
  const sums = gradients.map(() => shared(new Float32Array(size).fill(NaN)));
  const dGain = new Float64Array(width).fill(NaN);
  const [gains, squares] = [shared(new Float32Array(width)), new Float64Array(3)];
  const common = { gain, gainGradient: dGain };
  const unfoldings = [
    { ...common, weight: weightA, factor: 1, gainBegins: true, into: undefined },
    { ...common, weight: weightB, factor: 0.5, gainBegins: false, into: undefined },
    { weight: weightA, gain: undefined, gainGradient: undefined, factor: 1, gainBegins: false, into: sums[0]! },
  ];
  /** Adds micro-batches `from` to `to`, whole waves. */
  const order = (from: number, to: number): ShareOrder => ({
    matrices: sums.map((sum, m) => ({
      sum,
      waves: Array.from({ length: Math.ceil((to - from) / WAVE) }, (_, k) => {
        const begin = from + k * WAVE;
        return gradients[m]!.slice(begin, Math.min(to, begin + WAVE));
      }),
      begins: from === 0,
      unfolding: to === count ? unfoldings[m] : undefined,
    })),
    gains: to === count ? [{ from: dGain, to: gains }] : [],
    squares: to === count ? [sums[0]!, gains].map((gradient, k) => ({ gradient, into: squares.subarray(k, k + 1) })) : [],
  });
  return { weightA, weightB, gain, gradients, sums, gains, squares, order };
}

const shapes = {
  seed: fc.nat(),
  rows: fc.integer({ min: 1, max: 70 }),
  width: fc.integer({ min: 1, max: 130 }),
  count: fc.integer({ min: 1, max: 11 }),
};

test('sums of gradients become those of weights and gains by the product rule', () => {
  fc.assert(
    fc.property(fc.record(shapes), ({ seed, rows, width, count }) => {
      const { weightA, weightB, gain, gradients, sums, gains, squares, order } = example(seed, rows, width, count);
      sumShare(order(0, count));
      const total = (m: number, i: number) => gradients[m]!.reduce((sum, one) => sum + one[i]!, 0);
      const close = (got: number, wanted: number, size: number) =>
        assert.ok(Math.abs(got - wanted) <= 1e-6 * size, `${got}, not ${wanted}`);
      for (let i = 0; i < rows * width; i++) {
        close(sums[0]![i]!, total(0, i) * gain[i % width]! + total(2, i), 20 * (1 + Math.abs(gain[i % width]!)));
        close(sums[1]![i]!, 0.5 * total(1, i) * gain[i % width]!, 20 * (1 + Math.abs(gain[i % width]!)));
      }
      for (let j = 0; j < width; j++) {
        let wanted = 0;
        for (let i = j; i < rows * width; i += width) wanted += total(0, i) * weightA[i]! + 0.5 * total(1, i) * weightB[i]!;
        close(gains[j]!, wanted, 20 * rows);
      }
      const square = (data: Float32Array) => data.reduce((sum, x) => sum + x * x, 0);
      for (const [k, data] of [sums[0]!, gains].entries()) assert.ok(Math.abs(squares[k]! - square(data)) <= 1e-6 * (1 + square(data)));
    }),
    { numRuns: 60 },
  );
});

test('waves added one at a time or together give the same bytes', () => {
  fc.assert(
    fc.property(fc.record(shapes), ({ seed, rows, width, count }) => {
      const [together, apart] = [example(seed, rows, width, count), example(seed, rows, width, count)];
      sumShare(together.order(0, count));
      for (let from = 0; from < count; from += WAVE) sumShare(apart.order(from, Math.min(count, from + WAVE)));
      assert.deepEqual([apart.sums, apart.gains, apart.squares], [together.sums, together.gains, together.squares]);
    }),
    { numRuns: 60 },
  );
});

test('folding puts factor and gain into the columns', () => {
  const matrix = new Float32Array(4);
  foldPart({ weight: Float32Array.of(1, 2, 3, 4), gain: Float32Array.of(10, 100), factor: 1, matrix });
  assert.deepEqual([...matrix], [10, 200, 30, 400]);
  foldPart({ weight: Float32Array.of(1, 2, 3, 4), gain: undefined, factor: 2, matrix });
  assert.deepEqual([...matrix], [2, 4, 6, 8]);
});
