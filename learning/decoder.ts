/**
 * Batched decoding with a key/value cache. Rows form fixed groups of a few (a group's tensors stay in a core's cache); a group runs as a whole, and a
 * row's result depends only on what its group was fed. Caches are shared memory, time-major [tokens, rows of the group, heads, head size], so that any
 * number of first tokens is contiguous; the lane reads them and this thread writes them.
 */
import { badInput } from '../core/errors.ts';
import { MASKED, depthsOf, indexFeed, int64 } from './batch.ts';
import { folded } from './fold.ts';
import { openLanes } from './lanes/lane.ts';
import type { Feed, Lane } from './lanes/lane.ts';
import { cacheNames, decodeGraph } from './llama.ts';
import { checkModel } from './model.ts';
import type { Append, Decoder, LlamaConfig, Model } from './types.ts';

/** Rows of a group. */
const GROUP_ROWS = 16;
/** The cached tokens that a run reads are a multiple of this, so that few different shapes occur. */
const CACHE_MULTIPLE = 16;
const SESSION = 'decode';

/** An append with its tree resolved. */
interface Task {
  append: Append;
  /** Its place in the caller's list. */
  order: number;
  parents: number[];
  depths: Int32Array;
}

class Group {
  readonly first: number;
  readonly rows: number;
  readonly lane: Lane;
  /** Per layer, keys then values. */
  readonly caches: { keys: Float32Array; values: Float32Array }[];

  constructor(first: number, rows: number, lane: Lane, config: LlamaConfig, context: number) {
    this.first = first;
    this.rows = rows;
    this.lane = lane;
    const size = context * rows * config.num_key_value_heads * config.head_dim;
    const memory = () => new Float32Array(new SharedArrayBuffer(size * 4));
    this.caches = Array.from({ length: config.num_hidden_layers }, () => ({ keys: memory(), values: memory() }));
  }
}

class LlamaDecoder implements Decoder {
  readonly rows: number;
  readonly #config: LlamaConfig;
  readonly #context: number;
  readonly #lanes: Lane[];
  readonly #groups: Group[] = [];
  readonly #lengths: Int32Array;
  /** Numbers per token and row in a cache. */
  readonly #width: number;

  constructor(model: Model, rows: number, context: number, lanes: Lane[]) {
    this.rows = rows;
    this.#config = model.config;
    this.#context = context;
    this.#lanes = lanes;
    this.#lengths = new Int32Array(rows);
    this.#width = model.config.num_key_value_heads * model.config.head_dim;
    for (let first = 0; first < rows; first += GROUP_ROWS) {
      const lane = lanes[(first / GROUP_ROWS) % lanes.length]!;
      this.#groups.push(new Group(first, Math.min(GROUP_ROWS, rows - first), lane, model.config, context));
    }
  }

  #checkRow(row: number): void {
    if (!Number.isInteger(row) || row < 0 || row >= this.rows) throw badInput('row', row, `0 to ${this.rows - 1}`);
  }

  #check(append: Append, order: number): Task {
    const field = `appends[${order}]`;
    const { row, ids, reads, keep } = append;
    this.#checkRow(row);
    const parents = append.parents ?? ids.map((_, i) => i - 1);
    const depths = depthsOf({ ids, parents }, field);
    const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= this.#config.vocab_size);
    if (wrong !== undefined) throw badInput(`${field}.ids`, wrong, `tokens below ${this.#config.vocab_size}`);
    const unread = reads.find((node) => !Number.isInteger(node) || node < 0 || node >= ids.length);
    if (unread !== undefined) throw badInput(`${field}.reads`, unread, `nodes below ${ids.length}`);
    if (!Number.isInteger(keep) || keep < 0 || keep > ids.length) throw badInput(`${field}.keep`, keep, `0 to ${ids.length}`);
    for (let i = 0; i < keep; i++) if (parents[i] !== i - 1) throw badInput(`${field}.keep`, keep, 'the kept tokens must be a chain');
    const deepest = this.#lengths[row]! + 1 + depths.reduce((a, b) => Math.max(a, b));
    if (deepest > this.#context)
      throw badInput(`${field}: length of row ${row}`, deepest, `the decoder holds ${this.#context} tokens a row`);
    return { append, order, parents, depths };
  }

  async step(appends: Append[]): Promise<Float32Array[]> {
    const tasks = appends.map((append, order) => this.#check(append, order));
    if (new Set(appends.map(({ row }) => row)).size !== appends.length)
      throw badInput(
        'appends',
        appends.map(({ row }) => row),
        'distinct rows',
      );
    const outputs: Float32Array[][] = appends.map(() => []);
    const runs = this.#groups.map(async (group) => {
      const mine = tasks.filter(({ append: { row } }) => row >= group.first && row < group.first + group.rows);
      if (mine.length > 0) await this.#run(group, mine, outputs);
    });
    // All groups come to rest before a failure is passed on: their lanes read memory that this object owns.
    for (const result of await Promise.allSettled(runs)) if (result.status === 'rejected') throw result.reason;
    for (const { append } of tasks) this.#lengths[append.row]! += append.keep;
    return outputs.flat();
  }

  async #run(group: Group, tasks: Task[], outputs: Float32Array[][]): Promise<void> {
    const { rows, first } = group;
    const T = Math.max(...tasks.map(({ append }) => append.ids.length));
    const longest = Math.max(...tasks.map(({ append }) => this.#lengths[append.row]!));
    const C = Math.min(this.#context, Math.max(1, Math.ceil(longest / CACHE_MULTIPLE)) * CACHE_MULTIPLE);
    const ids = new Int32Array(T * rows);
    const positions = new Int32Array(T * rows);
    const X = C + T;
    const mask = new Float32Array(rows * T * X).fill(MASKED);
    for (let row = 0; row < rows; row++) for (let t = 0; t < T; t++) mask[(row * T + t) * X + C + t] = 0;
    const reads: number[] = [];
    for (const { append, parents, depths } of tasks) {
      const row = append.row - first;
      const length = this.#lengths[append.row]!;
      append.ids.forEach((id, t) => {
        ids[t * rows + row] = id;
        positions[t * rows + row] = length + depths[t]!;
        const line = (row * T + t) * X;
        if (parents[t]! < 0) mask.fill(0, line, line + length);
        else {
          const above = (row * T + parents[t]!) * X;
          mask.copyWithin(line, above, above + C + parents[t]! + 1);
        }
      });
      for (const node of append.reads) reads.push(node * rows + row);
    }
    const feeds: Record<string, Feed> = {
      ids: indexFeed(ids),
      positions: { data: int64(positions), dims: [T, rows] },
      mask: { data: mask, dims: [rows, 1, T, X] },
      reads: indexFeed(reads.length ? reads : [0]),
    };
    const dims = [C, rows, this.#config.num_key_value_heads, this.#config.head_dim];
    const size = C * rows * this.#width;
    group.caches.forEach(({ keys, values }, layer) => {
      const names = cacheNames(layer);
      feeds[names.keys] = { data: keys.subarray(0, size), dims };
      feeds[names.values] = { data: values.subarray(0, size), dims };
    });
    const results = await group.lane.run(SESSION, feeds);
    this.#keep(group, tasks, results);
    const out = results['out']!;
    const width = out.length / Math.max(1, reads.length);
    let next = 0;
    for (const { append, order } of tasks) for (const _ of append.reads) outputs[order]!.push(out.slice(next * width, ++next * width));
  }

  /** Writes the keys and values of the kept tokens at the ends of their rows' paths. */
  #keep(group: Group, tasks: Task[], results: Record<string, Float32Array>): void {
    const width = this.#width;
    group.caches.forEach((cache, layer) => {
      const names = cacheNames(layer);
      for (const [into, from] of [
        [cache.keys, results[names.newKeys]!],
        [cache.values, results[names.newValues]!],
      ] as const) {
        for (const { append } of tasks) {
          const row = append.row - group.first;
          const length = this.#lengths[append.row]!;
          for (let t = 0; t < append.keep; t++) {
            const source = (t * group.rows + row) * width;
            into.set(from.subarray(source, source + width), ((length + t) * group.rows + row) * width);
          }
        }
      }
    });
  }

  length(row: number): number {
    this.#checkRow(row);
    return this.#lengths[row]!;
  }

  clear(row: number): void {
    this.#checkRow(row);
    this.#lengths[row] = 0;
  }

  copy(from: number, to: number): void {
    this.#checkRow(from);
    this.#checkRow(to);
    const width = this.#width;
    const [source, target] = [this.#groups[Math.floor(from / GROUP_ROWS)]!, this.#groups[Math.floor(to / GROUP_ROWS)]!];
    source.caches.forEach((cache, layer) => {
      const other = target.caches[layer]!;
      for (const kind of ['keys', 'values'] as const) {
        for (let t = 0; t < this.#lengths[from]!; t++) {
          const start = (t * source.rows + from - source.first) * width;
          other[kind].set(cache[kind].subarray(start, start + width), (t * target.rows + to - target.first) * width);
        }
      }
    });
    this.#lengths[to] = this.#lengths[from]!;
  }

  async close(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.close()));
  }
}

/** A decoder for `rows` sequences of at most `context` tokens each. BadInput for a model that is not well formed or reads less than `context`. */
export async function createDecoder(model: Model, options: { rows: number; context: number; lanes?: number }): Promise<Decoder> {
  const { rows, context, lanes = 1 } = options;
  checkModel(model.config, model.tensors);
  if (!Number.isInteger(rows) || rows < 1) throw badInput('rows', rows, 'a whole number of at least 1');
  const most = model.config.max_position_embeddings;
  if (!Number.isInteger(context) || context < 1 || context > most)
    throw badInput('context', context, `1 to ${most}, what the model can read`);
  const bytes = decodeGraph(model.config, folded(model.config, model.tensors));
  return new LlamaDecoder(model, rows, context, await openLanes(lanes, (lane) => lane.load(SESSION, bytes)));
}
