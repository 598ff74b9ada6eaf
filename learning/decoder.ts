/**
 * Batched decoding with a key/value cache. The caches of a few rows lie together in a block and are read by one run; rows move together as others are
 * cleared, so that no run is half empty. Caches are shared memory, time-major [tokens, rows of the block, heads, head size], so that any number of first
 * tokens is contiguous; the lanes read them and this thread writes them. What a row gives depends on the calls alone, not on the lanes.
 */
import { badInput } from '../core/errors.ts';
import { MASKED, depthsOf, indexFeed, int64 } from './batch.ts';
import { folded } from './fold.ts';
import { openLanes } from './lanes/lane.ts';
import type { Feed, Lane } from './lanes/lane.ts';
import { cacheNames, decodeGraph } from './llama.ts';
import { checkModel } from './model.ts';
import type { Append, Decoder, LlamaConfig, Model } from './types.ts';

/** Rows of a block, and of a run, at most: their tensors fit in a core's cache (16 and 64 are equally fast for 0.5 M parameters, 8 is slower). */
const MOST_BLOCK_ROWS = 16;
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

/** Tasks that are run together: each at a place among `rows`, on the caches of a block (or on none: rows that have no path yet). */
interface Run {
  tasks: { task: Task; place: number }[];
  rows: number;
  block: Block | undefined;
}

/** Memory for the paths of a block's rows: per layer, keys and values. */
type Block = { keys: Float32Array; values: Float32Array }[];

class LlamaDecoder implements Decoder {
  readonly rows: number;
  readonly #config: LlamaConfig;
  readonly #context: number;
  readonly #lanes: Lane[];
  readonly #blockRows: number;
  readonly #blocks: Block[] = [];
  readonly #lengths: Int32Array;
  /** Where a row's path lies: block times rows of a block plus place, or -1 while it has none. */
  readonly #homes: Int32Array;
  /** Numbers per token and row in a cache. */
  readonly #width: number;

  constructor(model: Model, rows: number, context: number, lanes: Lane[]) {
    this.rows = rows;
    this.#config = model.config;
    this.#context = context;
    this.#lanes = lanes;
    this.#blockRows = Math.min(MOST_BLOCK_ROWS, rows);
    this.#lengths = new Int32Array(rows);
    this.#homes = new Int32Array(rows).fill(-1);
    this.#width = model.config.num_key_value_heads * model.config.head_dim;
  }

  /** The free place with the lowest number; blocks are made when they are first needed. */
  #freeHome(): number {
    const taken = new Set(this.#homes);
    let home = 0;
    while (taken.has(home)) home++;
    if (home >= this.#blocks.length * this.#blockRows) {
      const memory = () => new Float32Array(new SharedArrayBuffer(this.#context * this.#blockRows * this.#width * 4));
      this.#blocks.push(Array.from({ length: this.#config.num_hidden_layers }, () => ({ keys: memory(), values: memory() })));
    }
    return home;
  }

  /** Copies the first `length` tokens of one place to another. */
  #copyPath(from: number, to: number, length: number): void {
    const width = this.#width;
    const target = this.#blocks[Math.floor(to / this.#blockRows)]!;
    this.#blocks[Math.floor(from / this.#blockRows)]!.forEach((source, layer) => {
      for (const kind of ['keys', 'values'] as const) {
        for (let t = 0; t < length; t++) {
          const start = (t * this.#blockRows + (from % this.#blockRows)) * width;
          target[layer]![kind].set(source[kind].subarray(start, start + width), (t * this.#blockRows + (to % this.#blockRows)) * width);
        }
      }
    });
  }

  /** Moves rows out of the last blocks as long as all of them fit into fewer. */
  #compact(): void {
    const needed = Math.ceil(this.#homes.reduce((count, home) => count + (home >= 0 ? 1 : 0), 0) / this.#blockRows);
    this.#homes.forEach((home, row) => {
      if (home < needed * this.#blockRows) return;
      const to = this.#freeHome();
      this.#copyPath(home, to, this.#lengths[row]!);
      this.#homes[row] = to;
    });
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
    this.#compact();
    const outputs: Float32Array[][] = appends.map(() => []);
    const runs = this.#plan(tasks).map((run, i) => this.#run(run, this.#lanes[i % this.#lanes.length]!, outputs));
    // All runs come to rest before a failure is passed on: the lanes read memory that this object owns.
    const results = await Promise.allSettled(runs);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
    for (const result of results) if (result.status === 'fulfilled') result.value();
    return outputs.flat();
  }

  /** Rows with a path run by blocks. Those without one need no cache and are often fed a whole prompt, so they run among themselves. */
  #plan(tasks: Task[]): Run[] {
    const fresh = tasks.filter(({ append: { row } }) => this.#homes[row]! < 0);
    const runs: Run[] = [];
    for (let at = 0; at < fresh.length; at += this.#blockRows) {
      const part = fresh.slice(at, at + this.#blockRows);
      runs.push({ tasks: part.map((task, place) => ({ task, place })), rows: part.length, block: undefined });
    }
    this.#blocks.forEach((block, b) => {
      const mine = tasks.filter(({ append: { row } }) => Math.floor(this.#homes[row]! / this.#blockRows) === b);
      const placed = mine.map((task) => ({ task, place: this.#homes[task.append.row]! % this.#blockRows }));
      if (mine.length > 0) runs.push({ tasks: placed, rows: this.#blockRows, block });
    });
    return runs;
  }

  /** Runs some tasks, fills in their outputs, and returns what is left to do once all runs have succeeded: keeping the new tokens. */
  async #run({ tasks, rows, block }: Run, lane: Lane, outputs: Float32Array[][]): Promise<() => void> {
    const T = Math.max(...tasks.map(({ task }) => task.append.ids.length));
    const longest = Math.max(...tasks.map(({ task }) => this.#lengths[task.append.row]!));
    const C = block ? Math.min(this.#context, Math.ceil(longest / CACHE_MULTIPLE) * CACHE_MULTIPLE) : 1;
    const ids = new Int32Array(T * rows);
    const positions = new Int32Array(T * rows);
    const X = C + T;
    const mask = new Float32Array(rows * T * X).fill(MASKED);
    for (let row = 0; row < rows; row++) for (let t = 0; t < T; t++) mask[(row * T + t) * X + C + t] = 0;
    const reads: number[] = [];
    for (const { task, place } of tasks) {
      const { append, parents, depths } = task;
      const length = this.#lengths[append.row]!;
      append.ids.forEach((id, t) => {
        ids[t * rows + place] = id;
        positions[t * rows + place] = length + depths[t]!;
        const line = (place * T + t) * X;
        if (parents[t]! < 0) mask.fill(0, line, line + length);
        else {
          const above = (place * T + parents[t]!) * X;
          mask.copyWithin(line, above, above + C + parents[t]! + 1);
        }
      });
      for (const node of append.reads) reads.push(node * rows + place);
    }
    const feeds: Record<string, Feed> = {
      ids: indexFeed(ids),
      positions: { data: int64(positions), dims: [T, rows] },
      mask: { data: mask, dims: [rows, 1, T, X] },
      reads: indexFeed(reads.length ? reads : [0]),
    };
    const dims = [C, rows, this.#config.num_key_value_heads, this.#config.head_dim];
    const size = C * rows * this.#width;
    for (let layer = 0; layer < this.#config.num_hidden_layers; layer++) {
      const names = cacheNames(layer);
      feeds[names.keys] = { data: block ? block[layer]!.keys.subarray(0, size) : new Float32Array(size), dims };
      feeds[names.values] = { data: block ? block[layer]!.values.subarray(0, size) : new Float32Array(size), dims };
    }
    const results = await lane.run(SESSION, feeds);
    const out = results['out']!;
    const width = out.length / Math.max(1, reads.length);
    let next = 0;
    for (const { task } of tasks) {
      for (const _ of task.append.reads) outputs[task.order]!.push(out.slice(next * width, ++next * width));
    }
    return () => tasks.forEach(({ task, place }) => this.#keep(task.append, results, place, rows));
  }

  /** Writes the keys and values of an append's kept tokens (row `place` of the results' `rows`) at the end of its row's path. */
  #keep({ row, keep }: Append, results: Record<string, Float32Array>, place: number, rows: number): void {
    if (keep === 0) return;
    const home = this.#homes[row]! >= 0 ? this.#homes[row]! : (this.#homes[row] = this.#freeHome());
    const width = this.#width;
    const length = this.#lengths[row]!;
    this.#blocks[Math.floor(home / this.#blockRows)]!.forEach(({ keys, values }, layer) => {
      const names = cacheNames(layer);
      for (let t = 0; t < keep; t++) {
        const source = (t * rows + place) * width;
        const target = ((length + t) * this.#blockRows + (home % this.#blockRows)) * width;
        keys.set(results[names.newKeys]!.subarray(source, source + width), target);
        values.set(results[names.newValues]!.subarray(source, source + width), target);
      }
    });
    this.#lengths[row]! += keep;
  }

  length(row: number): number {
    this.#checkRow(row);
    return this.#lengths[row]!;
  }

  clear(row: number): void {
    this.#checkRow(row);
    this.#lengths[row] = 0;
    this.#homes[row] = -1;
  }

  copy(from: number, to: number): void {
    this.#checkRow(from);
    this.#checkRow(to);
    if (from === to) return;
    this.clear(to);
    if (this.#homes[from]! < 0) return;
    this.#homes[to] = this.#freeHome();
    this.#lengths[to] = this.#lengths[from]!;
    this.#copyPath(this.#homes[from]!, this.#homes[to]!, this.#lengths[from]!);
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
