/**
 * A second, slow Llama in plain double-precision loops, written from the definitions (RMSNorm, arXiv 1910.07467 Eq. 4; rotary positions in Hugging
 * Face's half-split convention; SwiGLU, arXiv 2002.05202 Eq. 6; grouped-query attention, arXiv 2305.13245) and the losses from `learning/types.ts`.
 * It knows no packing, folding, caching or graphs: every node is read as the end of its own path.
 */
import { Random } from '../../core/random.ts';
import { initModel, llamaConfig, toScoreModel } from '../../learning/model.ts';
import type { Batch, LlamaConfig, Model, TokenTree } from '../../learning/types.ts';

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

/** The head's output at the end of a sequence: logits [V] or one score logit. */
export function outputs(config: LlamaConfig, weights: Weights, ids: number[]): number[] {
  const name = config.architectures[0] === 'LlamaForCausalLM' ? 'lm_head.weight' : 'score.weight';
  const head = weights.get(name) ?? weights.get('model.embed_tokens.weight')!; // tied
  return times(head, states(config, weights, ids).at(-1)!);
}
export const logSoftmax = (x: number[]) => softmax(x).map(Math.log);

/** The loss of a batch, term by term as `learning/types.ts` defines it. */
export function loss(config: LlamaConfig, weights: Weights, { trees, terms }: Batch): number {
  const outs = terms.reads.map(({ tree, node }) => outputs(config, weights, path(trees[tree]!, node)));
  if (terms.objective === 'crossEntropy')
    return outs.reduce((sum, out, p) => sum - terms.weights[p]! * logSoftmax(out)[terms.targets[p]!]!, 0);
  if (terms.objective === 'softBCE') {
    return outs.reduce((sum, [s], p) => {
      const q = 1 / (1 + Math.exp(-s!));
      return sum - terms.weights[p]! * (terms.labels[p]! * Math.log(q) + (1 - terms.labels[p]!) * Math.log(1 - q));
    }, 0);
  }
  const lp = terms.actions.map((action) =>
    action.reduce((sum, { point, token }) => {
      const allowed = terms.allowed[point]!;
      return sum + logSoftmax(allowed.map((id) => outs[point]![id]!))[allowed.indexOf(token)]!;
    }, 0),
  );
  const preference = terms.pairs.reduce((sum, { chosen, rejected, referenceMargin, weight }) => {
    const z = terms.beta * (lp[chosen]! - lp[rejected]! - referenceMargin);
    return sum + weight * Math.log(1 + Math.exp(-z));
  }, 0);
  return lp.reduce((sum, value, a) => sum - terms.nllWeights[a]! * value, preference);
}

// --- random models and trees -----------------------------------------------------------------------------------------------------------------------

/** A tiny model with random gains and matrices all large enough that its outputs differ. */
export function tinyModel(
  seed: number,
  options: { keyValueHeads?: number; score?: boolean; vocabulary?: number; tied?: boolean } = {},
): Model {
  const { keyValueHeads = 2, vocabulary = 11, tied = false } = options;
  const config = llamaConfig({ vocabulary, width: 8, layers: 2, heads: 2, keyValueHeads, feedForward: 12, context: 64, tied });
  const model = initModel(config, ['test', seed]);
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

export function randomBatch(objective: 'crossEntropy' | 'softBCE' | 'preference', random: Random, vocabulary: number): Batch {
  const trees = Array.from({ length: 3 }, () => randomTree(random, 2 + random.below(8), vocabulary));
  const nodes = trees.flatMap(({ ids }, tree) => ids.map((_, node) => ({ tree, node })));
  const reads = random.shuffled(nodes).slice(0, 8);
  const weights = reads.map(() => 0.2 + random.uniform());
  if (objective === 'crossEntropy')
    return { trees, terms: { objective, reads, weights, targets: reads.map(() => random.below(vocabulary)) } };
  if (objective === 'softBCE') return { trees, terms: { objective, reads, weights, labels: reads.map(() => random.uniform()) } };
  const tokens = Array.from({ length: vocabulary }, (_, i) => i);
  const allowed = reads.map(() => random.shuffled(tokens).slice(0, 1 + random.below(5)));
  const actions = Array.from({ length: 6 }, (_, a) =>
    Array.from({ length: a === 0 ? 0 : 1 + random.below(3) }, () => {
      const point = random.below(reads.length);
      return { point, token: random.pick(allowed[point]!) };
    }),
  );
  const pairs = Array.from({ length: 4 }, () => ({
    chosen: random.below(6),
    rejected: random.below(6),
    referenceMargin: random.normal(),
    weight: random.uniform(),
  }));
  return { trees, terms: { objective, reads, allowed, actions, nllWeights: actions.map(() => random.uniform()), pairs, beta: 0.7 } };
}
