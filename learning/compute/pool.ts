/**
 * A fixed number of compute slots, each with a warm child process that is reused from job to job and replaced when it dies, is killed, or has
 * kept too much memory. A job beyond the number of slots waits for its turn until its signal aborts. Nothing is retried here.
 */
import { badInput } from '../../core/errors.ts';
import { ComputeProcess } from './compute-process.ts';
import type { RunHooks } from './compute-process.ts';

/** Node alone takes about 60 MB; with less than this not even an empty job fits. */
const LEAST_MEMORY_BYTES = 128 * 2 ** 20;

/** A warm child that still holds more than this share of its bound after a job leaves the next one too little room. */
const WARM_MEMORY_SHARE = 0.5;

export interface ComputePoolOptions {
  slots: number;
  /** file: URL of a module that exports `createJobRunner` (see protocol.ts). */
  jobModule: string;
  /** Threads for arithmetic per slot. */
  lanes: number;
  /** Resident memory per slot, in bytes. */
  memoryBytes: number;
  /** Added to this process's environment. */
  env?: Record<string, string>;
  /** Each line of output of a child. Absent: only the last lines are kept, for the message of a crash. */
  onLine?: (slot: number, line: string) => void;
}

export interface PoolRunOptions extends RunHooks {
  /** Aborting ends the job between two steps, or with its child when that takes too long; `run` rejects with the signal's reason once it is over. */
  signal?: AbortSignal;
  /** Aborting asks the job to end after its next checkpoint. */
  stop?: AbortSignal;
}

export interface SlotStatus {
  slot: number;
  /** Process id of the slot's child; null when it has none yet. */
  pid: number | null;
  /** Name of the running job; null when idle. */
  job: string | null;
  rssBytes: number;
}

interface Slot {
  number: number;
  child: ComputeProcess | null;
  /** Resolves when the child that was let go is gone. */
  leaving: Promise<void>;
  job: string | null;
  /** Runs out when the child has been idle for IDLE_BOUND_MS. */
  idle: NodeJS.Timeout | null;
}

/** The next job of a busy queue comes within milliseconds; after so long another queue has the machine. */
const IDLE_BOUND_MS = 2_000;
/** An idle child that holds more than this is let go, because the slots of other queues need the memory; a fresh one starts in half a second. */
const IDLE_MEMORY_BYTES = 384 * 2 ** 20;

export class ComputePool {
  readonly #options: ComputePoolOptions;
  readonly #slots: Slot[];
  readonly #waiting: (() => void)[] = [];
  #closed = false;

  /** Starts nothing: a child is started by the first job of its slot. Throws BadInput for numbers that cannot work. */
  constructor(options: ComputePoolOptions) {
    for (const field of ['slots', 'lanes'] as const) {
      if (!Number.isInteger(options[field]) || options[field] < 1) throw badInput(field, options[field], 'a whole number of at least 1');
    }
    if (!(options.memoryBytes >= LEAST_MEMORY_BYTES)) throw badInput('memoryBytes', options.memoryBytes, `at least ${LEAST_MEMORY_BYTES}`);
    if (URL.parse(options.jobModule)?.protocol !== 'file:') throw badInput('jobModule', options.jobModule, 'a file: URL');
    this.#options = options;
    this.#slots = Array.from({ length: options.slots }, (_, number) => ({
      number,
      child: null,
      leaving: Promise.resolve(),
      job: null,
      idle: null,
    }));
  }

  /**
   * Runs one job in the next free slot and returns its output. Rejects with the signal's reason when aborted, and otherwise as
   * ComputeProcess.run does: the job's RatchetError, OutOfMemory, ComputeCrashed, or a plain Error for a bug.
   */
  async run(name: string, input: unknown, options: PoolRunOptions = {}): Promise<unknown> {
    const { signal, stop } = options;
    const slot = await this.#acquire(name, signal);
    let child: ComputeProcess | null = null;
    const onAbort = (): void => child?.cancel();
    const onStop = (): void => child?.stop();
    try {
      child = await this.#warm(slot);
      signal?.throwIfAborted();
      signal?.addEventListener('abort', onAbort, { once: true });
      stop?.addEventListener('abort', onStop, { once: true });
      const done = child.run(name, input, options);
      if (stop?.aborted) child.stop();
      const output = await done;
      signal?.throwIfAborted();
      return output;
    } catch (error) {
      // By now the job is over or its child is gone: the device is free before anybody else is told.
      if (signal?.aborted) throw signal.reason;
      throw error;
    } finally {
      signal?.removeEventListener('abort', onAbort);
      stop?.removeEventListener('abort', onStop);
      slot.job = null;
      slot.idle = setTimeout(() => this.#letGo(slot), IDLE_BOUND_MS).unref();
      this.#waiting.shift()?.();
    }
  }

  /** Asks every running job for a checkpoint; they go on. */
  requestCheckpoints(): void {
    for (const { child } of this.#slots) child?.requestCheckpoint();
  }

  /** Starts the first slot's child, so that what keeps children from working is known before there is work. Rejects as ComputeProcess.start does. */
  async warmUp(): Promise<void> {
    const slot = await this.#acquire('warm up');
    try {
      await this.#warm(slot);
    } finally {
      slot.job = null;
      this.#waiting.shift()?.();
    }
  }

  /** The slot forgets its child before the child is gone: a job that comes in between must not be given to it. */
  #letGo(slot: Slot): void {
    const { child } = slot;
    if (slot.job !== null || child === null || child.rssBytes <= IDLE_MEMORY_BYTES) return;
    slot.child = null;
    slot.leaving = child.kill();
  }

  status(): SlotStatus[] {
    return this.#slots.map(({ number, child, job }) => {
      const live = child?.alive ? child : null;
      return { slot: number, pid: live?.pid ?? null, job, rssBytes: live?.rssBytes ?? 0 };
    });
  }

  /** Kills every child. Jobs that still run reject with ComputeCrashed; jobs that still wait reject with BadInput. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const wake of this.#waiting.splice(0)) wake();
    for (const { idle } of this.#slots) if (idle !== null) clearTimeout(idle);
    await Promise.all(this.#slots.flatMap((slot) => [slot.leaving, slot.child?.kill()]));
  }

  async #acquire(name: string, signal?: AbortSignal): Promise<Slot> {
    for (;;) {
      if (signal?.aborted) {
        // The wake that this one may have taken goes to the next in line.
        this.#waiting.shift()?.();
        throw signal.reason;
      }
      if (this.#closed) throw badInput('compute pool', name, 'a pool takes jobs until it is closed');
      const free = this.#slots.find((slot) => slot.job === null);
      if (free !== undefined) {
        free.job = name;
        if (free.idle !== null) clearTimeout(free.idle);
        return free;
      }
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          signal?.removeEventListener('abort', giveUp);
          resolve();
        };
        const giveUp = (): void => {
          const index = this.#waiting.indexOf(wake);
          if (index >= 0) this.#waiting.splice(index, 1);
          resolve();
        };
        this.#waiting.push(wake);
        signal?.addEventListener('abort', giveUp, { once: true });
      });
    }
  }

  async #warm(slot: Slot): Promise<ComputeProcess> {
    const held = slot.child;
    if (held?.alive && held.rssBytes <= this.#options.memoryBytes * WARM_MEMORY_SHARE) return held;
    if (held?.alive) await held.kill();
    slot.child = null;
    // Its memory is the next one's.
    await slot.leaving;
    const { jobModule, lanes, memoryBytes, env = {}, onLine } = this.#options;
    slot.child = await ComputeProcess.start({
      jobModule,
      lanes,
      memoryBytes,
      env,
      onLine: (line) => onLine?.(slot.number, line),
    });
    if (this.#closed) await slot.child.kill();
    return slot.child;
  }
}
