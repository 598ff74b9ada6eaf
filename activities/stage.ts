/**
 * What a stage is: a function from a small JSON input (references and scalars) to a small JSON output, which reads and writes artifacts through the
 * store, reports progress, and can be stopped after a checkpoint. The same functions run under Temporal and in `bench/inline-loop.ts`.
 * This file holds types only; the stages themselves are in `activities/stages/`.
 */
import type { ArtifactStore } from '../artifacts/store.ts';

/** How far a stage is. Sent often; a stage whose progress stops for longer than its stall bound is taken for dead. */
export interface Progress {
  /** What is being done, e.g. `rollouts`, `training`, `loading`. */
  phase: string;
  done: number;
  total: number;
  /** What is counted, e.g. `episodes`, `steps`. */
  unit: string;
  /** Figures worth seeing while it runs, e.g. `{ loss: 0.52 }`. Finite numbers only. */
  metrics?: Record<string, number>;
}

/** The checkpoints of one stage call, found again by whoever runs the same call next. */
export interface Checkpoints {
  /** The newest valid checkpoint of this call, or null. */
  load(): Promise<{ step: number; bytes: Uint8Array } | null>;
  save(step: number, bytes: Uint8Array): Promise<void>;
  /** True when it is time to save (some seconds have passed since the last one) or a stop was requested. Never changes what is computed. */
  due(): boolean;
}

export interface StageContext {
  store: ArtifactStore;
  progress(progress: Progress): void;
  /** Aborted when the result is no longer wanted. */
  signal: AbortSignal;
  /** Throws RatchetError('Stopped') when a stop was requested; a training stage calls it right after saving a checkpoint. */
  stopIfRequested(): void;
  /** How often memory has run out since the last checkpoint of this call; a stage that can computes in smaller pieces then, and says so in its report. */
  outOfMemory: number;
  checkpoints: Checkpoints;
  /** The committed output of another stage call of the same scope (its shards, say). Throws RatchetError('Corrupt') when it was never committed. */
  committed<Output>(stage: string, input: unknown): Promise<Output>;
}

export type Stage<Input = unknown, Output = unknown> = (input: Input, context: StageContext) => Promise<Output>;

/** The task queues by resource: `loop` for cheap bookkeeping, `cpu` for rollouts, `gpu` for training. */
export type Queue = 'loop' | 'cpu' | 'gpu';
