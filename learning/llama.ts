/**
 * The Llama architecture (arXiv 2302.13971: RMSNorm, rotary positions, SwiGLU; grouped-query attention of arXiv 2305.13245) in the tensor language,
 * for reading whole trees and for decoding with a cache. What is asked of the final states is the business of others.
 *
 * Axes: T tokens of a row, H of them in a chunk of queries, R rows, S keys (of the same tokens), D width, F feed-forward width, V vocabulary,
 * K key/value heads, G query heads per key/value head, E size of a head, P reads, M positions, C cached tokens, X cached and new tokens.
 */
import { CHUNKS, maskName } from './batch.ts';
import { rotaryFrequencies } from './config.ts';
import { foldedMatrices } from './fold.ts';
import { Graph } from './graph/graph.ts';
import type { Value } from './graph/graph.ts';
import { gather } from './graph/indexing.ts';
import {
  add,
  attention,
  concat,
  expand,
  first,
  linear,
  matmul,
  mul,
  rename,
  reshape,
  rmsNorm,
  rotary,
  silu,
  softmax,
  split,
  transpose,
} from './graph/operators.ts';
import { loraName, loraTargets } from './lora.ts';
import type { AdapterConfig } from './lora.ts';
import { EMBEDDING, VALUE_HEAD, headName, isScore, layerName } from './model.ts';
import type { LlamaConfig } from './types.ts';

type Weights = ReadonlyMap<string, Value>;

const groupsOf = (config: LlamaConfig) => config.num_attention_heads / config.num_key_value_heads;
/** The axis of query heads. With one query head per key/value head there is no axis G. */
const queryHeads = (config: LlamaConfig) => (groupsOf(config) === 1 ? 'K' : 'K*G');

/** An empty graph with the axes of a model; `symbolic` lists the further axes that only a run decides. */
export function llamaGraph(config: LlamaConfig, symbolic: string[] = []): Graph {
  return new Graph({
    T: 'symbolic',
    H: 'symbolic',
    R: 'symbolic',
    P: 'symbolic',
    S: { sameAs: 'T' },
    D: config.hidden_size,
    F: config.intermediate_size,
    V: config.vocab_size,
    K: config.num_key_value_heads,
    G: groupsOf(config),
    E: config.head_dim,
    M: config.max_position_embeddings,
    ...Object.fromEntries(symbolic.map((axis) => [axis, 'symbolic' as const])),
  });
}

/** The folded matrices as values of a graph: fed on every run, or (given `data`) part of the model. */
export function llamaWeights(
  graph: Graph,
  config: LlamaConfig,
  options: { data?: ReadonlyMap<string, Float32Array>; adapter?: AdapterConfig | undefined } = {},
): Map<string, Value> {
  const { data, adapter } = options;
  const axes = new Map<string, string[]>([
    [EMBEDDING, ['V', 'D']],
    [headName(config), [isScore(config) ? '1' : 'V', 'D']],
    [VALUE_HEAD, ['1', 'D']],
  ]);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    axes.set(layerName(layer, 'self_attn.q_proj'), [`${queryHeads(config)}*E`, 'D']);
    axes.set(layerName(layer, 'self_attn.k_proj'), ['K*E', 'D']);
    axes.set(layerName(layer, 'self_attn.v_proj'), ['K*E', 'D']);
    axes.set(layerName(layer, 'self_attn.o_proj'), ['D', `${queryHeads(config)}*E`]);
    axes.set(layerName(layer, 'mlp.gate_proj'), ['F', 'D']);
    axes.set(layerName(layer, 'mlp.up_proj'), ['F', 'D']);
    axes.set(layerName(layer, 'mlp.down_proj'), ['D', 'F']);
  }
  for (const name of adapter ? loraTargets(config, adapter) : []) {
    const [outputs, inputs] = axes.get(name) as [string, string];
    const rank = String(adapter!.r);
    axes.set(loraName(name, 'A'), [rank, inputs]).set(loraName(name, 'B'), [outputs, rank]);
  }
  return new Map(
    foldedMatrices(config, adapter).map(({ name }) => {
      const shape = axes.get(name)!;
      return [name, data ? graph.constant(data.get(name)!, shape) : graph.input(name, 'float32', shape)];
    }),
  );
}

/** x [N, inputs] through a matrix, and through the adapter beside it where there is one: x W^T + (x A^T) B^T. */
function project(weights: Weights, name: string, x: Value): Value {
  const [w, a, b] = [weights.get(name)!, weights.get(loraName(name, 'A')), weights.get(loraName(name, 'B'))];
  return a && b ? add(linear(x, w), linear(linear(x, a), b)) : linear(x, w);
}

/** Tables of cosines and sines [M, E/2], in float32 steps as Hugging Face computes them. */
function rotaryTables(graph: Graph, config: LlamaConfig): [Value, Value] {
  const frequencies = rotaryFrequencies(config);
  const half = frequencies.length;
  const cosines = new Float32Array(config.max_position_embeddings * half);
  const sines = new Float32Array(cosines.length);
  for (let position = 0; position < config.max_position_embeddings; position++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * frequencies[i]!);
      cosines[position * half + i] = Math.cos(angle);
      sines[position * half + i] = Math.sin(angle);
    }
  }
  return [graph.constant(cosines, ['M', String(half)]), graph.constant(sines, ['M', String(half)])];
}

/** Queries [T, R, heads*E] (or H of them) as attention reads them: [T, R, K, E] in batch order, or [R, K, T*G, E] with grouped heads. */
function groupQueries(config: LlamaConfig, q: Value): { q: Value; batchQ: boolean } {
  const T = q.axes[0]!;
  if (groupsOf(config) === 1) return { q: reshape(q, [T, 'R', 'K', 'E']), batchQ: true };
  const grouped = transpose(reshape(q, [T, 'R', 'K', 'G', 'E']), [1, 2, 0, 3, 4]);
  return { q: reshape(grouped, ['R', 'K', `${T}*G`, 'E']), batchQ: false };
}

/** The result of attention [R, K, T(*G), E] (or H) as rows [T*R, heads*E]. */
function ungroup(config: LlamaConfig, out: Value, T: string): Value {
  const shape = [`${T}*R`, `${queryHeads(config)}*E`];
  if (groupsOf(config) === 1) return reshape(transpose(out, [2, 0, 1, 3]), shape);
  return reshape(transpose(reshape(out, ['R', 'K', T, 'G', 'E']), [2, 0, 1, 3, 4]), shape);
}

/** A mask [R, 1, T, keys] (or H), repeated for grouped heads. */
function groupMask(config: LlamaConfig, mask: Value): Value {
  if (groupsOf(config) === 1) return mask;
  const [T, keys] = [mask.axes[2]!, mask.axes[3]!];
  return reshape(expand(reshape(mask, ['R', '1', T, '1', keys]), ['R', '1', T, 'G', keys]), ['R', '1', `${T}*G`, keys]);
}

/** From queries [T, R, heads*E], keys and values [S, R, K, E] of a layer to rows [T*R, heads*E]. */
type Attend = (layer: number, q: Value, k: Value, v: Value) => Value;

function blocks(graph: Graph, config: LlamaConfig, weights: Weights, attend: Attend): Value {
  const ids = graph.input('ids', 'int64', ['T*R']);
  const positions = graph.input('positions', 'int64', ['T', 'R']);
  const [cosines, sines] = rotaryTables(graph, config);
  graph.section = 'embed_tokens';
  let x = gather(weights.get(EMBEDDING)!, ids);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    graph.section = `layers.${layer}.self_attn`;
    const through = (part: string, input: Value) => project(weights, layerName(layer, part), input);
    const h = rmsNorm(x, config.rms_norm_eps);
    const heads = (part: string, count: string) => reshape(through(part, h), ['T', 'R', `${count}*E`]);
    const q = rotary(heads('self_attn.q_proj', queryHeads(config)), positions, cosines, sines);
    const k = rotary(heads('self_attn.k_proj', 'K'), positions, cosines, sines);
    const keys = (value: Value) => rename(reshape(value, ['T', 'R', 'K', 'E']), ['S', 'R', 'K', 'E']);
    const out = attend(layer, q, keys(k), keys(heads('self_attn.v_proj', 'K')));
    x = add(x, through('self_attn.o_proj', out));
    graph.section = `layers.${layer}.mlp`;
    const m = rmsNorm(x, config.rms_norm_eps);
    x = add(x, through('mlp.down_proj', mul(silu(through('mlp.gate_proj', m)), through('mlp.up_proj', m))));
  }
  return x;
}

/** The normed final states (without the last gain, which the head carries) at the nodes of input `reads` [P]: [P, D]. */
function readStates(graph: Graph, config: LlamaConfig, x: Value): Value {
  graph.section = 'norm';
  return rmsNorm(gather(x, graph.input('reads', 'int64', ['P'])), config.rms_norm_eps);
}

/**
 * Whole trees: inputs ids [T*R], positions [T, R], masks, reads [P]; result [P, D]. A node comes after its ancestors, so the queries are taken in chunks
 * of H tokens, and chunk c sees the first (c + 1) H keys only: mask c is [R, 1, H, (c + 1) H].
 */
export function treeStates(graph: Graph, config: LlamaConfig, weights: Weights): Value {
  const keys = (chunk: number) => (chunk === CHUNKS - 1 ? 'S' : `${chunk + 1}*H`);
  const masks = Array.from({ length: CHUNKS }, (_, c) => groupMask(config, graph.input(maskName(c), 'float32', ['R', '1', 'H', keys(c)])));
  const alpha = 1 / Math.sqrt(config.head_dim);
  const x = blocks(graph, config, weights, (_, queries, k, v) => {
    const chunks = split(queries, 0, new Array<string>(CHUNKS).fill('H')).map((chunk, c) => {
      const { q, batchQ } = groupQueries(config, chunk);
      return ungroup(config, attention(q, first(k, keys(c)), first(v, keys(c)), masks[c]!, alpha, batchQ), 'H');
    });
    return concat(chunks, 0, 'T*R');
  });
  return readStates(graph, config, x);
}

/** The head over states [P, D]: logits [P, V], or score logits [P]. */
export function head(config: LlamaConfig, weights: Weights, states: Value): Value {
  states.graph.section = 'head';
  const out = linear(states, weights.get(headName(config))!);
  return isScore(config) ? reshape(out, ['P']) : out;
}

/** The value head over states [P, D]: values [P]. */
export function valueHead(weights: Weights, states: Value): Value {
  states.graph.section = 'value_head';
  return reshape(linear(states, weights.get(VALUE_HEAD)!), ['P']);
}

/** Names of a layer's caches among the inputs, and of its new keys and values among the outputs, of the decoding graph. */
export const cacheNames = (layer: number) => ({
  keys: `cache_k${layer}`,
  values: `cache_v${layer}`,
  newKeys: `new_k${layer}`,
  newValues: `new_v${layer}`,
});

/**
 * New tokens on cached paths: inputs ids, positions, reads as for trees, mask [R, 1, T, X], caches [C, R, K, E] per layer; outputs `out` (the head) and
 * the new keys and values [S, R, K, E] per layer. Caches are inputs only, because every output is copied on its way out. Without `data` the matrices are
 * inputs too.
 */
export function decodeGraph(config: LlamaConfig, data?: ReadonlyMap<string, Float32Array>): Uint8Array {
  const graph = llamaGraph(config, ['C', 'X']);
  const weights = llamaWeights(graph, config, data ? { data } : {});
  const mask = groupMask(config, graph.input('mask', 'float32', ['R', '1', 'T', 'X']));
  const alpha = 1 / Math.sqrt(config.head_dim);
  const outputs: Record<string, Value> = {};
  const x = blocks(graph, config, weights, (layer, queries, k, v) => {
    const { q, batchQ } = groupQueries(config, queries);
    const names = cacheNames(layer);
    const oldK = graph.input(names.keys, 'float32', ['C', 'R', 'K', 'E']);
    const oldV = graph.input(names.values, 'float32', ['C', 'R', 'K', 'E']);
    outputs[names.newKeys] = k;
    outputs[names.newValues] = v;
    const scores = [oldK, k].map((keys) => matmul(q, keys, { batchA: batchQ, batchB: true, transB: true, alpha }));
    const p = softmax(add(concat(scores, 3, 'X'), mask));
    const [pOld, pNew] = split(p, 3, ['C', 'S']) as [Value, Value];
    return ungroup(config, add(matmul(pOld, oldV, { batchB: true }), matmul(pNew, v, { batchB: true })), 'T');
  });
  outputs['out'] = head(config, weights, readStates(graph, config, x));
  return graph.emit(outputs);
}
