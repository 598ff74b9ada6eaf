/**
 * The life of a worker process: started with its roles, drained on SIGTERM, SIGINT, SIGHUP or when its supervisor is gone, ended with an exit code. SIGUSR2 has
 * it save a checkpoint of everything that runs. Exit codes: 0 drained, 1 failed, 2 bad input, 3 Temporal or the store is unavailable.
 */
import { fileURLToPath } from 'node:url';
import type { Queue } from '../activities/stage.ts';
import { exitCodeOf, RatchetError } from '../core/errors.ts';
import { STAGE_QUEUES } from '../workflows/stage-proxies.ts';
import { workerConfig } from './config.ts';
import { startWorker } from './worker.ts';
import type { WorkerCode } from './worker.ts';

/** The stages and workflows of Ratchet. */
export const RATCHET_CODE: WorkerCode = {
  stageQueues: STAGE_QUEUES,
  jobModule: new URL('../activities/stage-job.ts', import.meta.url).href,
  workflowsPath: fileURLToPath(new URL('../workflows/index.ts', import.meta.url)),
};

/** Sent over IPC, where there is one, when the worker is ready for work. */
export interface WorkerReady {
  type: 'ready';
  pid: number;
}

/** Runs until drained, then ends the process. */
export async function runWorkerProcess(roles: readonly Queue[], code: WorkerCode = RATCHET_CODE): Promise<never> {
  // On a full disk the log loses lines; the work, which waits for space in the store, must not be lost with them.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  try {
    let drain: (() => void) | null = null;
    let asked = false;
    // Asked twice is no more than asked once: Ctrl-C reaches this process directly and again through its supervisor, and a drain is bounded anyway.
    const end = (): void => {
      asked = true;
      drain?.();
    };
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, end);
    // Whoever started this process to watch over it is gone: nobody would restart or stop it any more.
    process.on('disconnect', end);
    const worker = await startWorker(workerConfig(roles), code);
    drain = worker.drain;
    if (process.platform !== 'win32') process.on('SIGUSR2', () => worker.checkpoint());
    if (asked) worker.drain();
    else process.send?.({ type: 'ready', pid: process.pid } satisfies WorkerReady);
    await worker.ended;
    process.exit(0);
  } catch (error) {
    console.error(error instanceof RatchetError ? `${error.type}: ${error.message}` : error);
    process.exit(exitCodeOf(error));
  }
}
