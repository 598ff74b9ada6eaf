/**
 * A lane: a thread of this process with single-threaded ONNX Runtime sessions. One lane per core beats one session with many threads. A lane answers
 * in the order it is asked. Which lane does what (`keepBusy`) is a matter of time alone, so results must never depend on it.
 */
import { Worker } from 'node:worker_threads';
import { RatchetError } from '../../core/errors.ts';
import { currentProvider, nativeEnvironment, showAbsent } from '../providers.ts';
import type { Provider } from '../providers.ts';
import type { AdamwNumbers, AdamwPart, LaneMemory, SharedArithmetic } from './arithmetic.ts';
import type { FoldOrder, ShareOrder } from './folding.ts';

/** A tensor on its way to a session; over a SharedArrayBuffer it is not copied. */
export interface Feed {
  data: Float32Array | BigInt64Array;
  dims: number[];
}
export type Question = { session: string } & (
  | { kind: 'load'; model: Uint8Array; shared: Record<string, Feed>; slots: Record<string, Feed>[] }
  | { kind: 'run'; feeds: Record<string, Feed>; slot: number | undefined }
  | { kind: 'share'; arithmetic: SharedArithmetic }
  | { kind: 'adamw'; parts: AdamwPart[]; numbers: AdamwNumbers }
  | { kind: 'fold'; orders: FoldOrder[] }
  | { kind: 'sum'; order: ShareOrder }
  /** Frees a session; one that was never made is freed already. */
  | { kind: 'release' }
  /** Frees the shared memory, as far as this lane is concerned. */
  | { kind: 'leave' }
);
/** `lane`: whose session is meant, where several lanes share a thread. */
export type Order = Question & { id: number; lane: number };
/** `absent`: the execution provider could not be used at all. */
export type Answer = { id: number; outputs: Record<string, Float32Array> } | { id: number; error: string; absent: boolean };

/** Longest wait for one run. A micro-batch takes well under a minute even for models a hundred times larger than the embedded ones; beyond this the thread is stuck. */
const RUN_LIMIT_MS = 15 * 60_000;
/** Longest wait for a thread to end after it was told to: it may have to finish a run, on a machine that is busy with other things. */
const CLOSE_LIMIT_MS = 60_000;

interface Waiting {
  kind: Question['kind'];
  resolve(outputs: Record<string, Float32Array>): void;
  reject(error: Error): void;
  timer: NodeJS.Timeout;
}

/** The worker thread under a lane, and its questions and answers. */
class LaneThread {
  readonly #provider: Provider;
  readonly #worker: Worker;
  readonly #exited: Promise<void>;
  #waiting = new Map<number, Waiting>();
  #next = 0;
  #dead: RatchetError | undefined;

  constructor(provider: Provider) {
    // The libraries of a provider read the environment of the process, which a thread's copy is not.
    // Nothing is written that is there already: a library that reads it at that moment might miss it.
    for (const [name, value] of Object.entries(nativeEnvironment(provider))) if (process.env[name] !== value) process.env[name] = value;
    this.#provider = provider;
    this.#worker = new Worker(new URL('./lane-worker.ts', import.meta.url), { workerData: provider });
    this.#worker.on('message', (answer: Answer) => {
      const waiting = this.#waiting.get(answer.id);
      if (!waiting) return;
      this.#waiting.delete(answer.id);
      clearTimeout(waiting.timer);
      if ('outputs' in answer) waiting.resolve(answer.outputs);
      else waiting.reject(answer.absent ? this.#absent(answer.error) : laneError(waiting.kind, answer.error));
    });
    this.#worker.on('error', (error) => this.#die(new RatchetError('ComputeCrashed', `a lane failed: ${error.message}`, { cause: error })));
    this.#exited = new Promise((resolve) =>
      this.#worker.on('exit', () => {
        this.#die(new RatchetError('ComputeCrashed', 'a lane ended'));
        resolve();
      }),
    );
  }

  get dead(): boolean {
    return this.#dead !== undefined;
  }

  #absent(reason: string): RatchetError {
    return new RatchetError('Unavailable', `${showAbsent(this.#provider, reason)}; \`ratchet doctor --gpu\` says what is there`);
  }

  #die(error: RatchetError): void {
    this.#dead ??= error;
    for (const waiting of this.#waiting.values()) {
      clearTimeout(waiting.timer);
      waiting.reject(error);
    }
    this.#waiting.clear();
  }

  ask(lane: number, question: Question, transfer: ArrayBuffer[] = []): Promise<Record<string, Float32Array>> {
    if (this.#dead) return Promise.reject(this.#dead);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#die(new RatchetError('ComputeStalled', `a lane did not answer '${question.session}' within ${RUN_LIMIT_MS} ms`));
      }, RUN_LIMIT_MS);
      this.#waiting.set(id, { kind: question.kind, resolve, reject, timer });
      this.#worker.postMessage({ ...question, id, lane } satisfies Order, transfer);
    });
  }

  /** Keeps the process alive from now on only while a question is open, which its timer sees to. */
  unref(): void {
    this.#worker.unref();
  }

  async close(): Promise<void> {
    if (this.#dead) return;
    this.#worker.postMessage('close');
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new RatchetError('ComputeStalled', `a lane did not end within ${CLOSE_LIMIT_MS} ms`)),
        CLOSE_LIMIT_MS,
      );
    });
    try {
      await Promise.race([this.#exited, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/**
 * The one thread of this process that speaks to its device: sessions of a device on several threads at once corrupted memory (WebGPU), and a device's
 * context is costly to make again. It lives as long as the process.
 */
let deviceThread: LaneThread | undefined;
let laneCount = 0;

export class Lane {
  readonly #thread: LaneThread;
  readonly #shares: boolean;
  readonly #number = laneCount++;
  readonly #sessions = new Set<string>();

  constructor(provider = currentProvider()) {
    this.#shares = provider.name !== 'cpu';
    if (this.#shares) {
      if (deviceThread === undefined || deviceThread.dead) {
        deviceThread = new LaneThread(provider);
        deviceThread.unref();
      }
      this.#thread = deviceThread;
    } else this.#thread = new LaneThread(provider);
  }

  /** Resolves when the lane takes orders. Throws Unavailable where the execution provider cannot be used. */
  async ready(): Promise<void> {
    await this.#thread.ask(this.#number, { kind: 'release', session: '' });
  }

  /**
   * Makes a session from an ONNX model. `shared` tensors are fed to every run; over shared memory they may change between runs. `slots` are places, in shared
   * memory too, that a run can leave outputs in, by their names.
   */
  async load(session: string, model: Uint8Array, shared: Record<string, Feed> = {}, slots: Record<string, Feed>[] = []): Promise<void> {
    this.#sessions.add(session);
    await this.#thread.ask(this.#number, { kind: 'load', session, model, shared, slots });
  }

  /**
   * Runs a session and returns its outputs, flat, but those that a slot has a place for: they are there. The feeds are handed over: their arrays are empty
   * afterwards, unless they are shared memory.
   */
  run(session: string, feeds: Record<string, Feed>, slot?: number): Promise<Record<string, Float32Array>> {
    const own = Object.values(feeds).flatMap(({ data: { buffer } }) => (buffer instanceof ArrayBuffer ? [buffer] : []));
    return this.#thread.ask(this.#number, { kind: 'run', session, feeds, slot }, [...new Set(own)]);
  }

  /** Lets the lane work on a memory: `adamw`, `fold` and `sum` need it. */
  async share({ shared }: LaneMemory): Promise<void> {
    await this.#thread.ask(this.#number, { kind: 'share', session: 'arithmetic', arithmetic: shared });
  }

  /** A step of AdamW on parameters and state in shared memory. */
  async adamw(parts: AdamwPart[], numbers: AdamwNumbers): Promise<void> {
    await this.#thread.ask(this.#number, { kind: 'adamw', session: 'adamw', parts, numbers });
  }

  /** Writes matrices of a graph, in shared memory, from weights. */
  async fold(orders: FoldOrder[]): Promise<void> {
    await this.#thread.ask(this.#number, { kind: 'fold', session: 'fold', orders });
  }

  /** Adds gradients to sums in shared memory, and unfolds them in the end. */
  async sum(order: ShareOrder): Promise<void> {
    await this.#thread.ask(this.#number, { kind: 'sum', session: 'sum', order });
  }

  /**
   * Lets what was asked finish, then ends the thread (ending it in the middle of a native run would abort the process), or releases this lane's sessions
   * where the thread is shared.
   */
  async close(): Promise<void> {
    if (!this.#shares) return await this.#thread.close();
    if (this.#thread.dead) return;
    const sessions = [...this.#sessions];
    this.#sessions.clear();
    await Promise.all(sessions.map((session) => this.#thread.ask(this.#number, { kind: 'release', session })));
    await this.#thread.ask(this.#number, { kind: 'leave', session: 'arithmetic' });
  }
}

/**
 * What the allocators say: C++'s; ONNX Runtime's arenas, on the CPU and on CUDA; Dawn's. Beyond the largest buffer of a WebGPU device ONNX Runtime 1.30 looks
 * up a size class that it does not have.
 */
const OUT_OF_MEMORY = /bad_alloc|allocate|out of memory|OUT_OF_MEMORY|raw_hash_map<>::at/i;

function laneError(kind: Question['kind'], message: string): Error {
  if (kind !== 'load' && kind !== 'run' && kind !== 'release') return new Error(`a lane, in '${kind}': ${message}`);
  if (OUT_OF_MEMORY.test(message)) return new RatchetError('OutOfMemory', `ONNX Runtime: ${message}`);
  return new Error(`ONNX Runtime: ${message}`);
}

/**
 * Starts `count` lanes and lets each load what `load` says; if that fails the lanes are closed again. On a provider other than the CPU there is one lane:
 * a device has its own parallelism, and every lane would hold the weights once more.
 */
export async function openLanes(count: number, load: (lane: Lane) => Promise<void>): Promise<Lane[]> {
  if (!Number.isInteger(count) || count < 1)
    throw new RatchetError('BadInput', `lanes: ${count} is not valid; a whole number of at least 1`);
  const provider = currentProvider();
  const lanes = Array.from({ length: provider.name === 'cpu' ? count : 1 }, () => new Lane(provider));
  try {
    await Promise.all(lanes.map(load));
  } catch (error) {
    await Promise.allSettled(lanes.map((lane) => lane.close()));
    throw error;
  }
  return lanes;
}

/** Numbers, all 0, in memory that lanes share. */
export const sharedFloats = (length: number) => new Float32Array(new SharedArrayBuffer(Float32Array.BYTES_PER_ELEMENT * length));

/** Pieces that work on parameters is cut into, for each lane: a lane that is held up leaves some to the others. */
export const SHARES_PER_LANE = 2;

/** Pieces that may be under way on one lane: one that runs and one that waits, so that it never idles. */
const DEPTH = 2;

/**
 * Whether a lane with `open` pieces of work takes one more: while it has none, or there are more left than lanes. The last ones go to whoever is free first;
 * one that waited behind another would be missing elsewhere.
 */
export const mayTake = (open: number, left: number, lanes: number): boolean => left > 0 && (open === 0 || left > lanes);

/**
 * Lets lanes work. `take` is asked what a lane with `open` tasks does next: a task; 'later' where that depends on tasks that are under way; undefined where
 * nothing is left that needs one more task on it. Ends when no lane is at work any more, also when a task fails, and throws what failed.
 */
export async function keepBusy(
  lanes: readonly Lane[],
  take: (lane: Lane, open: number) => Promise<void> | 'later' | undefined,
): Promise<void> {
  const open = new Map(lanes.map((lane) => [lane, 0]));
  let failed = false;
  let change = Promise.withResolvers<void>();
  const work = async (lane: Lane) => {
    while (!failed) {
      const before = open.get(lane)!;
      const task = take(lane, before);
      if (task === undefined) return;
      if (task === 'later') {
        await change.promise;
        continue;
      }
      open.set(lane, before + 1);
      try {
        await task;
      } catch (error) {
        failed = true;
        throw error;
      } finally {
        open.set(lane, open.get(lane)! - 1);
        change.resolve();
        change = Promise.withResolvers();
      }
    }
  };
  const workers = Array.from({ length: DEPTH }, () => lanes.map(work)).flat();
  for (const end of await Promise.allSettled(workers)) if (end.status === 'rejected') throw end.reason;
}

/** Lets lanes take pieces of work, each lane the next one whenever it is free. */
export function spread<T>(lanes: readonly Lane[], pieces: readonly T[], work: (lane: Lane, piece: T) => Promise<void>): Promise<void> {
  let next = 0;
  const one = async (lane: Lane, piece: T) => work(lane, piece);
  return keepBusy(lanes, (lane, open) => (mayTake(open, pieces.length - next, lanes.length) ? one(lane, pieces[next++]!) : undefined));
}
