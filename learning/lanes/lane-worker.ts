/**
 * The thread of one lane: it holds ONNX Runtime sessions of one thread each and runs what it is sent, one after the other. It knows nothing of models.
 * All sessions live on such threads because flushing denormals (six times faster masked softmax) changes the arithmetic of the thread that creates
 * a session, and the optimizer's arithmetic on the main thread must not depend on that.
 */
import { parentPort } from 'node:worker_threads';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import type { Answer, Feed, Order } from './lane.ts';

const SESSION_OPTIONS: InferenceSession.SessionOptions = {
  executionProviders: ['cpu'],
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  executionMode: 'sequential',
  graphOptimizationLevel: 'all',
  logSeverityLevel: 3,
  extra: {
    session: { set_denormal_as_zero: '1' },
    // These would undo the explicit transpositions of `linear`'s gradient.
    optimization: { disable_specified_optimizers: 'MatmulTransposeFusion;GemmTransposeFusion' },
  },
};

const port = parentPort!;
const sessions = new Map<string, { session: InferenceSession; shared: Record<string, Tensor> }>();

function tensor({ data, dims }: Feed): Tensor {
  return data instanceof Float32Array ? new Tensor('float32', data, dims) : new Tensor('int64', data, dims);
}
const tensors = (feeds: Record<string, Feed>) => Object.fromEntries(Object.entries(feeds).map(([name, feed]) => [name, tensor(feed)]));

async function obey(order: Order): Promise<Record<string, Float32Array>> {
  if (order.kind === 'load') {
    const session = await InferenceSession.create(order.model, SESSION_OPTIONS);
    sessions.set(order.session, { session, shared: tensors(order.shared) });
    return {};
  }
  const held = sessions.get(order.session);
  if (!held) throw new Error(`the lane holds no session '${order.session}'`);
  const results = await held.session.run({ ...held.shared, ...tensors(order.feeds) });
  return Object.fromEntries(Object.entries(results).map(([name, value]) => [name, value.data as Float32Array]));
}

let last: Promise<void> = Promise.resolve();
port.on('message', (order: Order | 'close') => {
  last = last.then(async () => {
    if (order === 'close') {
      for (const { session } of sessions.values()) await session.release();
      port.close();
      return;
    }
    try {
      const outputs = await obey(order);
      const buffers = [...new Set(Object.values(outputs).map((data) => data.buffer as ArrayBuffer))];
      port.postMessage({ id: order.id, outputs } satisfies Answer, buffers);
    } catch (error) {
      port.postMessage({ id: order.id, error: error instanceof Error ? error.message : String(error) } satisfies Answer);
    }
  });
});
