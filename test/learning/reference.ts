/**
 * A second, slow Llama in plain double-precision loops, written from the definitions (RMSNorm, arXiv 1910.07467 Eq. 4; rotary positions in Hugging
 * Face's half-split convention; SwiGLU, arXiv 2002.05202 Eq. 6; grouped-query attention, arXiv 2305.13245) and the losses from `learning/types.ts`.
 * It knows no packing, folding, caching or graphs: every node is read as the end of its own path.
 */
import { Random } from '../../core/random.ts';
import { GradientLanes } from '../../learning/gradient-lanes.ts';
import { LaneMemory } from '../../learning/lanes/arithmetic.ts';
import type { Lane } from '../../learning/lanes/lane.ts';
import type { Adapter } from '../../learning/lora.ts';
import { initModel, llamaConfig, toScoreModel, withValueHead } from '../../learning/model.ts';
import type {
  ActionTerms,
  Batch,
  LlamaConfig,
  Model,
  Objective,
  PolicyGradientTerms,
  Read,
  Terms,
  TokenTree,
} from '../../learning/types.ts';

export type Weights = Map<string, Float64Array>;
export const doubles = (model: Model): Weights => new Map([...model.tensors].map(([name, { data }]) => [name, Float64Array.from(data)]));

function norm(x: number[], gain: Float64Array, epsilon: number): number[] {
  const rms = Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length + epsilon);
  return x.map((v, i) => (v / rms) * gain[i]!);
}
function times(weight: Float64Array, x: number[]): number[] {
  return Array.from({ length: weight.length / x.length }, (_, o) => x.reduce((sum, v, i) => sum + weight[o * x.length + i]! * v, 0));
}
function rotate(head: number[], position: number, theta: number): number[] {
  const half = head.length / 2;
  return head.map((v, i) => {
    const angle = position * theta ** (-(i % half) / half);
    const partner = i < half ? -head[i + half]! : head[i - half]!;
    return v * Math.cos(angle) + partner * Math.sin(angle);
  });
}
const cut = (x: number[], size: number) => Array.from({ length: x.length / size }, (_, i) => x.slice(i * size, (i + 1) * size));
function softmax(x: number[]): number[] {
  const most = Math.max(...x);
  const e = x.map((v) => Math.exp(v - most));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((v) => v / sum);
}

/** The final states (after the last norm and its gain) of a plain sequence. */
export function states(config: LlamaConfig, weights: Weights, ids: number[]): number[][] {
  const { hidden_size: D, head_dim: E, rms_norm_eps: epsilon, rope_theta: theta } = config;
  const group = config.num_attention_heads / config.num_key_value_heads;
  let xs = ids.map((id) => Array.from(weights.get('model.embed_tokens.weight')!.subarray(id * D, (id + 1) * D)));
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const w = (part: string) => weights.get(`model.layers.${layer}.${part}.weight`)!;
    const hs = xs.map((x) => norm(x, w('input_layernorm'), epsilon));
    const heads = (part: string, turn: boolean) =>
      hs.map((h, t) => cut(times(w(`self_attn.${part}`), h), E).map((head) => (turn ? rotate(head, t, theta) : head)));
    const [q, k, v] = [heads('q_proj', true), heads('k_proj', true), heads('v_proj', false)];
    xs = xs.map((x, t) => {
      const out = q[t]!.flatMap((query, head) => {
        const kv = Math.floor(head / group);
        const scores = k.slice(0, t + 1).map((key) => query.reduce((sum, a, i) => sum + a * key[kv]![i]!, 0) / Math.sqrt(E));
        const p = softmax(scores);
        return query.map((_, i) => p.reduce((sum, weight, s) => sum + weight * v[s]![kv]![i]!, 0));
      });
      const y = x.map((a, i) => a + times(w('self_attn.o_proj'), out)[i]!);
      const m = norm(y, w('post_attention_layernorm'), epsilon);
      const up = times(w('mlp.up_proj'), m);
      const inner = times(w('mlp.gate_proj'), m).map((g, i) => (g / (1 + Math.exp(-g))) * up[i]!);
      const down = times(w('mlp.down_proj'), inner);
      return y.map((a, i) => a + down[i]!);
    });
  }
  return xs.map((x) => norm(x, weights.get('model.norm.weight')!, epsilon));
}

/** Ids from the root to a node. */
export function path(tree: TokenTree, node: number): number[] {
  const ids: number[] = [];
  for (let i = node; i >= 0; i = tree.parents[i]!) ids.unshift(tree.ids[i]!);
  return ids;
}

function headOf(config: LlamaConfig, weights: Weights): Float64Array {
  const name = config.architectures[0] === 'LlamaForCausalLM' ? 'lm_head.weight' : 'score.weight';
  return weights.get(name) ?? weights.get('model.embed_tokens.weight')!; // tied
}
/** The head's output at the end of a sequence: logits [V] or one score logit. */
export function outputs(config: LlamaConfig, weights: Weights, ids: number[]): number[] {
  return times(headOf(config, weights), states(config, weights, ids).at(-1)!);
}
export const logSoftmax = (x: number[]) => softmax(x).map(Math.log);

/** -log sigma(z). */
const negativeLogSigma = (z: number) => Math.log(1 + Math.exp(-z));
const sum = <T>(list: T[], of: (item: T, i: number) => number) => list.reduce((total, item, i) => total + of(item, i), 0);

/** The loss of a batch, term by term as `learning/types.ts` defines it. */
export function loss(config: LlamaConfig, weights: Weights, { trees, terms }: Batch): number {
  const paths = terms.reads.map(({ tree, node }) => path(trees[tree]!, node));
  const finals = paths.map((ids) => states(config, weights, ids).at(-1)!);
  const outs = finals.map((final) => times(headOf(config, weights), final));
  const scalarHead = weights.get('value_head.weight') ?? headOf(config, weights).subarray(0, config.hidden_size);
  const scalars = finals.map((final) => times(scalarHead, final)[0]!);
  const bce = (z: number, label: number) => label * negativeLogSigma(z) + (1 - label) * negativeLogSigma(-z);
  switch (terms.objective) {
    case 'crossEntropy':
      return sum(outs, (out, p) => -terms.weights[p]! * logSoftmax(out)[terms.targets[p]!]!);
    case 'softBCE':
      return sum(scalars, (s, p) => terms.weights[p]! * bce(s, terms.labels[p]!));
    case 'bradleyTerry':
      return sum(terms.pairs, ({ chosen, rejected, margin = 0, weight }) => {
        return weight * negativeLogSigma(scalars[chosen]! - scalars[rejected]! - margin);
      });
    case 'inverse':
      return sum(terms.transitions, ({ now, next, label, weight }) => {
        return weight * bce(scalars[now]! - (next === null ? 0 : terms.gamma * scalars[next]!), label);
      });
    case 'regression':
      return sum(scalars, (s, p) => {
        const [e, delta] = [Math.abs(s - terms.labels[p]!), terms.huber];
        const each = delta === undefined ? e * e : e <= delta ? (e * e) / 2 : delta * (e - delta / 2);
        return terms.weights[p]! * each;
      });
    case 'preference': {
      const lp = actionLogProbabilities(terms, outs);
      const pairs = sum(terms.pairs, ({ chosen, rejected, referenceMargin, weight, labelSmoothing: s = 0 }) => {
        const h = lp[chosen]! - lp[rejected]! - referenceMargin;
        if (terms.loss === 'ipo') return weight * (h - 1 / (2 * terms.beta)) ** 2;
        return weight * ((1 - s) * negativeLogSigma(terms.beta * h) + s * negativeLogSigma(-terms.beta * h));
      });
      return pairs - sum(lp, (value, a) => terms.nllWeights[a]! * value);
    }
    case 'policyGradient': {
      const lp = actionLogProbabilities(terms, outs);
      const { clip, reference, entropyWeights, values = [] } = terms;
      const gain = sum(lp, (value, a) => {
        const advantage = terms.advantages[a]!;
        if (!clip) return terms.weights[a]! * advantage * value;
        const ratio = Math.exp(value - clip.oldLogProbabilities[a]!);
        const clipped = Math.min(1 + clip.high, Math.max(1 - clip.low, ratio));
        return terms.weights[a]! * Math.min(ratio * advantage, clipped * advantage);
      });
      const kl = sum(lp, (value, a) => {
        if (!reference) return 0;
        const d = reference.logProbabilities[a]! - value;
        return reference.coefficient * terms.weights[a]! * (Math.exp(d) - d - 1);
      });
      const entropy = sum(entropyWeights ?? [], (weight, p) => {
        return -weight * sum(pointLogProbabilities(terms, outs, p), (value) => Math.exp(value) * value);
      });
      return kl - gain - entropy + sum(values, ({ read, target, weight }) => weight * (scalars[read]! - target) ** 2);
    }
  }
}

/** Log-probabilities at one decision point, in the order of its allowed tokens. */
function pointLogProbabilities({ allowed }: ActionTerms, outs: number[][], point: number): number[] {
  return logSoftmax(allowed ? allowed[point]!.map((id) => outs[point]![id]!) : outs[point]!);
}
function actionLogProbabilities(terms: ActionTerms, outs: number[][]): number[] {
  return terms.actions.map((action) =>
    sum(
      action,
      ({ point, token }) => pointLogProbabilities(terms, outs, point)[terms.allowed ? terms.allowed[point]!.indexOf(token) : token]!,
    ),
  );
}

// --- random models and trees -----------------------------------------------------------------------------------------------------------------------

/** A tiny model with random gains and matrices all large enough that its outputs differ. */
export function tinyModel(
  seed: number,
  options: { keyValueHeads?: number; score?: boolean; vocabulary?: number; tied?: boolean; values?: boolean } = {},
): Model {
  const { keyValueHeads = 2, vocabulary = 11, tied = false } = options;
  const config = llamaConfig({ vocabulary, width: 8, layers: 2, heads: 2, keyValueHeads, feedForward: 12, context: 64, tied });
  const plain = initModel(config, ['test', seed]);
  const model = options.values ? withValueHead(plain) : plain;
  for (const [name, { shape, data }] of model.tensors) {
    const random = new Random(['test', seed, 'gains', name]);
    if (shape.length === 1) for (let i = 0; i < data.length; i++) data[i] = 0.5 + random.uniform();
    else for (let i = 0; i < data.length; i++) data[i] = (name.includes('layers') ? 0.4 : 0.5) * random.normal(); // new models have zeros
  }
  if (!options.score) return model;
  const random = new Random(['test', seed, 'score']);
  return toScoreModel(
    model,
    Float32Array.from({ length: 8 }, () => 0.5 * random.normal()),
  );
}

export function randomTree(random: Random, length: number, vocabulary: number): TokenTree {
  const ids = Array.from({ length }, () => random.below(vocabulary));
  // Mostly a chain; sometimes a branch from an earlier node or a second root.
  const parents = ids.map((_, i) => (i === 0 ? -1 : random.uniform() < 0.7 ? i - 1 : random.below(i + 1) - 1));
  return { ids, parents };
}

export const chain = (ids: number[]): TokenTree => ({ ids, parents: ids.map((_, i) => i - 1) });

/** The objectives with the options that change their graphs. */
export const VARIANTS = [
  'crossEntropy',
  'softBCE',
  'bradleyTerry',
  'inverse',
  'regression',
  'regression, Huber',
  'preference',
  'preference over the vocabulary',
  'preference, cDPO',
  'preference, IPO over the vocabulary',
  'policyGradient',
  'policyGradient, PPO with reference and entropy',
  'policyGradient, PPO with all options over the vocabulary',
] as const;
export type Variant = (typeof VARIANTS)[number];
export const objectiveOf = (variant: Variant) => /^\w+/.exec(variant)![0] as Objective;
/** Whether the objective is one of score models. */
export const needsScores = (variant: Variant) => !/^(crossEntropy|preference|policyGradient)/.test(variant);

/** A batch over random branching trees, with terms that reach every branch of the loss. */
export function randomBatch(variant: Variant, random: Random, vocabulary: number): Batch {
  const trees = Array.from({ length: 3 }, () => randomTree(random, 2 + random.below(8), vocabulary));
  const nodes = trees.flatMap(({ ids }, tree) => ids.map((_, node) => ({ tree, node })));
  const reads = random.shuffled(nodes).slice(0, 8);
  return { trees, terms: randomTerms(variant, reads, random, vocabulary) };
}

function randomTerms(variant: Variant, reads: Read[], random: Random, vocabulary: number): Terms {
  const objective = objectiveOf(variant);
  const weights = reads.map(() => 0.2 + random.uniform());
  if (objective === 'crossEntropy') return { objective, reads, weights, targets: reads.map(() => random.below(vocabulary)) };
  if (objective === 'softBCE') return { objective, reads, weights, labels: reads.map(() => random.uniform()) };
  if (objective === 'regression') {
    const huber = variant === 'regression, Huber' ? { huber: 0.8 } : {};
    return { objective, reads, weights, labels: reads.map(() => random.normal()), ...huber };
  }
  const read = () => random.below(reads.length);
  if (objective === 'bradleyTerry') {
    const pairs = weights.map((weight, j) => ({ chosen: read(), rejected: read(), weight, ...(j % 2 ? { margin: random.normal() } : {}) }));
    return { objective, reads, pairs };
  }
  if (objective === 'inverse') {
    const transitions = weights.map((weight, j) => ({ now: read(), next: j % 3 ? read() : null, label: j % 2, weight }));
    return { objective, reads, transitions, gamma: 0.9 };
  }
  const tokens = Array.from({ length: vocabulary }, (_, i) => i);
  const lists = reads.map(() => random.shuffled(tokens).slice(0, 1 + random.below(5)));
  const actions = Array.from({ length: 6 }, (_, a) =>
    Array.from({ length: a === 0 ? 0 : 1 + random.below(3) }, () => {
      const point = read();
      return { point, token: random.pick(lists[point]!) };
    }),
  );
  const action = { reads, actions, ...(variant.includes('vocabulary') ? {} : { allowed: lists }) };
  if (objective === 'preference') {
    const pairs = Array.from({ length: 4 }, () => ({
      chosen: random.below(6),
      rejected: random.below(6),
      referenceMargin: random.normal(),
      weight: random.uniform(),
      ...(variant === 'preference, cDPO' ? { labelSmoothing: random.uniform() / 2 } : {}),
    }));
    const terms = { objective, ...action, nllWeights: actions.map(() => random.uniform()), pairs, beta: 0.7 };
    return variant.includes('IPO') ? { ...terms, loss: 'ipo' } : terms;
  }
  const ofActions = (draw: () => number) => actions.map(draw);
  const terms: PolicyGradientTerms = {
    objective: 'policyGradient',
    ...action,
    advantages: ofActions(() => random.normal()),
    weights: ofActions(() => random.uniform()),
  };
  if (variant === 'policyGradient') return terms;
  // Old log-probabilities so far around those of random tokens that some ratios are clipped on either side.
  const old = ofActions(() => -2 * actions.length * random.uniform());
  return {
    ...terms,
    clip: { oldLogProbabilities: old, low: 0.2, high: 0.3 },
    reference: { logProbabilities: ofActions(() => -3 * random.uniform()), coefficient: 0.4 },
    entropyWeights: reads.map(() => random.normal()),
    ...(variant.includes('all options') ? { values: weights.map((weight) => ({ read: read(), target: random.normal(), weight })) } : {}),
  };
}

/** Gradient lanes on lanes, as a trainer opens them: the loss of batches and the gradients of a model's (and its adapter's) tensors. */
export async function gradientsOn(lanes: Lane[], model: Model, objective: Objective, adapter?: Adapter) {
  const memory = await LaneMemory.create();
  await Promise.all(lanes.map((lane) => lane.share(memory)));
  const engine = new GradientLanes(model.config, objective, adapter?.config);
  engine.open(lanes, memory);
  const tensors = memory.copies(new Map([...model.tensors, ...(adapter?.tensors ?? [])]));
  return (batches: Batch[]) => engine.compute(batches, tensors);
}
