/**
 * The engine as the HTTP process sees it: requests go to the child and their events come back. A child that dies or stalls fails what it was doing and is
 * replaced; nothing is tried twice, because a stream may have told part of it already. What would wait too long is refused at once.
 */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { RatchetError } from '../../core/errors.ts';
import { ALLOCATOR_ENVIRONMENT } from '../compute/allocator.ts';
import type { GenerationEvent } from '../continuous-batch.ts';
import type { GenerationRequest } from '../generation.ts';
import type { EngineOptions, FromEngine, ScoreGroup, ToEngine } from './protocol.ts';

/** Reading a model of a few GB from a cold disk and building its sessions takes a minute or two. */
const START_BOUND_MS = 5 * 60_000;
/** One step of the batch: at worst the prompts of all rows, long ones, on a busy machine. A child that says nothing for longer is stuck. */
const STALL_BOUND_MS = 5 * 60_000;
/** A child that dies again and again is started less and less often. */
const RESTART_DELAYS_MS = [100, 1_000, 5_000, 30_000];
/** After so long without a death the next one is the first again. */
const CALM_MS = 60_000;

/** More is under way and waiting than the server takes. */
export class Busy extends Error {
  override readonly name = 'Busy';
}

interface Pending {
  sequences: number;
  /** Samples whose end has not come. */
  open: number;
  onEvent: (event: GenerationEvent<number>) => void;
  onScores: (logits: number[]) => void;
  resolve: () => void;
  reject: (error: unknown) => void;
}

export interface EngineLoad {
  /** Requests in the batch and before it. */
  running: number;
  waiting: number;
  /** Sequences and texts that are not answered yet. */
  inFlight: number;
  restarts: number;
}

export class Engine {
  /** Most tokens of a sequence; 0 where there is no such model. */
  policyContext = 0;
  rewardContext = 0;
  readonly load: EngineLoad = { running: 0, waiting: 0, inFlight: 0, restarts: 0 };
  readonly #options: EngineOptions;
  readonly #capacity: number;
  readonly #pending = new Map<number, Pending>();
  readonly #onLine: (line: string) => void;
  #child: ChildProcess | null = null;
  #ready = false;
  #closed = false;
  #nextId = 1;
  #deaths = 0;
  #calm: NodeJS.Timeout | undefined;
  #restart: NodeJS.Timeout | undefined;
  #stall: NodeJS.Timeout | undefined;

  /** Resolves when the models are loaded; rejects with the reason why they cannot be. `queue`: sequences that may wait beyond those that run. */
  static async start(options: EngineOptions, more: { queue: number; onLine?: (line: string) => void }): Promise<Engine> {
    const engine = new Engine(options, more);
    await engine.#launch();
    return engine;
  }

  private constructor(options: EngineOptions, { queue, onLine = () => {} }: { queue: number; onLine?: (line: string) => void }) {
    this.#options = options;
    this.#capacity = options.rows + queue;
    this.#onLine = onLine;
  }

  get ready(): boolean {
    return this.#ready && !this.#closed;
  }

  /** The process id of the child that computes now. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Tells every event of the request and resolves after the last. Rejects with Busy, a RatchetError, or the signal's reason. */
  generate(request: GenerationRequest, onEvent: Pending['onEvent'], signal: AbortSignal): Promise<void> {
    const sequences = request.choices ? 1 : request.samples;
    return this.#ask({ type: 'generate', request }, { sequences, open: request.samples, onEvent }, signal);
  }

  /** Score logits of the candidates, group by group. Rejects as `generate` does. */
  async score(groups: readonly ScoreGroup[], signal: AbortSignal): Promise<number[]> {
    let found: number[] = [];
    const sequences = groups.reduce((sum, { candidates }) => sum + candidates.length, 0);
    await this.#ask({ type: 'score', groups }, { sequences, open: 0, onScores: (logits) => (found = logits) }, signal);
    return found;
  }

  async #ask(
    message: { type: 'generate'; request: GenerationRequest } | { type: 'score'; groups: readonly ScoreGroup[] },
    part: Partial<Pending> & { sequences: number; open: number },
    signal: AbortSignal,
  ): Promise<void> {
    signal.throwIfAborted();
    if (!this.ready)
      throw new RatchetError('Unavailable', this.#closed ? 'the server is shutting down' : 'the models are being loaded again');
    if (this.load.inFlight + part.sequences > this.#capacity)
      throw new Busy(`${this.load.inFlight} sequences are under way or waiting, and at most ${this.#capacity} may be`);
    const id = this.#nextId++;
    this.load.inFlight += part.sequences;
    const onAbort = () => {
      this.#send({ type: 'cancel', id });
      this.#pending.get(id)?.reject(signal.reason);
    };
    try {
      await new Promise<void>((resolve, reject) => {
        this.#pending.set(id, { onEvent: () => {}, onScores: () => {}, ...part, resolve, reject });
        if (this.#pending.size === 1) this.#watch();
        signal.addEventListener('abort', onAbort, { once: true });
        this.#send({ ...message, id } as ToEngine);
      });
    } finally {
      signal.removeEventListener('abort', onAbort);
      this.#pending.delete(id);
      this.load.inFlight -= part.sequences;
      if (this.#pending.size === 0) clearTimeout(this.#stall);
    }
  }

  #send(message: ToEngine): void {
    // A channel that closes under the message belongs to a dying child, whose exit fails everything that is pending.
    this.#child?.send(message, () => {});
  }

  #receive(message: FromEngine): void {
    this.#watch();
    if (message.type === 'events') {
      this.load.running = message.running;
      this.load.waiting = message.waiting;
      for (const event of message.events) {
        const pending = this.#pending.get(event.id);
        if (!pending) continue;
        pending.onEvent(event);
        if (event.kind === 'end' && --pending.open === 0) pending.resolve();
      }
    } else if (message.type === 'scores') {
      const pending = this.#pending.get(message.id);
      pending?.onScores(message.logits);
      pending?.resolve();
    } else if (message.type === 'failed') this.#pending.get(message.id)?.reject(new RatchetError(message.error, message.message));
  }

  /** While anything is under way the child must speak: the time runs from its last word, or from the first request that it was idle before. */
  #watch(): void {
    clearTimeout(this.#stall);
    if (this.#pending.size === 0) return;
    this.#stall = setTimeout(() => this.#child?.kill('SIGKILL'), STALL_BOUND_MS);
  }

  async #launch(): Promise<void> {
    const child = fork(fileURLToPath(new URL('./engine-child.ts', import.meta.url)), [JSON.stringify(this.#options)], {
      serialization: 'advanced',
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      env: { ...ALLOCATOR_ENVIRONMENT, ...process.env },
    });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => text.split('\n').filter(Boolean).forEach(this.#onLine));
    }
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve, reject) => {
      timer = setTimeout(() => {
        child.kill('SIGKILL');
        reject(new RatchetError('ComputeStalled', `the models were not loaded within ${START_BOUND_MS} ms`));
      }, START_BOUND_MS);
      child.on('message', (message: FromEngine) => {
        if (message.type === 'ready') {
          this.policyContext = message.policyContext;
          this.rewardContext = message.rewardContext;
          this.#ready = true;
          resolve();
        } else if (message.type === 'refused') reject(new RatchetError(message.error, message.message));
        else this.#receive(message);
      });
      child.on('error', (error) => reject(new RatchetError('ComputeCrashed', `the engine could not be started: ${error.message}`)));
      child.on('close', (code, signal) => {
        const died = new RatchetError(
          'ComputeCrashed',
          `the engine ${signal === null ? `ended with code ${code}` : `was ended by ${signal}`}`,
        );
        reject(died);
        this.#died(died);
      });
    }).finally(() => clearTimeout(timer));
  }

  /** Fails what was under way and, if the child had been ready, starts another. */
  #died(error: RatchetError): void {
    for (const pending of this.#pending.values()) pending.reject(error);
    Object.assign(this.load, { running: 0, waiting: 0 });
    const wasReady = this.#ready;
    this.#ready = false;
    if (this.#closed || (!wasReady && this.load.restarts === 0)) return;
    clearTimeout(this.#calm);
    const delay = RESTART_DELAYS_MS[Math.min(this.#deaths++, RESTART_DELAYS_MS.length - 1)]!;
    this.#calm = setTimeout(() => (this.#deaths = 0), CALM_MS + delay).unref();
    this.load.restarts++;
    this.#onLine(`${error.message}; it is started again`);
    // A launch that fails ends with a child that dies, which comes back here.
    this.#restart = setTimeout(() => void this.#launch().catch((again: unknown) => this.#onLine(String(again))), delay);
  }

  /** Ends the child at once; what is under way rejects. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const timer of [this.#calm, this.#restart, this.#stall]) clearTimeout(timer);
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    await new Promise<void>((resolve) => {
      child.once('close', () => resolve());
      child.kill('SIGKILL');
    });
  }
}
