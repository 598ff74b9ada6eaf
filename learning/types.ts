/**
 * The vocabulary of the learning engine: models, token trees, batches, objectives. Types only.
 * Axes in names: R rows, T tokens of a row, P reads, V vocabulary, D width, A actions, K pairs.
 */

import type { Adapter } from './lora.ts';

/** The part of a Hugging Face Llama `config.json` that Ratchet reads. Other keys are kept as they are. */
export interface LlamaConfig {
  architectures: ['LlamaForCausalLM'] | ['LlamaForSequenceClassification'];
  model_type: 'llama';
  vocab_size: number;
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  num_key_value_heads: number;
  head_dim: number;
  max_position_embeddings: number;
  rms_norm_eps: number;
  rope_theta: number;
  /** One matrix is embedding and language-model head. */
  tie_word_embeddings: boolean;
  /** A scalar head beside the language-model head (`value_head.weight`); Ratchet's own field. */
  value_head?: boolean;
  [key: string]: unknown;
}

/** One weight, in the layout of its Hugging Face name: linear weights are [out, in]. */
export interface Tensor {
  shape: number[];
  data: Float32Array;
}

/** A model in memory. Tensor names are the Hugging Face ones, `model.layers.0.self_attn.q_proj.weight` and so on; the head is `lm_head.weight` [V, D] (absent
 * if tied) or `score.weight` [1, D]; `value_head.weight` [1, D] may stand beside the former. */
export interface Model {
  config: LlamaConfig;
  tensors: Map<string, Tensor>;
}

/**
 * Several sequences that share their beginnings, stored once: node i continues the path that ends at `parents[i]` (-1: it starts a sequence).
 * Parents come before their children. A model reads node i as the last token of its root-to-node path: it attends to its ancestors and itself, and
 * its position is its depth. A plain sequence is the tree in which every parent is the node before.
 */
export interface TokenTree {
  ids: number[];
  parents: number[];
}

/** A place where the head is read: a node of one of the trees of a batch. */
export interface Read {
  tree: number;
  node: number;
}

/**
 * What a training step minimises. Every loss is a plain sum of weighted terms; the caller's weights normalise it.
 * - `crossEntropy`: sum_p weight_p * -log softmax(logits_p)[target_p] over the whole vocabulary.
 * - `softBCE`: sum_p weight_p * BCE(sigmoid(score_p), label_p), labels in [0, 1] (AgentPRM, arXiv 2502.10325, Stage 2).
 * - `preference`: over actions whose log-probability is the sum of their token log-probabilities under the constraint of the admissible tokens:
 *   sum_k weight_k * -log sigmoid(beta * ((lp[chosen_k] - lp[rejected_k]) - referenceMargin_k)) (DPO, arXiv 2305.18290 Eq. 7)
 *   + sum_a nllWeight_a * -lp[a].
 */
export type Objective = 'crossEntropy' | 'softBCE' | 'preference';

export interface CrossEntropyTerms {
  objective: 'crossEntropy';
  reads: Read[];
  targets: number[];
  weights: number[];
}
export interface SoftBceTerms {
  objective: 'softBCE';
  reads: Read[];
  labels: number[];
  weights: number[];
}
export interface PreferenceTerms {
  objective: 'preference';
  /** Decision points: where one token is chosen among `allowed[p]` (token ids, at least one). */
  reads: Read[];
  allowed: number[][];
  /** Each action is a list of (decision point, token) choices; a forced token needs no entry. May be empty: log-probability 0. */
  actions: { point: number; token: number }[][];
  /** Weight of -log-probability of each action; same length as `actions`. */
  nllWeights: number[];
  /** Indexes into `actions`. */
  pairs: { chosen: number; rejected: number; referenceMargin: number; weight: number }[];
  beta: number;
}

/** One micro-batch: trees and what is asked of them. Its composition decides the bytes that come out, so it is always planned, never timed. */
export interface Batch {
  trees: TokenTree[];
  terms: CrossEntropyTerms | SoftBceTerms | PreferenceTerms;
}

/**
 * - `adamw`: AdamW (arXiv 1711.05101), decoupled decay on matrices only.
 * - `muon`: Muon for the matrices inside the blocks (momentum 0.95, 5 Newton-Schulz steps, Nesterov), AdamW for embeddings, head and norms.
 */
export interface OptimizerOptions {
  kind: 'adamw' | 'muon';
  /** AdamW's betas, epsilon and decoupled weight decay. */
  beta1: number;
  beta2: number;
  epsilon: number;
  weightDecay: number;
  /** Largest global gradient norm; larger ones are scaled down to it. */
  clipNorm: number;
}

export interface StepReport {
  /** The loss summed over all micro-batches, before the step. */
  loss: number;
  /** Global gradient norm before clipping. */
  gradientNorm: number;
}

/** Trains one model. Deterministic: the same model, options and batches give the same bytes, whatever the number of threads. */
export interface Trainer {
  /** One optimizer step over the micro-batches. `learningRate` is AdamW's; `muonLearningRate` that of the block matrices under `muon`. */
  step(batches: Batch[], rates: { learningRate: number; muonLearningRate?: number }): Promise<StepReport>;
  /** A copy of the model as it is now (tricks of training, such as factored embeddings, folded in; an adapter merged). */
  model(): Model;
  /** A copy of the adapter as it is now, where one is trained. */
  adapter(): Adapter | undefined;
  /** Model, optimizer state, step count: everything that is needed to go on with the same bytes. */
  save(): Uint8Array;
  restore(bytes: Uint8Array): void;
  close(): Promise<void>;
}

/** Reads a model over trees without training it. */
export interface Reader {
  /** Reads with this model's weights from now on; it must have the shape of the one the reader was made with. Cheap: nothing is rebuilt. */
  load(model: Model): void;
  /**
   * Natural-log probabilities of the allowed tokens at each read, under the constraint: out[p][j] = log softmax over allowed[p] of logits, at allowed[p][j].
   * Only for LlamaForCausalLM.
   */
  logProbabilities(requests: { trees: TokenTree[]; reads: Read[]; allowed: number[][] }[]): Promise<Float32Array[][]>;
  /** Score logits, one per read. Only for LlamaForSequenceClassification. */
  scores(requests: { trees: TokenTree[]; reads: Read[] }[]): Promise<Float32Array[]>;
  /** The final hidden states (after the last norm) at each read, flat [P * D]. */
  hidden(requests: { trees: TokenTree[]; reads: Read[] }[]): Promise<Float32Array[]>;
  close(): Promise<void>;
}

/** One row's part of a decoding step: a small tree of new tokens that hangs on the row's cached path. `parents[i] = -1` is the end of the cached path. */
export interface Append {
  row: number;
  ids: number[];
  /** Omitted: a chain. */
  parents?: number[];
  /** Nodes of the new tokens where the head is read. */
  reads: number[];
  /** How many of the leading new tokens (they must be a chain) join the row's cached path. */
  keep: number;
}

/** Batched decoding with a key/value cache: many sequences of different lengths advance together. */
export interface Decoder {
  readonly rows: number;
  /** Feeds the appends (distinct rows, in the given order) and returns the head's outputs, one Float32Array per read in order: logits [V] or score logit [1]. */
  step(appends: Append[]): Promise<Float32Array[]>;
  /** Length of the row's cached path. */
  length(row: number): number;
  /** Forgets the row's path. */
  clear(row: number): void;
  /** Makes row `to` an independent copy of row `from`. */
  copy(from: number, to: number): void;
  close(): Promise<void>;
}
