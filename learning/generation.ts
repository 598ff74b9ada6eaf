/** What is asked of a generation and what comes of it. Types only. Probabilities are natural logarithms. */
import type { RandomKey } from '../core/random.ts';
import type { Sampling } from './sampling.ts';

export interface GenerationRequest {
  /** At least one token. */
  prompt: readonly number[];
  /** How many continuations of the prompt. Sample i draws from the generator keyed by [...key, i]. */
  samples: number;
  key: RandomKey;
  sampling: Sampling;
  /** Most tokens of a continuation; the context bounds it as well. 0: only the prompt is read. */
  maxTokens: number;
  /** Tokens that end a continuation; they count among its tokens, but not in its text. */
  stopIds: readonly number[];
  /** Strings that end a continuation wherever they begin, within or across tokens; its text ends before them. They need a decode function. */
  stopTexts: readonly string[];
  /** How many of the likeliest tokens are told with each token. */
  topLogProbabilities: number;
  promptLogProbabilities: boolean;
  /**
   * Only these continuations are possible: one of them is drawn, token by token, under the constraint (each token among those that lead to a choice).
   * `maxTokens` and `stopTexts` play no part. If one choice begins another, the first of `stopIds` decides between them.
   */
  choices?: readonly (readonly number[])[];
}

export interface GeneratedToken {
  id: number;
  /** Under the model at temperature 1: over the whole vocabulary, or over what the choices allow. A token that is forced by the choices has 0. */
  logProbability: number;
  /** Under the distribution that it was drawn from: temperature, filters, choices. 0 for greedy generation. */
  drawnLogProbability: number;
  /** The likeliest tokens in this place with their `logProbability`, in descending order. */
  top: { id: number; logProbability: number }[];
  /** Text that is certain now that this token is known: it may be empty, or end in the middle of what the token says. Empty for choices. */
  text: string;
}

export interface GenerationEnd {
  /** A stop token or string or the end of a choice; or as many tokens as were allowed. */
  finish: 'stop' | 'length';
  /** The token or string that ended it. */
  stoppedBy: number | string | null;
  /** Which of the choices it is. */
  choice?: number;
  /** Text that was held back until the end. */
  text: string;
}

/** One continuation. */
export interface Generation extends GenerationEnd {
  tokens: GeneratedToken[];
}

export interface GenerationResult {
  samples: Generation[];
  /** First tokens of the prompt that had been read for an earlier request. */
  reusedTokens: number;
  /** Of each prompt token given those before it (null for the first); if it was asked for. */
  promptLogProbabilities?: (number | null)[];
  /** Of each choice under the constraint, at temperature 1 and as drawn from; each sums to 1. */
  choiceLogProbabilities?: number[];
  drawnChoiceLogProbabilities?: number[];
}
