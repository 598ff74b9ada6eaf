/** How micro-batches are spread over lanes. What comes out is the business of `trainer.test.ts` and `parity.test.ts`. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Random } from '../../core/random.ts';
import { GradientLanes } from '../../learning/gradient-lanes.ts';
import { Lane } from '../../learning/lanes/lane.ts';
import { randomBatch, tinyModel } from './reference.ts';

test('no lane is given a second micro-batch that another lane may be left without', async () => {
  const model = tinyModel(3);
  const lanes = [new Lane(), new Lane(), new Lane()];
  try {
    for (const [count, used] of [
      [4, 2],
      [5, 2],
      [9, 2],
      [7, 3],
    ] as const) {
      const batches = Array.from({ length: count }, (_, i) => randomBatch('crossEntropy', new Random(['lanes', count, i]), 11));
      const engine = new GradientLanes(model.config, 'crossEntropy');
      let left: number = count;
      const order: string[] = [];
      const watched = lanes.slice(0, used).map((lane) => {
        let open = 0;
        const run: Lane['run'] = async (...question) => {
          if (open > 0) assert.ok(left >= used, `with ${count} micro-batches on ${used} lanes one was queued while ${left} were left`);
          left--;
          open++;
          order.push(`${lanes.indexOf(lane)}`);
          try {
            return await lane.run(...question);
          } finally {
            open--;
          }
        };
        return new Proxy(lane, { get: (target, name) => (name === 'run' ? run : bound(target, name)) });
      });
      engine.open(watched, model.tensors);
      const { loss } = await engine.compute(batches, model.tensors);
      assert.ok(Number.isFinite(loss));
      assert.equal(order.length, count);
    }
  } finally {
    await Promise.all(lanes.map((lane) => lane.close()));
  }
});

/** A property of a lane, methods bound to it, as its private state needs. */
function bound(lane: Lane, name: string | symbol): unknown {
  const value: unknown = Reflect.get(lane, name, lane);
  return typeof value === 'function' ? (value as (...args: unknown[]) => unknown).bind(lane) : value;
}
