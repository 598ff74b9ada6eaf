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
 * What a training step minimises. Every loss is a plain sum of weighted terms over one micro-batch, and the losses of micro-batches add up: the caller's
 * weights normalise (1/n each gives a mean). `p` are reads, `a` actions, `j` pairs; sigma is the logistic function.
 */
export type Terms =
  CrossEntropyTerms | SoftBceTerms | BradleyTerryTerms | InverseTerms | RegressionTerms | PreferenceTerms | PolicyGradientTerms;
export type Objective = Terms['objective'];

/** sum_p weight_p * -log softmax(logits_p)[target_p] over the whole vocabulary. Tokens that are not read cost nothing after the last block: they are the loss mask. */
export interface CrossEntropyTerms {
  objective: 'crossEntropy';
  reads: Read[];
  targets: number[];
  weights: number[];
}

/** sum_p weight_p * BCE(sigma(score_p), label_p), labels in [0, 1] (AgentPRM, arXiv 2502.10325, Stage 2). */
export interface SoftBceTerms {
  objective: 'softBCE';
  reads: Read[];
  labels: number[];
  weights: number[];
}

/** sum_j weight_j * -log sigma(score_chosen - score_rejected - margin_j) (Bradley-Terry; arXiv 2203.02155 Eq. 1, with the margin of arXiv 2307.09288 Eq. 2). */
export interface BradleyTerryTerms {
  objective: 'bradleyTerry';
  reads: Read[];
  /** `chosen` and `rejected` are indexes into `reads`; `margin` is 0 if omitted. */
  pairs: { chosen: number; rejected: number; margin?: number; weight: number }[];
}

/**
 * sum_j weight_j * BCE(sigma(z_j), label_j) with z_j = Q(s, a) - gamma Q(s', a'), the reward that Q implies; label 1 for the expert's transitions and 0 for
 * a learner's. Both scores are differentiated (InversePRM, arXiv 2502.10325, Eq. 6 to 10; the logistic form is that of the authors' code).
 */
export interface InverseTerms {
  objective: 'inverse';
  reads: Read[];
  /** `now` and `next` are indexes into `reads`, of (s, a) and (s', a'); `next` is null after the last step of an episode. Labels are in [0, 1]. */
  transitions: { now: number; next: number | null; label: number; weight: number }[];
  /** Discount in [0, 1]. */
  gamma: number;
}

/**
 * sum_p weight_p * (score_p - label_p)^2, or with `huber` = delta the Huber loss (Huber 1964): e^2 / 2 up to |e| = delta, delta (|e| - delta / 2) beyond.
 * The score is that of the score head, or of a causal model's value head.
 */
export interface RegressionTerms {
  objective: 'regression';
  reads: Read[];
  labels: number[];
  weights: number[];
  huber?: number;
}

/** How a causal model's actions are likely: lp_a is the sum of the log-probabilities of the tokens that make the action up. */
export interface ActionTerms {
  /** Decision points: where one token is chosen. */
  reads: Read[];
  /** The tokens that may be chosen at each (token ids, at least one): probabilities are under that constraint. Omitted: the whole vocabulary. */
  allowed?: number[][];
  /** Each action is a list of (decision point, token) choices; a forced token needs no entry. May be empty: log-probability 0. */
  actions: { point: number; token: number }[][];
}

/**
 * Preferences between actions against a reference policy, with h_j = (lp_chosen - lp_rejected) - referenceMargin_j, plus a likelihood term
 * sum_a nllWeight_a * -lp_a:
 * - `dpo`: sum_j weight_j * [(1 - s_j) * -log sigma(beta h_j) + s_j * -log sigma(-beta h_j)] (DPO, arXiv 2305.18290 Eq. 7; with label smoothing s_j
 *   it is the conservative cDPO of the same authors, Mitchell 2023, https://ericmitchell.ai/cdpo.pdf Eq. 3);
 * - `ipo`: sum_j weight_j * (h_j - 1 / (2 beta))^2 (IPO, arXiv 2310.12036 Eq. 17, beta being its tau).
 */
export interface PreferenceTerms extends ActionTerms {
  objective: 'preference';
  /** `dpo` if omitted. */
  loss?: 'dpo' | 'ipo';
  /** Weight of -log-probability of each action; same length as `actions`. */
  nllWeights: number[];
  /** `chosen` and `rejected` are indexes into `actions`; `referenceMargin` is the reference's lp_chosen - lp_rejected; `labelSmoothing` in [0, 0.5] is 0 if omitted. */
  pairs: { chosen: number; rejected: number; referenceMargin: number; weight: number; labelSmoothing?: number }[];
  beta: number;
}

/**
 * Policy gradient on actions with advantages A_a, the sum of
 * - sum_a weight_a * -A_a lp_a (REINFORCE, Williams 1992), or with `clip` sum_a weight_a * -min(r_a A_a, clip(r_a, 1 - low, 1 + high) A_a) with
 *   r_a = exp(lp_a - old_a) (PPO-clip, arXiv 1707.06347 Eq. 7);
 * - with `reference`: coefficient * sum_a weight_a * (exp(d_a) - d_a - 1), d_a = reference_a - lp_a: the estimator k3 of KL(policy || reference) of
 *   Schulman 2020, http://joschu.net/blog/kl-approx.html, as in arXiv 2402.03300 Eq. 4;
 * - with `entropyWeights`: -sum_p entropyWeight_p * H_p, the entropy in nats of the choice at each decision point;
 * - with `values` (a model with a value head): sum_k weight_k * (value at read_k - target_k)^2.
 */
export interface PolicyGradientTerms extends ActionTerms {
  objective: 'policyGradient';
  /** One each per action. */
  advantages: number[];
  weights: number[];
  /** Log-probabilities of the actions under the policy that took them, and how far the ratio may go: below 1 by `low` in (0, 1], above by `high` > 0. */
  clip?: { oldLogProbabilities: number[]; low: number; high: number };
  /** Log-probabilities of the actions under the reference. */
  reference?: { logProbabilities: number[]; coefficient: number };
  /** One per read. */
  entropyWeights?: number[];
  /** `read` is an index into `reads`. */
  values?: { read: number; target: number; weight: number }[];
}

/** One micro-batch: trees and what is asked of them. Its composition decides the bytes that come out, so it is always planned, never timed. */
export interface Batch {
  trees: TokenTree[];
  terms: Terms;
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
  /** Natural-log probabilities over the whole vocabulary of one token at each read: out[p] = (log softmax logits)[targets[p]]. Only for LlamaForCausalLM. */
  tokenLogProbabilities(requests: { trees: TokenTree[]; reads: Read[]; targets: number[] }[]): Promise<Float32Array[]>;
  /** What the value head says, one number per read. Only for a model with one. */
  values(requests: { trees: TokenTree[]; reads: Read[] }[]): Promise<Float32Array[]>;
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
  /** Forgets the row's path after its first `length` tokens. */
  truncate(row: number, length: number): void;
  /** Makes row `to` an independent copy of row `from`. */
  copy(from: number, to: number): void;
  close(): Promise<void>;
}
