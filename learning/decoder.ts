/**
 * Batched decoding with a key/value cache. Every row's cache is memory of its own, shared with the lanes, which read it while this thread writes it; a run
 * takes several rows of any lengths and computes no padding. What a row gives depends on the calls alone, not on the lanes.
 */
import { badInput } from '../core/errors.ts';
import { MASKED, depthsOf, indexFeed, int64 } from './batch.ts';
import { folded } from './fold.ts';
import { openLanes, sharedFloats } from './lanes/lane.ts';
import type { Feed, Lane } from './lanes/lane.ts';
import { decodeGraph, decodeNames } from './llama.ts';
import { parameterCount, readingBytes, requireMemory, showParameters } from './memory.ts';
import { checkModel } from './model.ts';
import type { Append, Decoder, LlamaConfig, Model } from './types.ts';

/** Rows of a run: the smallest of these that is enough. An idle slot costs some time, and each number has a session of its own, made when first needed. */
const SLOTS = [1, 4, 16];
const MOST_SLOTS = SLOTS.at(-1)!;
/** Tokens of a run, unless one row alone has more: what a run holds grows with them. Turns of an agent stay below; long prompts do not. */
const MOST_TOKENS = 2048;
const slotsFor = (rows: number) => SLOTS.find((slots) => slots >= rows) ?? MOST_SLOTS;
const sessionName = (slots: number) => `decode ${slots}`;

/** An append with its tree resolved. */
interface Task {
  append: Append;
  parents: number[];
  depths: Int32Array;
}

/** Memory for a row's path: per layer, keys and values, each [context, key/value heads, head size]. */
type Cache = { keys: Float32Array; values: Float32Array }[];

class LlamaDecoder implements Decoder {
  readonly rows: number;
  readonly #config: LlamaConfig;
  readonly #context: number;
  readonly #lanes: Lane[];
  readonly #weights: Map<string, Float32Array>;
  readonly #sessions = new Map<number, Promise<unknown>>();
  /** Made when a row first keeps something. */
  readonly #caches: (Cache | undefined)[];
  readonly #lengths: Int32Array;
  /** Numbers per token in a cache. */
  readonly #width: number;
  /** Stands for the cache of a row that has none. */
  readonly #nothing: Float32Array;

  constructor(model: Model, rows: number, context: number, lanes: Lane[]) {
    this.rows = rows;
    this.#config = model.config;
    this.#context = context;
    this.#lanes = lanes;
    this.#weights = folded(model.config, model.tensors);
    this.#caches = new Array<Cache | undefined>(rows).fill(undefined);
    this.#lengths = new Int32Array(rows);
    this.#width = model.config.num_key_value_heads * model.config.head_dim;
    this.#nothing = sharedFloats(this.#width);
  }

  #cache(row: number): Cache {
    const size = this.#context * this.#width;
    const memory = () => {
      const all = new SharedArrayBuffer(this.#config.num_hidden_layers * 2 * size * 4); // one buffer: each is work for the lanes to take over
      const part = (i: number) => new Float32Array(all, i * size * 4, size);
      return Array.from({ length: this.#config.num_hidden_layers }, (_, layer) => ({ keys: part(2 * layer), values: part(2 * layer + 1) }));
    };
    return (this.#caches[row] ??= memory());
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
    return { append, parents, depths };
  }

  async step(appends: Append[]): Promise<Float32Array[]> {
    const tasks = appends.map((append, order) => this.#check(append, order));
    if (new Set(appends.map(({ row }) => row)).size !== appends.length)
      throw badInput(
        'appends',
        appends.map(({ row }) => row),
        'distinct rows',
      );
    const runs: Task[][] = [];
    let tokens = Infinity;
    for (const task of tasks) {
      tokens += task.parents.length;
      if (tokens > MOST_TOKENS || runs.at(-1)!.length === MOST_SLOTS) {
        runs.push([]);
        tokens = task.parents.length;
      }
      runs.at(-1)!.push(task);
    }
    for (const run of runs) await this.#session(slotsFor(run.length));
    // All runs come to rest before a failure is passed on: the lanes read memory that this object owns.
    const results = await Promise.allSettled(
      runs.map(async (run, i) => {
        const lane = this.#lanes[i % this.#lanes.length]!;
        return this.#take(run, await lane.run(sessionName(slotsFor(run.length)), this.#feeds(run)));
      }),
    );
    for (const result of results) if (result.status === 'rejected') throw result.reason;
    for (const { row, keep } of appends) this.#lengths[row]! += keep;
    return results.flatMap((result) => (result.status === 'fulfilled' ? result.value : []));
  }

  /** Loads the session for this many slots unless that has been done. */
  #session(slots: number): Promise<unknown> {
    let session = this.#sessions.get(slots);
    if (!session) {
      const bytes = decodeGraph(this.#config, slots, this.#weights);
      session = Promise.all(this.#lanes.map((lane) => lane.load(sessionName(slots), bytes))).then(() => {
        (bytes.buffer as ArrayBuffer).transfer(0); // as large as the model, and of no more use
      });
      this.#sessions.set(slots, session);
    }
    return session;
  }

  /** What the decoding graph is fed for some rows; slots that are left over are given one token that nobody asked for. */
  #feeds(run: Task[]): Record<string, Feed> {
    const ids: number[] = [];
    const positions: number[] = [];
    const reads: number[] = [];
    const slots = slotsFor(run.length);
    const uncached = new Float32Array(slots);
    const feeds: Record<string, Feed> = {};
    for (let slot = 0; slot < slots; slot++) {
      const task = run[slot];
      const length = task ? this.#lengths[task.append.row]! : 0;
      const mask = task ? maskOf(task.parents) : new Float32Array(1);
      const T = task ? task.parents.length : 1;
      const asked = task && task.append.reads.length > 0 ? task.append.reads : [0];
      const readMask = new Float32Array(asked.length * T);
      asked.forEach((node, i) => readMask.set(mask.subarray(node * T, (node + 1) * T), i * T));
      for (const node of asked) reads.push(ids.length + node);
      for (let t = 0; t < T; t++) {
        ids.push(task ? task.append.ids[t]! : 0);
        positions.push(length + (task ? task.depths[t]! : 0));
      }
      feeds[decodeNames.mask(slot)] = { data: mask, dims: [1, 1, T, T] };
      feeds[decodeNames.readMask(slot)] = { data: readMask, dims: [1, 1, asked.length, T] };
      const cache = length > 0 ? this.#cache(task!.append.row) : undefined;
      if (!cache) uncached[slot] = MASKED;
      const dims = [Math.max(1, length), 1, this.#config.num_key_value_heads, this.#config.head_dim];
      for (let layer = 0; layer < this.#config.num_hidden_layers; layer++) {
        const part = (memory: Float32Array | undefined) => ({ data: memory?.subarray(0, length * this.#width) ?? this.#nothing, dims });
        feeds[decodeNames.keys(layer, slot)] = part(cache?.[layer]!.keys);
        feeds[decodeNames.values(layer, slot)] = part(cache?.[layer]!.values);
      }
    }
    return {
      ...feeds,
      ids: indexFeed(ids),
      positions: { data: int64(positions), dims: [positions.length, 1] },
      reads: indexFeed(reads),
      uncached: { data: uncached, dims: [slots] },
    };
  }

  /**
   * Writes the tokens that join the rows' paths behind them, and returns the head's outputs. The results are given back at once: left to the collector,
   * those of many steps would be held.
   */
  #take(run: Task[], results: Record<string, Float32Array>): Float32Array[] {
    const asked = run.map(({ append }) => Math.max(1, append.reads.length));
    const idle = slotsFor(run.length) - run.length; // slots that nobody asked for have an output each, too
    const out = results['out']!;
    const width = out.length / (asked.reduce((a, b) => a + b, 0) + idle);
    const outputs: Float32Array[] = [];
    let [token, read] = [0, 0];
    run.forEach(({ append: { row, ids, reads, keep } }, i) => {
      reads.forEach((_, j) => outputs.push(out.slice((read + j) * width, (read + j + 1) * width)));
      if (keep > 0) {
        const [from, to, at] = [token * this.#width, (token + keep) * this.#width, this.#lengths[row]! * this.#width];
        this.#cache(row).forEach(({ keys, values }, layer) => {
          keys.set(results[decodeNames.newKeys(layer)]!.subarray(from, to), at);
          values.set(results[decodeNames.newValues(layer)]!.subarray(from, to), at);
        });
      }
      token += ids.length;
      read += asked[i]!;
    });
    for (const { buffer } of Object.values(results)) (buffer as ArrayBuffer).transfer(0);
    return outputs;
  }

  length(row: number): number {
    this.#checkRow(row);
    return this.#lengths[row]!;
  }

  clear(row: number): void {
    this.#checkRow(row);
    this.#lengths[row] = 0;
  }

  truncate(row: number, length: number): void {
    this.#checkRow(row);
    const most = this.#lengths[row]!;
    if (!Number.isInteger(length) || length < 0 || length > most) throw badInput('length', length, `0 to ${most}, what row ${row} has`);
    this.#lengths[row] = length;
  }

  copy(from: number, to: number): void {
    this.#checkRow(from);
    this.#checkRow(to);
    if (from === to) return;
    const length = this.#lengths[from]!;
    this.#lengths[to] = length;
    if (length === 0) return;
    const target = this.#cache(to);
    this.#cache(from).forEach(({ keys, values }, layer) => {
      target[layer]!.keys.set(keys.subarray(0, length * this.#width));
      target[layer]!.values.set(values.subarray(0, length * this.#width));
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.close()));
  }
}

/** Which new tokens each new token sees, [T, T] of 0 or MASKED: its ancestors and itself. */
function maskOf(parents: number[]): Float32Array {
  const T = parents.length;
  const mask = new Float32Array(T * T).fill(MASKED);
  parents.forEach((parent, t) => {
    if (parent >= 0) mask.copyWithin(t * T, parent * T, parent * T + parent + 1);
    mask[t * T + t] = 0;
  });
  return mask;
}

/** A decoder for `rows` sequences of at most `context` tokens each. BadInput for a model that is not well formed or reads less than `context`. */
export async function createDecoder(model: Model, options: { rows: number; context: number; lanes?: number }): Promise<Decoder> {
  const { rows, context, lanes = 1 } = options;
  checkModel(model.config, model.tensors);
  if (!Number.isInteger(rows) || rows < 1) throw badInput('rows', rows, 'a whole number of at least 1');
  const most = model.config.max_position_embeddings;
  if (!Number.isInteger(context) || context < 1 || context > most)
    throw badInput('context', context, `1 to ${most}, what the model can read`);
  const parameters = parameterCount(model.tensors);
  requireMemory(`decoding with ${showParameters(parameters)}`, readingBytes(parameters));
  return new LlamaDecoder(model, rows, context, await openLanes(lanes, (lane) => lane.ready()));
}
