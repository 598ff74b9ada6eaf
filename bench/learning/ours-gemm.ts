/** ONNX Runtime's matrix product as a contestant, one single-threaded session per lane. Orders: `prepare` (lanes), `multiply` (m, k, n, count). */
import { Graph } from '../../learning/graph/graph.ts';
import { matmul } from '../../learning/graph/operators.ts';
import { openLanes } from '../../learning/lanes/lane.ts';
import type { Lane } from '../../learning/lanes/lane.ts';
import { serve } from './serve.ts';

let lanes: Lane[];
/** Products of one run: the fewer runs, the less is spent on going to and fro. */
const PRODUCTS = 16;

await serve(async (order) => {
  if (order.order === 'prepare') {
    lanes = await openLanes(order['lanes'] as number, async () => undefined);
    return {};
  }
  const { m, k, n, count } = order as unknown as { m: number; k: number; n: number; count: number };
  const graph = new Graph({ M: m, K: k, N: n, B: PRODUCTS });
  const [a, b] = [graph.input('a', 'float32', ['B', 'M', 'K']), graph.input('b', 'float32', ['B', 'K', 'N'])];
  const bytes = graph.emit({ y: matmul(a, b) });
  const shared = {
    a: { data: new Float32Array(new SharedArrayBuffer(PRODUCTS * m * k * 4)).fill(0.5), dims: [PRODUCTS, m, k] },
    b: { data: new Float32Array(new SharedArrayBuffer(PRODUCTS * k * n * 4)).fill(0.5), dims: [PRODUCTS, k, n] },
  };
  const session = `${m}x${k}x${n}`;
  await Promise.all(lanes.map((lane) => lane.load(session, bytes, shared)));
  let best = Infinity;
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    await Promise.all(lanes.map((lane) => lane.run(session, {})));
    best = Math.min(best, performance.now() - start);
  }
  return { gflops: (2 * m * k * n * PRODUCTS * lanes.length) / (best * 1e6) };
});
