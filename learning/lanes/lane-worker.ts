/**
 * The thread of one lane: it holds ONNX Runtime sessions of one thread each and runs what it is sent, one after the other. It knows nothing of models.
 * No session asks for denormals to be flushed: ONNX Runtime does it for the first thread of a process that makes one and for no other, so that the same work
 * would give other bytes on another lane.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { InferenceSession, Tensor, listSupportedBackends } from 'onnxruntime-node';
import { hasTunedAllocator } from '../compute/allocator.ts';
import { encodeOnnx } from '../graph/onnx.ts';
import type { Provider } from '../providers.ts';
import { Arithmetic } from './arithmetic.ts';
import { fold, sumShare } from './folding.ts';
import type { Answer, Feed, Order } from './lane.ts';

const provider = workerData as Provider;

const SESSION_OPTIONS: InferenceSession.SessionOptions = {
  // What the provider has no kernel for, ONNX Runtime computes on the CPU.
  executionProviders: [{ name: provider.name, ...(provider.device > 0 && { deviceId: provider.device }) }],
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  executionMode: 'sequential',
  graphOptimizationLevel: 'all',
  logSeverityLevel: 3,
  // An arena rounds what it holds up to powers of two, and plans of a run's memory are kept for every shape that was seen: a fifth to a quarter more memory,
  // and no faster than glibc's allocator as `learning/compute/allocator.ts` sets it.
  ...(provider.name === 'cpu' && hasTunedAllocator() && { enableCpuMemArena: false, enableMemPattern: false }),
  extra: {
    // These would undo the explicit transpositions of `linear`'s gradient.
    optimization: { disable_specified_optimizers: 'MatmulTransposeFusion;GemmTransposeFusion' },
  },
};

/** Adds a number to itself: the smallest graph that a provider must be able to compute. */
const PROBE = encodeOnnx({
  nodes: [{ name: 'probe', op: 'Add', domain: '', inputs: ['x', 'x'], outputs: ['y'], attributes: {} }],
  values: [],
  constants: [],
  inputs: [{ name: 'x', type: 'float32', dims: [1] }],
  outputs: [{ name: 'y', type: 'float32', dims: [1] }],
});

const port = parentPort!;
interface Held {
  session: InferenceSession;
  shared: Record<string, Tensor>;
  slots: Record<string, Tensor>[];
}
/** By lane and name. */
const sessions = new Map<string, Held>();
/** By lane. */
const arithmetics = new Map<number, Arithmetic>();

function tensor({ data, dims }: Feed): Tensor {
  return data instanceof Float32Array ? new Tensor('float32', data, dims) : new Tensor('int64', data, dims);
}
const tensors = (feeds: Record<string, Feed>) => Object.fromEntries(Object.entries(feeds).map(([name, feed]) => [name, tensor(feed)]));

class ProviderAbsent extends Error {}

/** Before the first session: a provider that is not there must not look like a graph that is wrong. */
async function probe(): Promise<void> {
  const there = listSupportedBackends().map(({ name }) => name as string);
  if (!there.includes(provider.name)) throw new ProviderAbsent(`onnxruntime-node on this platform has ${there.join(', ')}`);
  let found: number | undefined;
  try {
    const session = await InferenceSession.create(PROBE, SESSION_OPTIONS);
    const { y } = await session.run({ x: new Tensor('float32', [1], [1]) });
    found = (y!.data as Float32Array)[0];
    await session.release();
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    // Without the place in ONNX Runtime's source and the condition there.
    throw new ProviderAbsent(text.replace(/^\/.*? was false\. /s, '').trim(), { cause: error });
  }
  if (found !== 2) throw new ProviderAbsent(`1 + 1 came out as ${found}`);
}
let probed: Promise<void> | undefined;

async function obey(order: Order): Promise<Record<string, Float32Array>> {
  if (provider.name !== 'cpu') await (probed ??= probe());
  const key = `${order.lane} ${order.session}`;
  switch (order.kind) {
    case 'load': {
      const session = await InferenceSession.create(order.model, SESSION_OPTIONS);
      sessions.set(key, { session, shared: tensors(order.shared), slots: order.slots.map(tensors) });
      (order.model.buffer as ArrayBuffer).transfer(0); // this thread's copy; the session has its own
      return {};
    }
    case 'run':
      return run(key, order);
    case 'share':
      arithmetics.set(order.lane, new Arithmetic(order.arithmetic));
      return {};
    case 'sum':
      sumShare(order.order, arithmeticOf(order));
      return {};
    case 'adamw':
      arithmeticOf(order).adamw(order.parts, order.numbers);
      return {};
    case 'fold':
      for (const one of order.orders) fold(one, arithmeticOf(order));
      return {};
    case 'release':
      await sessions.get(key)?.session.release();
      sessions.delete(key);
      return {};
    case 'leave':
      arithmetics.delete(order.lane);
      return {};
  }
}

function arithmeticOf({ lane }: Order): Arithmetic {
  const own = arithmetics.get(lane);
  if (!own) throw new Error('the lane shares no memory yet');
  return own;
}

async function run(key: string, { session: name, feeds, slot }: Order & { kind: 'run' }): Promise<Record<string, Float32Array>> {
  const held = sessions.get(key);
  if (!held) throw new Error(`the lane holds no session '${name}'`);
  const { session, shared, slots } = held;
  const own = slot === undefined ? {} : slots[slot]!;
  const results = await session.run(
    { ...shared, ...tensors(feeds) },
    Object.fromEntries(session.outputNames.map((output) => [output, own[output] ?? null])),
  );
  return Object.fromEntries(
    Object.entries(results).flatMap(([output, { data }]) => {
      if (!(output in own)) return [[output, data as Float32Array]];
      // ONNX Runtime has written into the slot; its binding copies what it returns all the same. Freed now, and not when the collector comes by: the next
      // copies are written where these were, into pages that are there.
      ((data as Float32Array).buffer as ArrayBuffer).transfer(0);
      return [];
    }),
  );
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
      const text = error instanceof Error ? error.message : String(error);
      port.postMessage({ id: order.id, error: text, absent: error instanceof ProviderAbsent } satisfies Answer);
    }
  });
});
