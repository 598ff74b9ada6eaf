/**
 * The loop around a trainer: progress and checkpoints. Going on from any checkpoint gives the same bytes as never having stopped, because the
 * batches of a step depend on the step's number alone.
 */
import { RatchetError } from '../core/errors.ts';
import { mean } from '../core/statistics.ts';
import type { Batch, Trainer } from './types.ts';

/** What the loop tells and asks whoever runs it; a stage's context is one of these. */
export interface TrainingHooks {
  progress(progress: { phase: string; done: number; total: number; unit: string; metrics?: Record<string, number> }): void;
  checkpoints: {
    load(): Promise<{ step: number; bytes: Uint8Array } | null>;
    save(step: number, bytes: Uint8Array): Promise<void>;
    due(): boolean;
  };
  stopIfRequested(): void;
  /** Aborted when the result is no longer wanted. */
  signal: AbortSignal;
  /** How often memory has run out since the last checkpoint. */
  outOfMemory: number;
}

/** From `step` on, every micro-batch of the plan was computed as `parts` smaller ones. Sums are then taken in another order, so the bytes depend on it. */
export interface Split {
  step: number;
  parts: number;
}

export interface TrainingPlan {
  trainer: Trainer;
  steps: number;
  phase: string;
  /**
   * The micro-batches of a step (0-based), `parts` times as many as planned where memory ran out. Must depend on these two alone (and on the model, which
   * a checkpoint restores).
   */
  batches(step: number, parts: number): Promise<Batch[]> | Batch[];
  rates(step: number): { learningRate: number; muonLearningRate?: number };
  /** Called after each step; returning true ends the training there. It may keep state of its own only if `save` and `restore` carry it. */
  afterStep?(step: number, loss: number): Promise<boolean | void> | boolean | void;
  /** State beside the trainer's that a checkpoint must carry, as JSON. */
  save?(): unknown;
  restore?(state: unknown): void;
}

/** How many of the last losses the reported loss averages. */
const LOSS_WINDOW = 20;

/**
 * Runs the plan to its end and returns the mean loss of the last steps, the steps done, and where micro-batches were made smaller: each time that memory has
 * run out the next attempt halves them, from the checkpoint that it goes on from.
 */
export async function train(plan: TrainingPlan, hooks: TrainingHooks): Promise<{ loss: number; steps: number; splits: Split[] }> {
  const { trainer } = plan;
  let step = 0;
  let losses: number[] = [];
  let splits: Split[] = [];
  const checkpoint = await hooks.checkpoints.load();
  if (checkpoint) {
    const { state, weights } = unpack(checkpoint.bytes);
    trainer.restore(weights);
    losses = state.losses;
    splits = state.splits ?? [];
    plan.restore?.(state.plan);
    step = checkpoint.step;
  }
  let parts = splits.at(-1)?.parts ?? 1;
  if (hooks.outOfMemory > 0) {
    parts *= 2 ** hooks.outOfMemory;
    splits = [...splits.filter((split) => split.step < step), { step, parts }];
  }
  let ended = false;
  while (step < plan.steps && !ended) {
    hooks.signal.throwIfAborted();
    const { loss, gradientNorm } = await trainer.step(await plan.batches(step, parts), plan.rates(step));
    if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm)) {
      throw new RatchetError(
        'Diverged',
        `${plan.phase}: the loss is ${loss} and the gradient norm ${gradientNorm} at step ${step}; lower the learning rate`,
      );
    }
    losses.push(loss);
    if (losses.length > LOSS_WINDOW) losses.shift();
    ended = (await plan.afterStep?.(step, loss)) === true;
    step++;
    hooks.progress({ phase: plan.phase, done: step, total: plan.steps, unit: 'steps', metrics: { loss: mean(losses) } });
    if (!ended && step < plan.steps && hooks.checkpoints.due()) {
      await hooks.checkpoints.save(step, pack({ losses, splits, plan: plan.save?.() ?? null }, trainer.save()));
      hooks.stopIfRequested();
    }
  }
  return { loss: mean(losses), steps: step, splits };
}

interface LoopState {
  losses: number[];
  splits?: Split[];
  plan: unknown;
}

/** [length of the JSON, 4 bytes little-endian][JSON][trainer's bytes] */
function pack(state: LoopState, weights: Uint8Array): Uint8Array {
  const json = new TextEncoder().encode(JSON.stringify(state));
  const out = new Uint8Array(4 + json.length + weights.length);
  new DataView(out.buffer).setUint32(0, json.length, true);
  out.set(json, 4);
  out.set(weights, 4 + json.length);
  return out;
}

function unpack(bytes: Uint8Array): { state: LoopState; weights: Uint8Array } {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const state = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length))) as LoopState;
  return { state, weights: bytes.slice(4 + length) };
}
