/**
 * What a compute child and its owner say to each other, over the IPC channel of `child_process.fork`. Types and a version only.
 * Messages are small JSON: jobs name artifacts, they never carry them. There is no cancel message, because cancelling is SIGKILL.
 */
import type { ErrorType } from '../../core/errors.ts';

/** Raised with every incompatible change. A child started from newer files than its owner is refused instead of misunderstood. */
export const PROTOCOL_VERSION = 1;

/** The module that a child imports must export `createJobRunner(): JobRunner | Promise<JobRunner>`. */
export interface JobRunner {
  /** Runs one job; never called again before the promise settles. What is thrown is reported by type. */
  run(job: Job, hooks: JobHooks): Promise<unknown>;
}

export interface Job {
  name: string;
  /** JSON. */
  input: unknown;
}

export interface JobHooks {
  /** JSON that the owner shows and takes as the sign of life; the compute layer does not look inside. */
  progress(progress: unknown): void;
  /** Tells the owner that work up to `step` can no longer be lost. */
  checkpoint(step: number): void;
  /** True once the owner has asked the job to end after its next checkpoint. */
  stopRequested(): boolean;
}

export type ToChild =
  | { type: 'run'; id: number; job: Job }
  /** End after the next checkpoint by throwing RatchetError('Stopped'). */
  | { type: 'stop'; id: number };

export type FromChild =
  | { type: 'ready'; version: number; rssBytes: number }
  | { type: 'progress'; id: number; progress: unknown; rssBytes: number }
  /** Sent on a timer while a job runs, so that growth between two progress messages is seen too. */
  | { type: 'memory'; id: number; rssBytes: number }
  | { type: 'checkpoint'; id: number; step: number }
  | { type: 'result'; id: number; output: unknown; rssBytes: number }
  | { type: 'failure'; id: number; failure: JobFailure; rssBytes: number };

/** `Bug` is everything that is not a RatchetError. */
export interface JobFailure {
  type: ErrorType | 'Bug';
  message: string;
  stack: string;
}
