/**
 * A lane: a thread of this process with single-threaded ONNX Runtime sessions. One lane per core beats one session with many threads. A lane answers
 * in the order it is asked; it does not decide what is computed where, so results never depend on how many lanes there are.
 */
import { Worker } from 'node:worker_threads';
import { RatchetError } from '../../core/errors.ts';

/** A tensor on its way to a session; over a SharedArrayBuffer it is not copied. */
export interface Feed {
  data: Float32Array | BigInt64Array;
  dims: number[];
}
export type Order = { id: number; session: string } & (
  { kind: 'load'; model: Uint8Array; shared: Record<string, Feed> } | { kind: 'run'; feeds: Record<string, Feed> }
);
export type Answer = { id: number; outputs: Record<string, Float32Array> } | { id: number; error: string };

/** Longest wait for one run. A micro-batch takes well under a minute even for models a hundred times larger than the embedded ones; beyond this the thread is stuck. */
const RUN_LIMIT_MS = 15 * 60_000;
/** Longest wait for a thread to end after it was told to: it may have to finish a run, on a machine that is busy with other things. */
const CLOSE_LIMIT_MS = 60_000;

interface Waiting {
  resolve(outputs: Record<string, Float32Array>): void;
  reject(error: Error): void;
  timer: NodeJS.Timeout;
}

export class Lane {
  #worker = new Worker(new URL('./lane-worker.ts', import.meta.url));
  #waiting = new Map<number, Waiting>();
  #next = 0;
  #dead: RatchetError | undefined;
  #exited: Promise<void>;

  constructor() {
    this.#worker.on('message', (answer: Answer) => {
      const waiting = this.#waiting.get(answer.id);
      if (!waiting) return;
      this.#waiting.delete(answer.id);
      clearTimeout(waiting.timer);
      if ('outputs' in answer) waiting.resolve(answer.outputs);
      else waiting.reject(runError(answer.error));
    });
    this.#worker.on('error', (error) => this.#die(new RatchetError('ComputeCrashed', `a lane failed: ${error.message}`, { cause: error })));
    this.#exited = new Promise((resolve) =>
      this.#worker.on('exit', () => {
        this.#die(new RatchetError('ComputeCrashed', 'a lane ended'));
        resolve();
      }),
    );
  }

  #die(error: RatchetError): void {
    this.#dead ??= error;
    for (const waiting of this.#waiting.values()) {
      clearTimeout(waiting.timer);
      waiting.reject(error);
    }
    this.#waiting.clear();
  }

  #ask(order: Omit<Order, 'id'>, transfer: ArrayBuffer[] = []): Promise<Record<string, Float32Array>> {
    if (this.#dead) return Promise.reject(this.#dead);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#die(new RatchetError('ComputeStalled', `a lane did not answer '${order.session}' within ${RUN_LIMIT_MS} ms`));
      }, RUN_LIMIT_MS);
      this.#waiting.set(id, { resolve, reject, timer });
      this.#worker.postMessage({ ...order, id }, transfer);
    });
  }

  /** Makes a session from an ONNX model. `shared` tensors are fed to every run; over a SharedArrayBuffer they may change between runs. */
  async load(session: string, model: Uint8Array, shared: Record<string, Feed> = {}): Promise<void> {
    await this.#ask({ kind: 'load', session, model, shared } as Omit<Order, 'id'>);
  }

  /** Runs a session and returns its outputs, flat. The feeds are handed over: their arrays are empty afterwards, unless they are shared memory. */
  run(session: string, feeds: Record<string, Feed>): Promise<Record<string, Float32Array>> {
    const own = Object.values(feeds).flatMap(({ data: { buffer } }) => (buffer instanceof ArrayBuffer ? [buffer] : []));
    return this.#ask({ kind: 'run', session, feeds } as Omit<Order, 'id'>, [...new Set(own)]);
  }

  /** Lets what was asked finish, then ends the thread. (Ending it in the middle of a native run would abort the process.) */
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

function runError(message: string): Error {
  if (/bad_alloc|allocate|out of memory/i.test(message)) return new RatchetError('OutOfMemory', `ONNX Runtime: ${message}`);
  return new Error(`ONNX Runtime: ${message}`);
}

/** Starts `count` lanes and lets each load what `load` says; if that fails the lanes are closed again. */
export async function openLanes(count: number, load: (lane: Lane) => Promise<void>): Promise<Lane[]> {
  if (!Number.isInteger(count) || count < 1)
    throw new RatchetError('BadInput', `lanes: ${count} is not valid; a whole number of at least 1`);
  const lanes = Array.from({ length: count }, () => new Lane());
  try {
    await Promise.all(lanes.map(load));
  } catch (error) {
    await Promise.allSettled(lanes.map((lane) => lane.close()));
    throw error;
  }
  return lanes;
}
