/**
 * A process that is measured: it is sent one order a line (JSON) and answers one line. Contestants are processes of their own, so that their memory and
 * CPU time are theirs alone, and live through the whole comparison, so that they can take turns.
 */
import { spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

export interface Answer {
  /** Wall time of the work, in seconds. */
  seconds: number;
  /** User and system time of the whole process during the work, in seconds. */
  cpuSeconds: number;
  /** Largest resident memory of the process so far, in bytes. */
  peakBytes: number;
  [key: string]: unknown;
}

/** Longest wait for an answer: compiling a 60 M model with an empty cache takes minutes, nothing takes more. */
const ANSWER_BOUND_MS = 10 * 60_000;

export class Peer {
  /** Those whose processes live. */
  static readonly #all = new Set<Peer>();
  readonly name: string;
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;

  constructor(name: string, command: string[], env: Record<string, string> = {}) {
    this.name = name;
    this.#child = spawn(command[0]!, command.slice(1), { stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, ...env } });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
    // A process that could not start or has died ends its output, and `ask` says so; nothing more is to be said here.
    this.#child.on('error', (error) => console.error(`${name}: ${error.message}`));
    this.#child.stdin.on('error', () => undefined);
    Peer.#all.add(this);
    this.#child.once('close', () => Peer.#all.delete(this));
  }

  /** Ends all peers at once; who waits for one is told. */
  static endAll(): void {
    for (const peer of Peer.#all) void peer.close();
  }

  async ask(order: Record<string, unknown>): Promise<Answer> {
    this.#child.stdin.write(`${JSON.stringify(order)}\n`);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${this.name} did not answer ${JSON.stringify(order)} in time`)), ANSWER_BOUND_MS);
    });
    try {
      for (;;) {
        const { value, done } = await Promise.race([this.#lines.next(), late]);
        if (done) throw new Error(`${this.name} ended at ${JSON.stringify(order)}`);
        if (value.startsWith('{')) return JSON.parse(value) as Answer; // libraries may print other lines
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the process and waits until its memory is free for the next. */
  async close(): Promise<void> {
    const gone = new Promise<void>((resolve) => this.#child.once('close', () => resolve()));
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await gone;
  }
}
