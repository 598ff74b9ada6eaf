/** What the HTTP process and the engine child say to each other. Types only. Both come from one installation, so there is no version to agree on. */
import type { ErrorType } from '../../core/errors.ts';
import type { GenerationEvent } from '../continuous-batch.ts';
import type { GenerationRequest } from '../generation.ts';

export interface EngineOptions {
  /** Folders with `config.json`, weights and `tokenizer.json`; at least one of the two. */
  policy?: string | undefined;
  rewardModel?: string | undefined;
  /** Sequences that are decoded at once. */
  rows: number;
  /** Most tokens of a sequence, prompt and generation; what the models can read if absent. */
  context?: number | undefined;
  /** Threads for each model's arithmetic. */
  lanes: number;
}

/** Texts that share their beginning: the reward model reads `prefix` (it may be empty) and scores each candidate (not empty) at its last token. */
export interface ScoreGroup {
  prefix: readonly number[];
  candidates: readonly (readonly number[])[];
}

export type ToEngine =
  | { type: 'generate'; id: number; request: GenerationRequest }
  | { type: 'score'; id: number; groups: readonly ScoreGroup[] }
  | { type: 'cancel'; id: number };

export type FromEngine =
  /** Loaded. `context`: what holds for policy and reward model. */
  | { type: 'ready'; policyContext: number; rewardContext: number }
  /** The models cannot be served; the child ends. */
  | { type: 'refused'; error: ErrorType; message: string }
  /** What one step of the batch brought, and how many requests run and wait after it. */
  | { type: 'events'; events: GenerationEvent<number>[]; running: number; waiting: number }
  /** Score logits, one per candidate, group by group. */
  | { type: 'scores'; id: number; logits: number[] }
  | { type: 'failed'; id: number; error: ErrorType; message: string };
