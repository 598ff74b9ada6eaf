/**
 * The Llama architecture (arXiv 2302.13971: RMSNorm, rotary positions, SwiGLU; grouped-query attention of arXiv 2305.13245) in the tensor language,
 * for reading whole trees and for decoding with a cache. What is asked of the final states is the business of others.
 *
 * Axes: T tokens of a row, H of them in a chunk of queries, R rows, S keys (of the same tokens), D width, F feed-forward width, V vocabulary,
 * K key/value heads, G query heads per key/value head, E size of a head, P reads, M positions; in ragged batches L places of a row (Q of queries), U of reads in
 * a row; in decoding C cached tokens, X cached and new ones.
 */
import { CHUNKS, maskName, readMaskName } from './batch.ts';
import { rotaryFrequencies } from './config.ts';
import { foldedMatrices } from './fold.ts';
import { attention } from './graph/attention.ts';
import type { Chunk } from './graph/attention.ts';
import { Graph } from './graph/graph.ts';
import type { Value } from './graph/graph.ts';
import { arrange, gather } from './graph/indexing.ts';
import {
  add,
  concat,
  expand,
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

/** An empty graph with the axes of a model; `symbolic` lists the further axes that only a run decides, `twins` those that are as long as another. */
export function llamaGraph(config: LlamaConfig, symbolic: string[] = [], twins: Record<string, string> = {}): Graph {
  return new Graph({
    T: 'symbolic',
    H: 'symbolic',
    R: 'symbolic',
    P: 'symbolic',
    S: { sameAs: 'T' },
    L: 'symbolic',
    Q: { sameAs: 'L' },
    U: 'symbolic',
    ...Object.fromEntries(Array.from({ length: CHUNKS }, (_, c) => [`U${c}`, 'symbolic' as const])),
    D: config.hidden_size,
    F: config.intermediate_size,
    V: config.vocab_size,
    K: config.num_key_value_heads,
    G: groupsOf(config),
    E: config.head_dim,
    M: config.max_position_embeddings,
    ...Object.fromEntries(symbolic.map((axis) => [axis, 'symbolic' as const])),
    ...Object.fromEntries(Object.entries(twins).map(([axis, sameAs]) => [axis, { sameAs }])),
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
    foldedMatrices(config, adapter).map(({ name, transposed }) => {
      const shape = transposed ? axes.get(name)!.toReversed() : axes.get(name)!;
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

/** Queries [T, R, heads*E] (any T and R) as attention reads them: [T, R, K, E] in batch order, or [R, K, T*G, E] with grouped heads. */
function groupQueries(config: LlamaConfig, q: Value): { q: Value; batchQ: boolean } {
  const [T, R] = q.axes as [string, string];
  if (groupsOf(config) === 1) return { q: reshape(q, [T, R, 'K', 'E']), batchQ: true };
  const grouped = transpose(reshape(q, [T, R, 'K', 'G', 'E']), [1, 2, 0, 3, 4]);
  return { q: reshape(grouped, [R, 'K', `${T}*G`, 'E']), batchQ: false };
}

/** The result of attention [R, K, T(*G), E] as rows [T*R, heads*E]. */
function ungroup(config: LlamaConfig, out: Value, T: string): Value {
  const R = out.axes[0]!;
  const shape = [rowsOf(T, R), `${queryHeads(config)}*E`];
  if (groupsOf(config) === 1) return reshape(transpose(out, [2, 0, 1, 3]), shape);
  return reshape(transpose(reshape(out, [R, 'K', T, 'G', 'E']), [2, 0, 1, 3, 4]), shape);
}
const rowsOf = (T: string, R: string) => (R === '1' ? T : `${T}*${R}`);

/** A mask [R, 1, T, keys], repeated for grouped heads. */
function groupMask(config: LlamaConfig, mask: Value): Value {
  if (groupsOf(config) === 1) return mask;
  const [R, , T, keys] = mask.axes as [string, string, string, string];
  return reshape(expand(reshape(mask, [R, '1', T, '1', keys]), [R, '1', T, 'G', keys]), [R, '1', `${T}*G`, keys]);
}

/** From queries [T, R, heads*E], keys and values [S, R, K, E] of a layer to rows [T*R, heads*E]. */
type Attend = (layer: number, q: Value, k: Value, v: Value) => Value;

/**
 * The normed final states (without the last gain, which the head carries) at the nodes of input `reads` [P]: [P, D]. Nobody asks for other states, so the
 * last layer computes what follows its attention for these nodes only; with `readQueries` its queries too, and attention is given P of them.
 */
function readStates(graph: Graph, config: LlamaConfig, weights: Weights, R: string, readQueries: boolean, attend: Attend): Value {
  const rows = rowsOf('T', R);
  const ids = graph.input('ids', 'int64', [rows]);
  const positions = graph.input('positions', 'int64', ['T', R]);
  const reads = graph.input('reads', 'int64', ['P']);
  const [cosines, sines] = rotaryTables(graph, config);
  graph.section = 'embed_tokens';
  let x = gather(weights.get(EMBEDDING)!, ids);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    graph.section = `layers.${layer}.self_attn`;
    const last = layer === config.num_hidden_layers - 1;
    const through = (part: string, input: Value) => project(weights, layerName(layer, part), input);
    const h = rmsNorm(x, config.rms_norm_eps);
    const heads = (part: string, input: Value, T: string, count: string) => reshape(through(part, input), [T, R, `${count}*E`]);
    const few = last && readQueries;
    const queries = few
      ? heads('self_attn.q_proj', gather(h, reads), 'P', queryHeads(config))
      : heads('self_attn.q_proj', h, 'T', queryHeads(config));
    const q = rotary(queries, few ? gather(positions, reads) : positions, cosines, sines);
    const k = rotary(heads('self_attn.k_proj', h, 'T', 'K'), positions, cosines, sines);
    const keys = (value: Value) => rename(reshape(value, ['T', R, 'K', 'E']), ['S', R, 'K', 'E']);
    let out = attend(layer, q, keys(k), keys(heads('self_attn.v_proj', h, 'T', 'K')));
    if (last) x = gather(x, reads);
    if (last && !few) out = gather(out, reads);
    x = add(x, through('self_attn.o_proj', out));
    graph.section = `layers.${layer}.mlp`;
    const m = rmsNorm(x, config.rms_norm_eps);
    x = add(x, through('mlp.down_proj', mul(silu(through('mlp.gate_proj', m)), through('mlp.up_proj', m))));
  }
  graph.section = 'norm';
  return rmsNorm(x, config.rms_norm_eps);
}

/**
 * Whole trees, packed into rows (`batch.ts`): the final states [P, D] at input `reads`. A node comes after its ancestors, so the queries of a row are taken
 * in chunks of H tokens, and chunk c sees the first (c + 1) H keys only: mask c is [R, 1, H, (c + 1) H].
 *
 * Inputs ids [T*R] and positions [T, R]. Where batches are `ragged`, T counts the nodes of all rows together, without padding: ids [T], positions [T, 1], and
 * only attention is in rows, of length L: `nodes` [Q, R] says which node a place shows, `places` [T] where each lies. The last layer asks for the reads
 * alone, U_c of a row in chunk c: `queries` [U, R] and `queryPlaces` [P] say which read is where, and their masks are [R, 1, U_c, (c + 1) H].
 */
export function treeStates(graph: Graph, config: LlamaConfig, weights: Weights, ragged: boolean): Value {
  const alpha = 1 / Math.sqrt(config.head_dim);
  const chunksOf = (asking: (chunk: number) => string, mask: (chunk: number) => string): Chunk[] =>
    Array.from({ length: CHUNKS }, (_, c) => {
      const [queries, keys] = [asking(c), c < CHUNKS - 1 ? `${c + 1}*H` : ragged ? 'L' : 'S'];
      return {
        queries: groupsOf(config) === 1 ? queries : `${queries}*G`,
        keys,
        added: 'H',
        mask: groupMask(config, graph.input(mask(c), 'float32', ['R', '1', queries, keys])),
      };
    });
  const attend = (queries: Value, k: Value, v: Value, chunks: readonly Chunk[]): Value => {
    const { q, batchQ } = groupQueries(config, queries);
    return ungroup(config, attention(q, k, v, chunks, alpha, batchQ), queries.axes[0]!);
  };
  const chunks = chunksOf(() => 'H', maskName);
  if (!ragged) return readStates(graph, config, weights, 'R', false, (_, q, k, v) => attend(q, k, v, chunks));

  const readChunks = chunksOf((c) => `U${c}`, readMaskName);
  const nodes = graph.input('nodes', 'int64', ['Q', 'R']);
  const places = graph.input('places', 'int64', ['T']);
  const queries = graph.input('queries', 'int64', ['U', 'R']);
  const queryPlaces = graph.input('queryPlaces', 'int64', ['P']);
  const keysInRows = (value: Value) => {
    const rows = arrange(reshape(rename(value, ['T', '1', 'K', 'E']), ['T', 'K*E']), nodes, places);
    return rename(reshape(rows, ['Q', 'R', 'K', 'E']), ['L', 'R', 'K', 'E']);
  };
  return readStates(graph, config, weights, '1', true, (layer, q, k, v) => {
    const flat = reshape(q, [q.axes[0]!, q.axes[2]!]);
    const [keys, values] = [keysInRows(k), keysInRows(v)];
    if (layer < config.num_hidden_layers - 1) return arrange(attend(arrange(flat, nodes, places), keys, values, chunks), places, nodes);
    // Padding among the reads sees keys of others, and must have no gradient: it is gathered from, not arranged.
    return gather(attend(arrange(flat, queries, queryPlaces), keys, values, readChunks), queryPlaces);
  });
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

/** Names of tensors of the decoding graph: inputs of slot `slot`, and outputs of all slots together. */
export const decodeNames = {
  mask: (slot: number) => `mask ${slot}`,
  readMask: (slot: number) => `mask of reads ${slot}`,
  keys: (layer: number, slot: number) => `keys ${layer}/${slot}`,
  values: (layer: number, slot: number) => `values ${layer}/${slot}`,
  newKeys: (layer: number) => `new keys ${layer}`,
  newValues: (layer: number) => `new values ${layer}`,
};

/**
 * New tokens on cached paths, for `slots` paths in one run. The tokens of all slots lie behind each other, T in all, without padding: inputs ids [T],
 * positions [T, 1], reads [P] in the order of the slots. Slot i has T_i tokens, of which it reads P_i, and C_i cached ones that all of them see, at least
 * one of each: masks [1, 1, T_i, T_i] and, for the reads, [1, 1, P_i, T_i]; caches [C_i, 1, K, E] per layer. `uncached` [slots] is added to the scores of a
 * slot's cached tokens: MASKED where the one that there must be is nothing. Outputs: `out` (the head), and per layer the new keys and values [T, 1, K, E].
 * Caches are inputs only, because every output is copied on its way out. Without `data` the matrices are inputs too.
 */
export function decodeGraph(config: LlamaConfig, slots: number, data?: ReadonlyMap<string, Float32Array>): Uint8Array {
  const all = Array.from({ length: slots }, (_, slot) => slot);
  const graph = llamaGraph(
    config,
    all.flatMap((i) => [`T${i}`, `P${i}`, `C${i}`, `X${i}`]),
    Object.fromEntries(all.map((i) => [`S${i}`, `T${i}`])),
  );
  const weights = llamaWeights(graph, config, data ? { data } : {});
  const masks = all.map((i) => groupMask(config, graph.input(decodeNames.mask(i), 'float32', ['1', '1', `T${i}`, `S${i}`])));
  const readMasks = all.map((i) => groupMask(config, graph.input(decodeNames.readMask(i), 'float32', ['1', '1', `P${i}`, `S${i}`])));
  const uncached = split(graph.input('uncached', 'float32', [String(slots)]), 0, new Array<string>(slots).fill('1'));
  const alpha = 1 / Math.sqrt(config.head_dim);
  const outputs: Record<string, Value> = {};
  const states = readStates(graph, config, weights, '1', true, (layer, queries, k, v) => {
    outputs[decodeNames.newKeys(layer)] = k;
    outputs[decodeNames.newValues(layer)] = v;
    const last = layer === config.num_hidden_layers - 1;
    const asking = all.map((i) => (last ? `P${i}` : `T${i}`));
    const [qs, ks, vs] = [
      split(queries, 0, asking),
      ...[k, v].map((value) =>
        split(
          value,
          0,
          all.map((i) => `S${i}`),
        ),
      ),
    ] as Value[][];
    const outs = all.map((i) => {
      const { q, batchQ } = groupQueries(config, qs![i]!);
      const [oldK, oldV] = [decodeNames.keys, decodeNames.values].map((name) =>
        graph.input(name(layer, i), 'float32', [`C${i}`, '1', 'K', 'E']),
      ) as [Value, Value];
      const scores = (keys: Value) => matmul(q, keys, { batchA: batchQ, batchB: true, transB: true, alpha });
      const mask = (last ? readMasks : masks)[i]!;
      const p = softmax(concat([add(scores(oldK), uncached[i]!), add(scores(ks![i]!), mask)], 3, `X${i}`));
      const [pOld, pNew] = split(p, 3, [`C${i}`, `S${i}`]) as [Value, Value];
      return ungroup(config, add(matmul(pOld, oldV, { batchB: true }), matmul(pNew, vs![i]!, { batchB: true })), asking[i]!);
    });
    return concat(outs, 0, last ? 'P' : 'T');
  });
  outputs['out'] = head(config, weights, states);
  return graph.emit(outputs);
}
