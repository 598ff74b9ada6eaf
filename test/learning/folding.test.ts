/** Sums of gradients and the way back from folded matrices, against the product rule in plain double precision. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Random } from '../../core/random.ts';
import { LaneMemory } from '../../learning/lanes/arithmetic.ts';
import { fold, foldPart, sumShare } from '../../learning/lanes/folding.ts';
import type { ShareOrder } from '../../learning/lanes/folding.ts';

const memory = await LaneMemory.create();
/** Numbers in the memory of the arithmetic. */
function shared(data: ArrayLike<number>): Float32Array {
  const out = memory.floats(data.length);
  out.set(data);
  return out;
}
const SLOTS = 5;

/**
 * Two matrices under one gain, the second with a factor; a third of the first one's tensor (as a tied head), without gain. Bit m of `transposed` says whether
 * the graph holds matrix m as [width, rows].
 */
function example({
  seed,
  rows,
  width,
  count,
  transposed,
}: {
  seed: number;
  rows: number;
  width: number;
  count: number;
  transposed: number;
}) {
  const random = new Random(['folding', seed]);
  const draw = (length: number) => Float32Array.from({ length }, () => random.normal());
  const size = rows * width;
  const [weightA, weightB, gain] = [shared(draw(size)), shared(draw(size)), shared(draw(width))];
  const turned = [0, 1, 2].map((m) => ((transposed >> m) & 1) === 1);
  const gradients = turned.map(() => Array.from({ length: count }, () => draw(size)));
  const slots = turned.map(() => memory.row(size, SLOTS));
  const sums = turned.map(() => shared(new Float32Array(size).fill(NaN)));
  const [dA, dB] = [0, 1].map((m) => (turned[m] ? shared(new Float32Array(size).fill(NaN)) : sums[m]!)) as [Float32Array, Float32Array];
  const dGain = memory.doubles(width).fill(NaN);
  const [gains, squares] = [shared(new Float32Array(width)), memory.doubles(2)];
  const common = { gain, gainGradient: dGain, inputs: width, adds: false };
  const ofHead = { gain: undefined, gainGradient: undefined, gainBegins: false, adds: true };
  const unfoldings = [
    { ...common, weight: weightA, factor: 1, gainBegins: true, transposed: turned[0]!, into: dA },
    { ...common, weight: weightB, factor: 0.5, gainBegins: false, transposed: turned[1]!, into: dB },
    { ...ofHead, weight: weightA, factor: 1, inputs: width, transposed: turned[2]!, into: dA },
  ];
  /** Puts micro-batches `from` to `to` into their slots, and says that they are to be added. */
  const order = (from: number, to: number): ShareOrder => ({
    matrices: sums.map((sum, m) => {
      for (let i = from; i < to; i++) slots[m]!.arrays[i % SLOTS]!.set(gradients[m]![i]!);
      return { sum, slots: slots[m]!.row, from, to, unfolding: to === count ? unfoldings[m] : undefined };
    }),
    gains: to === count ? [{ from: dGain, to: gains }] : [],
    squares: to === count ? [dA, gains].map((gradient, k) => ({ gradient, into: squares.subarray(k, k + 1) })) : [],
  });
  /** Adds all micro-batches, at most `step` at a time. */
  const add = (step: number) => {
    for (let from = 0; from < count; from += step) sumShare(order(from, Math.min(count, from + step)), memory.arithmetic);
  };
  /** The sum of the gradients of matrix m at row o and column i of the tensor. */
  const total = (m: number, o: number, i: number) =>
    gradients[m]!.reduce((sum, one) => sum + one[turned[m] ? i * rows + o : o * width + i]!, 0);
  return { weightA, weightB, gain, total, dA, dB, gains, squares, add };
}

const shapes = {
  seed: fc.nat(),
  // Whole tiles of 4 x 4 are another path than other shapes.
  rows: fc.oneof(
    fc.integer({ min: 1, max: 70 }),
    fc.integer({ min: 1, max: 20 }).map((n) => 4 * n),
  ),
  width: fc.oneof(
    fc.integer({ min: 1, max: 130 }),
    fc.integer({ min: 1, max: 30 }).map((n) => 4 * n),
  ),
  count: fc.integer({ min: 1, max: 11 }),
  transposed: fc.integer({ min: 0, max: 7 }),
};

test('sums of gradients become those of weights and gains by the product rule', () => {
  fc.assert(
    fc.property(fc.record(shapes), (shape) => {
      const { rows, width } = shape;
      const { weightA, weightB, gain, total, dA, dB, gains, squares, add } = example(shape);
      add(SLOTS);
      const close = (got: number, wanted: number, size: number) =>
        assert.ok(Math.abs(got - wanted) <= 1e-6 * size, `${got}, not ${wanted}`);
      for (let i = 0; i < width; i++) {
        let wanted = 0;
        for (let o = 0; o < rows; o++) {
          const [at, scale] = [o * width + i, 20 * (1 + Math.abs(gain[i]!))];
          close(dA[at]!, total(0, o, i) * gain[i]! + total(2, o, i), scale);
          close(dB[at]!, 0.5 * total(1, o, i) * gain[i]!, scale);
          wanted += total(0, o, i) * weightA[at]! + 0.5 * total(1, o, i) * weightB[at]!;
        }
        close(gains[i]!, wanted, 20 * rows);
      }
      const square = (data: Float32Array) => data.reduce((sum, x) => sum + x * x, 0);
      for (const [k, data] of [dA, gains].entries()) assert.ok(Math.abs(squares[k]! - square(data)) <= 1e-6 * (1 + square(data)));
    }),
    { numRuns: 100 },
  );
});

test('micro-batches added one at a time or several at once give the same bytes', () => {
  fc.assert(
    fc.property(fc.record({ ...shapes, step: fc.integer({ min: 1, max: SLOTS }) }), (shape) => {
      const [one, several] = [example(shape), example(shape)];
      one.add(1);
      several.add(shape.step);
      assert.deepEqual([several.dA, several.dB, several.gains, several.squares], [one.dA, one.dB, one.gains, one.squares]);
    }),
    { numRuns: 60 },
  );
});

test('folding puts factor and gain into the columns, and turns what the graph holds transposed', () => {
  const fold = (gain: number[] | undefined, factor: number, transposed: boolean) => {
    const matrix = new Float32Array(6);
    foldPart({ weight: Float32Array.of(1, 2, 3, 4, 5, 6), gain: gain && Float32Array.from(gain), factor, inputs: 3, transposed, matrix });
    return [...matrix];
  };
  assert.deepEqual(fold([10, 100, 1000], 1, false), [10, 200, 3000, 40, 500, 6000]);
  assert.deepEqual(fold(undefined, 2, false), [2, 4, 6, 8, 10, 12]);
  assert.deepEqual(fold(undefined, 1, false), [1, 2, 3, 4, 5, 6]);
  assert.deepEqual(fold([10, 100, 1000], 0.5, true), [5, 20, 100, 250, 1500, 3000]);
  assert.deepEqual(fold(undefined, 1, true), [1, 4, 2, 5, 3, 6]);
});

test('the lanes fold to the same bytes as everybody else, with whole tiles and without', () => {
  fc.assert(
    fc.property(fc.record({ ...shapes, factor: fc.constantFrom(1, 2, 0.3), hasGain: fc.boolean() }), (shape) => {
      const { seed, rows, width, factor, hasGain, transposed } = shape;
      const random = new Random(['fold', seed]);
      const draw = (length: number) => shared(Float32Array.from({ length }, () => random.normal()));
      const part = {
        weight: draw(rows * width),
        gain: hasGain ? draw(width) : undefined,
        factor,
        inputs: width,
        transposed: transposed > 3,
      };
      const [plain, lanes] = [new Float32Array(rows * width), shared(new Float32Array(rows * width))];
      foldPart({ ...part, matrix: plain });
      fold({ ...part, matrix: lanes }, memory.arithmetic);
      assert.deepEqual([...lanes], [...plain]);
    }),
    { numRuns: 100 },
  );
});
