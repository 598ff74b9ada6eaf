/**
 * Packing: trees of tokens become rows of one length, several trees to a row, kept apart by a mask, first fit in the given order; the layout depends on
 * the trees alone. In ragged batches only attention sees rows; all else is computed for the nodes, without padding, and the last layer for the reads. Before
 * that the trees of one step are cut into micro-batches of like length. The trees of different steps are never sorted by length: it predicts outcomes, so a
 * step of long episodes only would mislead training.
 */
import { badInput } from '../core/errors.ts';
import type { Feed } from './lanes/lane.ts';
import type { Read, TokenTree } from './types.ts';

/** What is added to attention scores that must not count. exp of it is 0 in float32. */
export const MASKED = -1e9;
/** Rows are as long as the longest tree, rounded up to this, so that few different shapes occur; a multiple of CHUNKS. */
const ROW_MULTIPLE = 16;
/** Batches with less of their rows filled, or fewer of their nodes read, are ragged. Full ones are not, because taking nodes out of rows costs 3 % of a micro-batch. */
const LEAST_FILLED = 15 / 16;
const LEAST_READ = 1 / 2;
/** Attention takes the queries of a row in this many chunks, each with the keys up to its own end. */
export const CHUNKS = 4;
export const maskName = (chunk: number) => `mask${chunk}`;
export const readMaskName = (chunk: number) => `readMask${chunk}`;

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
 * Cuts what one step learns from into micro-batches of about as many tokens each, a `count`-th of all, the longest trees first: those of a micro-batch are about
 * as long, so that little is padded. The last quarter of them is cut in halves: cores are seldom equally fast, and a lane that is done waits for the end of
 * another's last micro-batch. The step's gradient is a sum and stays the same up to its last bits.
 */
export function microBatches<T>(items: readonly T[], count: number, lengthOf: (item: T) => number): T[][] {
  const tokens = items.reduce((sum, item) => sum + lengthOf(item), 0);
  const halved = Math.floor(count / 4);
  const whole = count - halved;
  const parts = Array.from({ length: whole + 2 * halved }, (): T[] => []);
  let before = 0;
  for (const item of items.toSorted((a, b) => lengthOf(b) - lengthOf(a))) {
    const length = lengthOf(item);
    const middle = ((before + length / 2) / tokens) * count;
    const part = middle < whole ? Math.floor(middle) : whole + Math.floor(2 * (middle - whole));
    parts[Math.min(parts.length - 1, part)]!.push(item);
    before += length;
  }
  return parts.filter((part) => part.length > 0);
}

/** Which row and place each tree begins at, and how much of each row is filled. */
interface Layout {
  rows: number;
  length: number;
  starts: { row: number; start: number }[];
  filled: number[];
}

function layoutOf(trees: readonly TokenTree[]): Layout {
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
  return { rows: filled.length, length, starts, filled };
}

/** Whether so much of the rows would be padding, or so little is read, that `pack` should make a ragged batch. */
export function isRagged(trees: readonly TokenTree[], reads: readonly Read[]): boolean {
  const { rows, length, filled } = layoutOf(trees);
  const nodes = filled.reduce((sum, used) => sum + used, 0);
  return nodes < LEAST_FILLED * length * rows || reads.length < LEAST_READ * nodes;
}

/** A packed batch. Rows are time-major: place t of row r has the number t * R + r. */
export interface Packed {
  rows: number;
  length: number;
  /** What `treeStates` is fed. */
  feeds: Record<string, Feed>;
}

/** BadInput names the tree or the read that is wrong. Where nothing is read, the first node is: empty tensors are not for every kernel. */
export function pack(
  trees: readonly TokenTree[],
  reads: readonly Read[],
  limits: { vocabulary: number; context: number },
  ragged: boolean,
): Packed {
  if (trees.length === 0) throw badInput('trees', [], 'at least one tree');
  const depths = trees.map((tree, i) => depthsOf(tree, `trees[${i}]`));
  const layout = layoutOf(trees);
  const { rows, length, starts, filled } = layout;
  const ids = new Int32Array(length * rows);
  const positions = new Int32Array(length * rows);
  const masks = rowMasks(rows, length);
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
      const own = masks.line(row, t);
      if (parent >= 0) own.set(masks.line(row, start + parent).subarray(start, start + parent + 1), start);
      own[t] = 0;
    }
  });
  // Padding reads itself alone: a row of nothing but masked scores would average over everything.
  for (let row = 0; row < rows; row++) for (let t = filled[row]!; t < length; t++) masks.line(row, t)[t] = 0;
  const asked = (reads.length > 0 ? reads : [{ tree: 0, node: 0 }]).map(({ tree, node }) => {
    const at = starts[tree];
    if (!at || !(node >= 0 && node < trees[tree]!.ids.length)) throw badInput('read', { tree, node }, 'a node of one of the trees');
    return { row: at.row, t: at.start + node };
  });
  const feeds = ragged
    ? { ...nodeFeeds(layout, ids, positions, asked), ...queryFeeds(layout, masks, asked) }
    : {
        ids: indexFeed(ids),
        positions: { data: int64(positions), dims: [length, rows] },
        reads: indexFeed(asked.map(({ row, t }) => t * rows + row)),
      };
  return { rows, length, feeds: { ...masks.feeds, ...feeds } };
}

/** A read, by its row and place. */
interface Asked {
  row: number;
  t: number;
}

/** The masks of all chunks, nothing seen yet. `line`: what place t of a row sees, a number for each key up to the end of its chunk. */
function rowMasks(rows: number, length: number) {
  const chunk = length / CHUNKS;
  const masks = Array.from({ length: CHUNKS }, (_, c) => new Float32Array(rows * chunk * (c + 1) * chunk).fill(MASKED));
  return {
    chunk,
    feeds: Object.fromEntries(masks.map((data, c): [string, Feed] => [maskName(c), { data, dims: [rows, 1, chunk, (c + 1) * chunk] }])),
    line(row: number, t: number): Float32Array {
      const c = Math.floor(t / chunk);
      const width = (c + 1) * chunk;
      const at = (row * chunk + (t % chunk)) * width;
      return masks[c]!.subarray(at, at + width);
    },
  };
}

/** The nodes alone, in the order of their places: ids [N], positions [N, 1], reads [P] among them, `places` [N], and `nodes` [T, R] that places show (padding: 0). */
function nodeFeeds({ rows, length, filled }: Layout, ids: Int32Array, positions: Int32Array, asked: readonly Asked[]) {
  const places: number[] = [];
  const nodes = new Int32Array(length * rows);
  for (let place = 0; place < nodes.length; place++)
    if (Math.floor(place / rows) < filled[place % rows]!) nodes[place] = places.push(place) - 1;
  return {
    ids: indexFeed(places.map((place) => ids[place]!)),
    positions: { data: int64(places.map((place) => positions[place]!)), dims: [places.length, 1] },
    reads: indexFeed(asked.map(({ row, t }) => nodes[t * rows + row]!)),
    places: indexFeed(places),
    nodes: { data: int64(nodes), dims: [length, rows] },
  };
}

/**
 * The reads in rows of their own, chunk by chunk, U_c (at least 1) in chunk c and U in all: `queries` [U, R] says which read a place shows (padding: 0),
 * `queryPlaces` [P] where each is, and what they see stands in masks [R, 1, U_c, (c + 1) H].
 */
function queryFeeds({ rows }: Layout, { chunk, line }: ReturnType<typeof rowMasks>, asked: readonly Asked[]) {
  const lists = Array.from({ length: CHUNKS }, () => Array.from({ length: rows }, (): number[] => []));
  asked.forEach(({ row, t }, read) => lists[Math.floor(t / chunk)]![row]!.push(read));
  const widths = lists.map((ofRows) => Math.max(1, ...ofRows.map((list) => list.length)));
  const total = widths.reduce((sum, width) => sum + width, 0);
  const queries = new Int32Array(total * rows);
  const queryPlaces = new Int32Array(asked.length);
  const masks: Record<string, Feed> = {};
  let before = 0;
  lists.forEach((ofRows, c) => {
    const [width, keys] = [widths[c]!, (c + 1) * chunk];
    const mask = new Float32Array(rows * width * keys).fill(MASKED);
    ofRows.forEach((list, row) =>
      list.forEach((read, j) => {
        const place = (before + j) * rows + row;
        queries[place] = read;
        queryPlaces[read] = place;
        mask.set(line(row, asked[read]!.t), (row * width + j) * keys);
      }),
    );
    masks[readMaskName(c)] = { data: mask, dims: [rows, 1, width, keys] };
    before += width;
  });
  return { queries: { data: int64(queries), dims: [total, rows] }, queryPlaces: indexFeed(queryPlaces), ...masks };
}
