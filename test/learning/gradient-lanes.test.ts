/** How micro-batches and sums are spread over lanes. That the gradients are right is the business of `parity.test.ts`. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { sha256 } from '../../core/digest.ts';
import { Random } from '../../core/random.ts';
import { Lane } from '../../learning/lanes/lane.ts';
import { gradientsOn, randomBatch, tinyModel } from './reference.ts';

const model = tinyModel(3);
const lanes = [new Lane(), new Lane(), new Lane()];
after(() => Promise.all(lanes.map((lane) => lane.close())));

const batches = (count: number) => Array.from({ length: count }, (_, i) => randomBatch('crossEntropy', new Random(['lanes', i]), 11));

/** A lane whose method is `other`. */
function withMethod<K extends 'run' | 'sum'>(lane: Lane, method: K, other: Lane[K]): Lane {
  return new Proxy(lane, {
    get(target, name) {
      if (name === method) return other;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? (value as (...args: unknown[]) => unknown).bind(target) : value;
    },
  });
}

/** Digests of all gradients. */
async function digests(compute: Compute, count: number): Promise<Record<string, string>> {
  const { loss, gradients, squares } = await compute(batches(count));
  const named = [...gradients].map(([name, data]) => [name, sha256(new Uint8Array(data.slice().buffer))]);
  return { ...Object.fromEntries(named), loss: String(loss), squares: JSON.stringify([...squares]) };
}

const computeOn = (own: Lane[]) => gradientsOn(own, model, 'crossEntropy');
type Compute = Awaited<ReturnType<typeof computeOn>>;

test('no lane is given a second micro-batch that another lane may be left without', async () => {
  for (const [count, used] of [
    [4, 2],
    [5, 2],
    [9, 2],
    [7, 3],
  ] as const) {
    let left: number = count;
    const watched = lanes.slice(0, used).map((lane) => {
      let open = 0;
      return withMethod(lane, 'run', async (...question) => {
        if (open > 0) assert.ok(left >= used, `with ${count} micro-batches on ${used} lanes one was queued while ${left} were left`);
        left--;
        open++;
        try {
          return await lane.run(...question);
        } finally {
          open--;
        }
      });
    });
    await digests(await computeOn(watched), count);
    assert.equal(left, 0);
  }
});

test('many micro-batches on one to three lanes of changing speed give the same bytes', async () => {
  const random = new Random(['delays']);
  const found = [];
  for (const used of [1, 2, 3, 2, 3]) {
    const uneven = lanes.slice(0, used).map((lane) =>
      withMethod(lane, 'run', async (...question) => {
        const outputs = await lane.run(...question);
        await new Promise((resolve) => setTimeout(resolve, random.below(4)));
        return outputs;
      }),
    );
    found.push(await digests(await computeOn(uneven), 17));
  }
  for (const one of found) assert.deepEqual(one, found[0]);
});

for (const method of ['run', 'sum'] as const)
  test(`a lane that fails in '${method}' fails the step, and the next step is as if nothing had been`, async () => {
    const wanted = await digests(await computeOn(lanes.slice(0, 2)), 10);
    let calls = 0;
    const failing = lanes.slice(0, 2).map((lane) => {
      const own = lane[method].bind(lane) as (...question: unknown[]) => Promise<never>;
      return withMethod(lane, method, (...question: unknown[]) =>
        ++calls === 3 ? Promise.reject(new Error('out of luck')) : own(...question),
      );
    });
    const compute = await computeOn(failing);
    await assert.rejects(digests(compute, 10), /out of luck/);
    assert.deepEqual(await digests(compute, 10), wanted);
  });
