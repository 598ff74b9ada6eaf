/**
 * One compute child seen from its owner: started once, given one job at a time, killed in milliseconds together with whatever it started.
 * It does not restart itself and keeps no queue; the pool does that.
 */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { RatchetError } from '../../core/errors.ts';
import { ALLOCATOR_ENVIRONMENT } from './allocator.ts';
import { kernelKills, preferAsVictim } from './kernel-memory.ts';
import { PROTOCOL_VERSION } from './protocol.ts';
import type { FromChild, JobFailure, ToChild } from './protocol.ts';

/** From fork to `ready`: importing the job module and its native libraries from a cold disk on a busy machine takes seconds, never a minute. */
const START_BOUND_MS = 60_000;
/** SIGKILL takes milliseconds; only a process stuck inside the kernel takes longer, and then the slot must not wait for ever. */
const KILL_BOUND_MS = 5_000;
/**
 * How long a cancelled job may take to come to the place between two steps: a step of the embedded models takes a few hundred milliseconds. It then leaves
 * a warm child behind; what takes longer is killed.
 */
const CANCEL_GRACE_MS = 500;
/** How much of the last output is kept for the message of a crash. */
const TAIL_BYTES = 4_096;

export interface ComputeProcessOptions {
  /** file: URL of the module that exports `createJobRunner`. */
  jobModule: string;
  /** Threads that arithmetic may use side by side; the child reads it as `RATCHET_LANES`. */
  lanes: number;
  /** Resident memory that the child may take, in bytes; it reads it as `RATCHET_MEMORY_BYTES`. */
  memoryBytes: number;
  /** Added to the owner's environment. */
  env: Record<string, string>;
  /** Each line that the child writes to stdout or stderr. */
  onLine: (line: string) => void;
}

export interface RunHooks {
  onProgress?: ((progress: unknown) => void) | undefined;
  onCheckpoint?: ((step: number) => void) | undefined;
}

interface Running {
  id: number;
  hooks: RunHooks;
  resolve: (output: unknown) => void;
  reject: (error: Error) => void;
}

export class ComputeProcess {
  readonly pid: number;
  /** Resident memory at the child's last message, in bytes. */
  rssBytes = 0;
  /** Under which numbers are computed in the child; null until it is ready. */
  fingerprint: string | null = null;
  readonly #child: ChildProcess;
  readonly #options: ComputeProcessOptions;
  readonly #exited: Promise<void>;
  #ready: { resolve: () => void; reject: (error: Error) => void } | null = null;
  #running: Running | null = null;
  #nextId = 1;
  #alive = true;
  #killed = false;
  #tail = '';
  /** Processes that the kernel had killed for want of memory when this one started. */
  readonly #kernelKills = kernelKills();

  /**
   * Resolves when the child is ready for its first job. Throws the child's own RatchetError when it refuses, ComputeCrashed when it dies or does not answer
   * within START_BOUND_MS.
   */
  static async start(options: ComputeProcessOptions): Promise<ComputeProcess> {
    const started = new ComputeProcess(options);
    let timer: NodeJS.Timeout | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        started.#ready = { resolve, reject };
        const late = new RatchetError('ComputeCrashed', `the compute child was not ready ${START_BOUND_MS} ms after its start`);
        timer = setTimeout(() => reject(late), START_BOUND_MS);
      });
      return started;
    } catch (error) {
      await started.kill();
      throw error;
    } finally {
      clearTimeout(timer);
      started.#ready = null;
    }
  }

  private constructor(options: ComputeProcessOptions) {
    this.#options = options;
    const child = fork(fileURLToPath(new URL('./child.ts', import.meta.url)), [options.jobModule], {
      // The JavaScript heap alone may not exceed the bound; the whole process is watched by its reports.
      execArgv: [`--max-old-space-size=${Math.max(64, Math.floor(options.memoryBytes / 2 ** 20))}`],
      env: {
        ...ALLOCATOR_ENVIRONMENT,
        ...process.env,
        ...options.env,
        RATCHET_LANES: String(options.lanes),
        RATCHET_MEMORY_BYTES: String(options.memoryBytes),
      },
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      // A process group of its own: Ctrl-C in the terminal does not reach it, and one kill takes its helpers too.
      detached: true,
    });
    this.#child = child;
    this.pid = child.pid ?? 0;
    // Whoever has to go when the machine is out of memory: this one can be started again, servers and workers hold what others wait for.
    preferAsVictim(this.pid);
    child.on('message', (message) => this.#receive(message as FromChild));
    child.on('error', (error) => this.#died(`could not be started or spoken to: ${error.message}`, null));
    this.#exited = new Promise((resolve) => {
      // `close` comes after `exit`, when the last output has been read: the tail is complete.
      child.on('close', (code, signal) => {
        this.#died(signal === null ? `exited with code ${code}` : `was ended by ${signal}`, signal);
        resolve();
      });
    });
    for (const stream of [child.stdout, child.stderr]) {
      let rest = '';
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#tail = (this.#tail + text).slice(-TAIL_BYTES);
        const lines = (rest + text).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) options.onLine(line);
      });
    }
  }

  get alive(): boolean {
    return this.#alive;
  }

  /**
   * Runs one job. Rejects with the job's own RatchetError; with OutOfMemory when the child passed its bound (it is then dead); with
   * ComputeCrashed when it died; with a plain Error, carrying the child's stack, for a bug in the job.
   */
  run(name: string, input: unknown, hooks: RunHooks): Promise<unknown> {
    if (this.#running !== null) throw new Error('a compute child runs one job at a time');
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#running = { id, hooks, resolve, reject };
      if (this.#alive) this.#send({ type: 'run', id, job: { name, input } });
      else this.#settle((running) => running.reject(new RatchetError('ComputeCrashed', 'the compute child died before the job began')));
    });
  }

  /** Asks the running job to end after its next checkpoint. Nothing happens when none runs. */
  stop(): void {
    if (this.#running !== null && this.#alive) this.#send({ type: 'stop', id: this.#running.id });
  }

  /** Asks the running job for a checkpoint. Nothing happens when none runs. */
  requestCheckpoint(): void {
    if (this.#running !== null && this.#alive) this.#send({ type: 'checkpoint', id: this.#running.id });
  }

  /** Ends the running job: between two of its steps, or with the child after CANCEL_GRACE_MS. */
  cancel(): void {
    const running = this.#running;
    if (running === null || !this.#alive) return;
    this.#send({ type: 'cancel', id: running.id });
    const timer = setTimeout(() => {
      if (this.#running === running) void this.kill();
    }, CANCEL_GRACE_MS);
    timer.unref();
  }

  /** SIGKILL to the child and everything that it started; resolves when it is gone. */
  async kill(): Promise<void> {
    if (this.#alive && this.pid > 0) {
      this.#killed = true;
      try {
        process.kill(-this.pid, 'SIGKILL');
      } catch (error) {
        // Gone already: what was wanted.
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    }
    let timer: NodeJS.Timeout | undefined;
    const bound = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, KILL_BOUND_MS);
    });
    await Promise.race([this.#exited, bound]);
    clearTimeout(timer);
  }

  #send(message: ToChild): void {
    this.#child.send(message, (error) => {
      // The channel closed under the message: the child is dying, and its `close` event says how.
      if (error !== null) this.#options.onLine(`compute child ${this.pid}: ${message.type} was not delivered: ${error.message}`);
    });
  }

  #receive(message: FromChild): void {
    if (message.type === 'refused') {
      this.#ready?.reject(errorOf(message.failure));
      return;
    }
    if (message.type === 'ready') {
      this.rssBytes = message.rssBytes;
      this.fingerprint = message.fingerprint;
      if (message.version === PROTOCOL_VERSION) this.#ready?.resolve();
      else {
        const text = `the compute child speaks protocol ${message.version}, this worker ${PROTOCOL_VERSION}; restart the worker`;
        this.#ready?.reject(new RatchetError('ComputeCrashed', text));
      }
      return;
    }
    const running = this.#running;
    if (running === null || running.id !== message.id) return;
    if ('rssBytes' in message) {
      this.rssBytes = message.rssBytes;
      if (message.rssBytes > this.#options.memoryBytes && message.type !== 'result' && message.type !== 'failure') {
        this.#settle((job) => job.reject(this.#outOfMemory(`it held ${message.rssBytes} bytes`)));
        void this.kill();
        return;
      }
    }
    if (message.type === 'progress') running.hooks.onProgress?.(message.progress);
    else if (message.type === 'checkpoint') running.hooks.onCheckpoint?.(message.step);
    else if (message.type === 'result') this.#settle((job) => job.resolve(message.output));
    else if (message.type === 'failure') this.#settle((job) => job.reject(errorOf(message.failure)));
  }

  #died(how: string, signal: NodeJS.Signals | null): void {
    if (!this.#alive) return;
    this.#alive = false;
    const before = this.#kernelKills;
    const now = signal === 'SIGKILL' && !this.#killed ? kernelKills() : null;
    const byKernel = before !== null && now !== null && now > before;
    const outOfHeap = /JavaScript heap out of memory/.test(this.#tail);
    const lastWords = this.#tail.trim().split('\n').slice(-8).join('\n');
    const crashed = new RatchetError('ComputeCrashed', `the compute child ${how}${lastWords && `; its last output:\n${lastWords}`}`);
    const error = outOfHeap
      ? this.#outOfMemory('its JavaScript heap was full')
      : byKernel
        ? new RatchetError(
            'OutOfMemory',
            `the compute child was ended by SIGKILL while the kernel killed for want of memory (oom_kill ${before} to ${now})`,
          )
        : crashed;
    this.#ready?.reject(error);
    this.#settle((running) => running.reject(error));
  }

  #outOfMemory(what: string): RatchetError {
    return new RatchetError('OutOfMemory', `the compute child reached its memory bound of ${this.#options.memoryBytes} bytes: ${what}`);
  }

  #settle(how: (running: Running) => void): void {
    const running = this.#running;
    this.#running = null;
    if (running !== null) how(running);
  }
}

function errorOf(failure: JobFailure): Error {
  if (failure.type !== 'Bug' && failure.type !== 'Cancelled') return new RatchetError(failure.type, failure.message);
  const error = new Error(failure.message);
  error.stack = failure.stack;
  return error;
}
