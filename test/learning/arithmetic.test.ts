/** The arithmetic that lanes share, against the definitions in plain loops, and the memory that it works on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Random } from '../../core/random.ts';
import { LaneMemory, shares } from '../../learning/lanes/arithmetic.ts';
import type { AdamwPart } from '../../learning/lanes/arithmetic.ts';

const memory = await LaneMemory.create();

function drawn(length: number, random: Random, size = 1): Float32Array {
  const out = memory.floats(length);
  for (let i = 0; i < length; i++) out[i] = size * random.normal();
  return out;
}

test('sums are float32, in the order of what is added, wherever it is cut', () => {
  fc.assert(
    fc.property(fc.nat(), fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 9 }), (seed, length, count) => {
      const random = new Random(['sums', seed]);
      const { row, arrays } = memory.row(length, count);
      for (const one of arrays) one.set(drawn(length, random));
      const wanted = row.first.map((_, i) => arrays.reduce((sum, one) => Math.fround(sum + one[i]!), 0));
      const sum = drawn(length, random);
      memory.arithmetic.sum(sum, row, 0, count, true);
      assert.deepEqual([...sum], [...wanted]);
      const cut = Math.floor(count / 2);
      memory.arithmetic.sum(sum, row, 0, cut, true);
      memory.arithmetic.sum(sum, row, cut, count - cut, false);
      assert.deepEqual([...sum], [...wanted]);
      const squares = sum.reduce((total, x) => total + x * x, 0);
      assert.ok(Math.abs(memory.arithmetic.squares(sum) - squares) <= 1e-12 * (1 + squares));
    }),
  );
});

test('AdamW is Algorithm 2 of arXiv 1711.05101, to float32, however its work is cut', () => {
  const [beta1, beta2, epsilon, rate, decay] = [0.9, 0.98, 1e-8, 3e-3, 0.1];
  fc.assert(
    fc.property(
      fc.nat(),
      fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 1, max: 7 }),
      (seed, lengths, cuts) => {
        const random = new Random(['adamw', seed]);
        const parts: AdamwPart[] = lengths.map((length) => ({
          parameter: drawn(length, random),
          firstMoment: memory.floats(length),
          secondMoment: memory.floats(length),
          gradient: drawn(length, random, 0.1),
          decay: 1 - rate * decay,
        }));
        const plain = parts.map(({ parameter }) => [...parameter].map((p) => ({ p, m: 0, v: 0 })));
        for (let step = 1; step <= 3; step++) {
          const scale = 1 / step; // as clipping would
          const lists = shares(parts, cuts);
          assert.equal(lists.length, cuts);
          const [stepSize, rootCorrection] = [rate / (1 - beta1 ** step), Math.sqrt(1 - beta2 ** step)];
          for (const list of lists)
            memory.arithmetic.adamw(list, { beta1, beta2, epsilon, gradientScale: scale, stepSize, rootCorrection });
          parts.forEach(({ parameter, gradient }, k) =>
            plain[k]!.forEach((state, i) => {
              const d = gradient[i]! * scale;
              state.m = beta1 * state.m + (1 - beta1) * d;
              state.v = beta2 * state.v + (1 - beta2) * d * d;
              const [m, v] = [state.m / (1 - beta1 ** step), state.v / (1 - beta2 ** step)];
              state.p -= rate * (m / (Math.sqrt(v) + epsilon) + decay * state.p);
              assert.ok(Math.abs(parameter[i]! - state.p) <= 1e-6 * (1 + Math.abs(state.p)), `${parameter[i]}, not ${state.p}`);
            }),
          );
        }
      },
    ),
  );
});

test('arrays of a memory do not touch each other, also when it has grown, and others are refused', async () => {
  const own = await LaneMemory.create();
  const arrays = [7, 16, 1, 20_000_000, 33].map((length) => own.floats(length));
  for (const [i, array] of arrays.entries()) array.fill(i + 1);
  for (const [i, array] of arrays.entries()) {
    assert.equal(array.byteOffset % 64, 0);
    assert.ok(array[0] === i + 1 && array.at(-1) === i + 1 && own.arithmetic.squares(array) === (i + 1) ** 2 * array.length);
    own.owned(array);
    own.owned(array.subarray(1));
  }
  assert.throws(() => own.owned(memory.floats(1)), /not in their memory/);
  // When one memory grows, other ones get new objects too.
  const [one, two] = [await LaneMemory.create(), await LaneMemory.create()];
  two.floats(100_000);
  one.owned(one.floats(4));
  assert.throws(() => one.owned(two.floats(4)), /not in their memory/);
  assert.throws(() => own.owned(new Float32Array(1)), /not in their memory/);
  assert.throws(() => own.floats(2 ** 33), { type: 'OutOfMemory', message: /at most 17179869184/ });
  assert.equal(own.floats(3).length, 3);
});

test("the collector is told of a memory's size, which costs nothing until it is used", async () => {
  const own = await LaneMemory.create();
  const before = process.memoryUsage();
  const array = own.floats(2 ** 26);
  const after = process.memoryUsage();
  assert.ok(after.arrayBuffers - before.arrayBuffers >= array.byteLength);
  assert.ok(after.rss - before.rss < array.byteLength / 4);
});
