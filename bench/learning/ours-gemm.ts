/** ONNX Runtime's matrix product as a contestant, one single-threaded session per lane. Orders: `prepare` (lanes), `multiply` (m, k, n, count). */
import { Graph } from '../../learning/graph/graph.ts';
import { concat, first, matmul } from '../../learning/graph/operators.ts';
import { openLanes } from '../../learning/lanes/lane.ts';
import type { Lane } from '../../learning/lanes/lane.ts';
import { serve } from './serve.ts';

let lanes: Lane[];
/** Products of one run: the fewer runs, the less is spent on going to and fro. */
const PRODUCTS = 32;

await serve(async (order) => {
  if (order.order === 'prepare') {
    lanes = await openLanes(order['lanes'] as number, async () => undefined);
    return {};
  }
  const { m, k, n, count } = order as unknown as { m: number; k: number; n: number; count: number };
  const graph = new Graph({ M: m, K: k, N: n });
  const b = graph.input('b', 'float32', ['K', 'N']);
  const inputs = Array.from({ length: PRODUCTS }, (_, i) => graph.input(`a${i}`, 'float32', ['M', 'K']));
  // One row of each product is fetched: what is fetched is copied, which is not what is measured.
  const rows = inputs.map((a) => first(matmul(a, b), '1'));
  const bytes = graph.emit({ y: concat(rows, 0, String(PRODUCTS)) });
  // All products are of the same numbers in the same place, as PyTorch's are: each lane has them in its core's cache.
  const matrix = (rows: number, columns: number) => ({
    data: new Float32Array(new SharedArrayBuffer(rows * columns * 4)).fill(0.5),
    dims: [rows, columns],
  });
  const left = matrix(m, k);
  const shared = { b: matrix(k, n), ...Object.fromEntries(inputs.map((_, i) => [`a${i}`, left])) };
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
