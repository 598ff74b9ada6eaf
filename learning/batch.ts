/**
 * Packing: trees of tokens become rows of one length, several trees to a row, kept apart by a mask, first fit in the given order; the layout depends on
 * the trees alone. Before that the trees of one step are cut into micro-batches of like length. The trees of different steps are never sorted by length: it
 * predicts outcomes, so a step of long episodes only would mislead training.
 */
import { badInput } from '../core/errors.ts';
import type { Feed } from './lanes/lane.ts';
import type { Read, TokenTree } from './types.ts';

/** What is added to attention scores that must not count. exp of it is 0 in float32. */
export const MASKED = -1e9;
/** Rows are as long as the longest tree, rounded up to this, so that few different shapes occur; a multiple of CHUNKS. */
const ROW_MULTIPLE = 16;
/** Attention takes the queries of a row in this many chunks, each with the keys up to its own end. */
export const CHUNKS = 4;
export const maskName = (chunk: number) => `mask${chunk}`;

/** Int64 tensors from small non-negative integers, without making a BigInt of each: the low words are written (little-endian, as ONNX Runtime needs). */
export function int64(values: ArrayLike<number>): BigInt64Array {
  const out = new BigInt64Array(values.length);
  const words = new Int32Array(out.buffer);
  for (let i = 0; i < values.length; i++) words[2 * i] = values[i]!;
  return out;
}
export const indexFeed = (values: ArrayLike<number>): Feed => ({ data: int64(values), dims: [values.length] });
export const floatFeed = (values: ArrayLike<number>): Feed => ({ data: Float32Array.from(values), dims: [values.length] });

/** Depths of the nodes (roots: 0). Refuses trees that are not well formed; `field` names the tree in the message. */
export function depthsOf(tree: TokenTree, field: string): Int32Array {
  const { ids, parents } = tree;
  if (ids.length === 0 || ids.length !== parents.length)
    throw badInput(field, `${ids.length} ids, ${parents.length} parents`, 'as many of both, at least one');
  const depths = new Int32Array(ids.length);
  for (let i = 0; i < ids.length; i++) {
    const parent = parents[i]!;
    if (!Number.isInteger(parent) || parent < -1 || parent >= i)
      throw badInput(`${field}.parents[${i}]`, parent, `-1 or a node before ${i}`);
    depths[i] = parent < 0 ? 0 : depths[parent]! + 1;
  }
  return depths;
}

/**
 * Cuts what one step learns from into at most `count` micro-batches of about as many tokens each, the longest trees first: those of a micro-batch are about as
 * long, so that little is padded, and the last ones, for which a lane may have to wait, are no larger than others. The step's gradient is a sum and stays
 * the same up to its last bits.
 */
export function microBatches<T>(items: readonly T[], count: number, lengthOf: (item: T) => number): T[][] {
  const tokens = items.reduce((sum, item) => sum + lengthOf(item), 0);
  const parts = Array.from({ length: count }, (): T[] => []);
  let before = 0;
  for (const item of items.toSorted((a, b) => lengthOf(b) - lengthOf(a))) {
    const length = lengthOf(item);
    parts[Math.min(count - 1, Math.floor(((before + length / 2) / tokens) * count))]!.push(item);
    before += length;
  }
  return parts.filter((part) => part.length > 0);
}

/** A packed batch. Rows are time-major: node (row r, place t) has the index t * R + r. */
export interface Packed {
  rows: number;
  length: number;
  /** ids [T*R], positions [T, R], and for chunk c of H = T / CHUNKS queries a mask [R, 1, H, (c + 1) H] (0 or MASKED). */
  feeds: Record<string, Feed>;
  /** Index of a node among the T*R; BadInput if there is no such node. */
  place(read: Read): number;
}

export function pack(trees: TokenTree[], limits: { vocabulary: number; context: number }): Packed {
  if (trees.length === 0) throw badInput('trees', [], 'at least one tree');
  const depths = trees.map((tree, i) => depthsOf(tree, `trees[${i}]`));
  const longest = Math.max(...trees.map((tree) => tree.ids.length));
  const length = Math.ceil(longest / ROW_MULTIPLE) * ROW_MULTIPLE;
  const filled: number[] = [];
  const starts = trees.map(({ ids }) => {
    let row = filled.findIndex((used) => used + ids.length <= length);
    if (row < 0) row = filled.push(0) - 1;
    const start = filled[row]!;
    filled[row] = start + ids.length;
    return { row, start };
  });
  const rows = filled.length;
  const ids = new Int32Array(length * rows);
  const positions = new Int32Array(length * rows);
  const chunk = length / CHUNKS;
  const masks = Array.from({ length: CHUNKS }, (_, c) => new Float32Array(rows * chunk * (c + 1) * chunk).fill(MASKED));
  /** What place `t` of a row sees: one number for each key up to the end of its chunk. */
  const line = (row: number, t: number): Float32Array => {
    const c = Math.floor(t / chunk);
    const width = (c + 1) * chunk;
    return masks[c]!.subarray((row * chunk + (t % chunk)) * width, (row * chunk + (t % chunk) + 1) * width);
  };
  trees.forEach((tree, i) => {
    const { row, start } = starts[i]!;
    for (let node = 0; node < tree.ids.length; node++) {
      const id = tree.ids[node]!;
      if (!Number.isInteger(id) || id < 0 || id >= limits.vocabulary)
        throw badInput(`trees[${i}].ids[${node}]`, id, `below ${limits.vocabulary}`);
      const depth = depths[i]![node]!;
      if (depth >= limits.context) throw badInput(`trees[${i}]`, `depth ${depth + 1}`, `the model reads at most ${limits.context} tokens`);
      const t = start + node;
      ids[t * rows + row] = id;
      positions[t * rows + row] = depth;
      // A node sees what its parent sees, and itself.
      const parent = tree.parents[node]!;
      const own = line(row, t);
      if (parent >= 0) own.set(line(row, start + parent).subarray(start, start + parent + 1), start);
      own[t] = 0;
    }
  });
  // Padding reads itself alone: a row of nothing but masked scores would average over everything.
  for (let row = 0; row < rows; row++) for (let t = filled[row]!; t < length; t++) line(row, t)[t] = 0;
  return {
    rows,
    length,
    feeds: {
      ids: indexFeed(ids),
      positions: { data: int64(positions), dims: [length, rows] },
      ...Object.fromEntries(masks.map((data, c) => [maskName(c), { data, dims: [rows, 1, chunk, (c + 1) * chunk] }])),
    },
    place({ tree, node }) {
      const at = starts[tree];
      if (!at || !(node >= 0 && node < trees[tree]!.ids.length)) throw badInput('read', { tree, node }, 'a node of one of the trees');
      return (at.start + node) * rows + at.row;
    },
  };
}
