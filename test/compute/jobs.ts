/** Jobs for the tests of the compute pool: each does one thing that a stage may do, or that may happen to it. */
import { spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { RatchetError } from '../../core/errors.ts';
import { requireMemory } from '../../learning/memory.ts';
import type { Job, JobHooks, JobRunner } from '../../learning/compute/protocol.ts';

const held: Uint8Array[] = [];
let jobsRun = 0;

const jobs: Record<string, (input: never, hooks: JobHooks) => unknown> = {
  echo: (input) => input,
  pid: () => ({ pid: process.pid, jobsRun, lanes: process.env['RATCHET_LANES'] }),
  progress: (total: number, hooks) => {
    for (let done = 1; done <= total; done++) hooks.progress({ done });
  },
  /** Works until it is asked to stop, and then ends at a checkpoint. */
  untilStopped: async (_: never, hooks) => {
    for (let step = 1; ; step++) {
      hooks.progress({ step });
      await delay(5);
      if (!hooks.stopRequested()) continue;
      hooks.checkpoint(step);
      throw new RatchetError('Stopped', `stopped after step ${step}`);
    }
  },
  /** Works until it is cancelled, and then ends between two steps. */
  untilCancelled: async (_: never, hooks) => {
    for (let step = 1; ; step++) {
      hooks.signal.throwIfAborted();
      hooks.progress({ step });
      await delay(5);
    }
  },
  /** Tells a checkpoint when asked for one, and ends after so many. */
  checkpoints: async (count: number, hooks) => {
    const told: number[] = [];
    for (let step = 1; told.length < count; step++) {
      hooks.progress({ step });
      await delay(5);
      if (!hooks.checkpointRequested()) continue;
      hooks.checkpoint(step);
      told.push(step);
    }
    return told;
  },
  need: (bytes: number) => requireMemory('this job', bytes),
  /** Blocks the child's only thread, as a native run does; nothing but a signal gets through. */
  block: (_: never, hooks) => {
    hooks.progress({ blocked: true });
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  },
  helper: async (_: never, hooks) => {
    const helper = spawn('sleep', ['600'], { stdio: 'ignore' });
    hooks.progress({ helper: helper.pid });
    await delay(600_000);
  },
  exit: (code: number) => {
    console.error('last words');
    process.exit(code);
  },
  killSelf: () => {
    console.error('about to be killed');
    process.kill(process.pid, 'SIGKILL');
  },
  refuse: () => {
    throw new RatchetError('Diverged', 'loss is NaN at step 7');
  },
  bug: () => (undefined as unknown as { field: number }).field,
  allocate: async (mebibytes: number, hooks) => {
    for (let i = 0; i < mebibytes / 16; i++) {
      held.push(new Uint8Array(16 * 2 ** 20).fill(i + 1));
      hooks.progress({ held: held.length });
      await delay(1);
    }
  },
  fillHeap: () => {
    const lists: number[][] = [];
    for (;;) lists.push(Array.from({ length: 100_000 }, (_, i) => i + 0.5));
  },
};

export function createJobRunner(): JobRunner {
  return {
    async run({ name, input }: Job, hooks: JobHooks) {
      jobsRun++;
      return await jobs[name]!(input as never, hooks);
    },
  };
}
