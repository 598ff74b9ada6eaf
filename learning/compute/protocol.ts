/**
 * What a compute child and its owner say to each other, over the IPC channel of `child_process.fork`. Types and a version only.
 * Messages are small JSON: jobs name artifacts, they never carry them. A job can be asked for a checkpoint, to end after one (stop), or to end as soon as it
 * is between two steps (cancel); a child that does not answer in time is killed, so nothing here has to be obeyed.
 */
import type { ErrorType } from '../../core/errors.ts';

/** Raised with every incompatible change. A child started from newer files than its owner is refused instead of misunderstood. */
export const PROTOCOL_VERSION = 2;

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
  /** True from the owner's request for a checkpoint until one is told. */
  checkpointRequested(): boolean;
  /** Aborted when the result is no longer wanted: the job ends between two steps by throwing the reason. */
  signal: AbortSignal;
}

export type ToChild =
  | { type: 'run'; id: number; job: Job }
  /** End after the next checkpoint by throwing RatchetError('Stopped'). */
  | { type: 'stop'; id: number }
  /** Save a checkpoint as soon as there is something to save, and go on. */
  | { type: 'checkpoint'; id: number }
  /** End between two steps, without a checkpoint: `failure` of type Cancelled follows, or SIGKILL. */
  | { type: 'cancel'; id: number };

export type FromChild =
  /** `fingerprint`: under which numbers are computed here (fingerprint.ts). */
  | { type: 'ready'; version: number; fingerprint: string; rssBytes: number }
  /** Instead of `ready`: this child can do no job, for a reason that has a type. */
  | { type: 'refused'; failure: JobFailure }
  | { type: 'progress'; id: number; progress: unknown; rssBytes: number }
  /** Sent on a timer while a job runs, so that growth between two progress messages is seen too. */
  | { type: 'memory'; id: number; rssBytes: number }
  | { type: 'checkpoint'; id: number; step: number }
  | { type: 'result'; id: number; output: unknown; rssBytes: number }
  | { type: 'failure'; id: number; failure: JobFailure; rssBytes: number };

/** `Cancelled`: the job ended because it was asked to. `Bug` is everything else that is not a RatchetError. */
export interface JobFailure {
  type: ErrorType | 'Cancelled' | 'Bug';
  message: string;
  stack: string;
}
