/**
 * The arithmetic around a graph whose matrices carry gains and factors: W' = f W diag(g). Sums of gradients over micro-batches, the way back to the
 * gradients of W and g by the product rule, and W' itself. In float32, but gradients of gains are added up in float64; knows nothing of models.
 */
import { Arithmetic, LINE_NUMBERS } from './arithmetic.ts';
import type { Row } from './arithmetic.ts';

/** A matrix W [O, I] of a graph. Arrays are row-major. */
export interface FoldedPart {
  weight: Float32Array;
  /** g, of length I. */
  gain: Float32Array | undefined;
  factor: number;
  /** I. */
  inputs: number;
  /** Whether the graph holds the transpose of W', [I, O]. */
  transposed: boolean;
}

/** Where W', or its transpose, is written. */
export interface FoldOrder extends FoldedPart {
  matrix: Float32Array;
}

const outputsOf = ({ weight, inputs }: FoldedPart) => weight.length / inputs;
const hasTiles = (part: FoldedPart) => part.transposed && Arithmetic.hasTiles(outputsOf(part), part.inputs);

/** f g, the factor on each column; undefined where it is 1. */
function columnFactors({ gain, factor, inputs }: FoldedPart): Float32Array | undefined {
  if (gain !== undefined) return gain.map((g) => Math.fround(factor) * g);
  return factor === 1 ? undefined : new Float32Array(inputs).fill(factor);
}

/** W' = f W diag(g), in any memory; the same bytes as `fold` writes. */
export function foldPart(order: FoldOrder): void {
  const { weight, inputs, transposed, matrix } = order;
  const factors = columnFactors(order);
  if (!transposed && !factors) return matrix.set(weight);
  const f = factors ?? new Float32Array(inputs).fill(1);
  const outputs = outputsOf(order);
  const [down, across] = transposed ? [1, outputs] : [inputs, 1];
  // A few columns at a time where they become rows, so that every line of the cache is written while it is near.
  const width = transposed ? LINE_NUMBERS : inputs;
  for (let from = 0; from < inputs; from += width) {
    const end = Math.min(inputs, from + width);
    for (let o = 0; o < outputs; o++) for (let i = from; i < end; i++) matrix[o * down + i * across] = weight[o * inputs + i]! * f[i]!;
  }
}

/** W' = f W diag(g), in the memory of `arithmetic`. */
export function fold(order: FoldOrder, arithmetic: Arithmetic): void {
  if (hasTiles(order)) arithmetic.foldTiles(order);
  else foldPart(order);
}

/** How a gradient of W' becomes one of W. */
export interface Unfolding extends FoldedPart {
  /** To which dg is added; none where gains are not trained. */
  gainGradient: Float64Array | undefined;
  /** Whether dg begins here, at 0. */
  gainBegins: boolean;
  /** dW [O, I]: the sum of dW' itself, or an array of its own where that is transposed or `adds`. */
  into: Float32Array;
  /** Whether dW is added to what is there: to the gradient by another matrix of the same tensor. */
  adds: boolean;
}

/** dW = f dW' diag(g); dg_j += f sum_i dW'_ij W_ij. */
function unfold(sum: Float32Array, unfolding: Unfolding, arithmetic: Arithmetic): void {
  const { weight, gain, inputs, transposed, gainGradient, into, adds } = unfolding;
  if (hasTiles(unfolding)) return arithmetic.unfoldTiles(sum, unfolding);
  const factors = columnFactors(unfolding);
  if (!factors && into === sum) return;
  const f = factors ?? new Float32Array(inputs).fill(1);
  const dg = gain === undefined ? undefined : gainGradient;
  const [down, across] = transposed ? [1, outputsOf(unfolding)] : [inputs, 1];
  for (let row = 0, at = 0; at < weight.length; row += down) {
    for (let i = 0, from = row; i < inputs; i++, at++, from += across) {
      const d = sum[from]!;
      if (dg) dg[i]! += unfolding.factor * d * weight[at]!;
      into[at] = adds ? into[at]! + Math.fround(d * f[i]!) : d * f[i]!;
    }
  }
}

/** Adds gradients of micro-batches to the sum of one matrix, and after the last ones unfolds it. */
export interface SumOrder {
  sum: Float32Array;
  /** What the slots, in which micro-batches leave their gradients, have of this matrix. */
  slots: Row;
  /** Adds the micro-batches `from` (the first one of a step begins at 0) to `to`, without the latter; micro-batch i is in slot i modulo the number of slots. */
  from: number;
  to: number;
  unfolding: Unfolding | undefined;
}

function sumAndUnfold({ sum, slots, from, to, unfolding }: SumOrder, arithmetic: Arithmetic): void {
  for (let at = from; at < to;) {
    const slot = at % slots.count;
    const count = Math.min(to - at, slots.count - slot);
    arithmetic.sum(sum, slots, slot, count, at === 0);
    at += count;
  }
  if (!unfolding) return;
  if (unfolding.gainBegins) unfolding.gainGradient?.fill(0);
  unfold(sum, unfolding, arithmetic);
}

/** What is done with one share of the gradients: matrices of one tensor or under one gain are never in different ones. */
export interface ShareOrder {
  matrices: SumOrder[];
  /** After them: gradients of gains that are complete, rounded to float32. */
  gains: { from: Float64Array; to: Float32Array }[];
  /** At last: the sum of the squares of a gradient, into the only place of `into`. */
  squares: { gradient: Float32Array; into: Float64Array }[];
}

export function sumShare({ matrices, gains, squares }: ShareOrder, arithmetic: Arithmetic): void {
  for (const order of matrices) sumAndUnfold(order, arithmetic);
  for (const { from, to } of gains) to.set(from);
  for (const { gradient, into } of squares) into[0] = arithmetic.squares(gradient);
}
