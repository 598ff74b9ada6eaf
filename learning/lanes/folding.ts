/**
 * The arithmetic around a graph whose matrices carry gains and factors: W' = f W diag(g). Sums of gradients over micro-batches, the way back to the
 * gradients of W and g by the product rule, and W' itself. Each is computed in double precision and kept in float32; runs on lanes, and knows nothing of models.
 */

/** A matrix W [O, I] of a graph. Arrays are row-major, and shared memory where a lane is to change them. */
export interface FoldedPart {
  weight: Float32Array;
  /** g, of length I. */
  gain: Float32Array | undefined;
  factor: number;
}

/** Where `foldPart` writes W'. */
export interface FoldOrder extends FoldedPart {
  matrix: Float32Array;
}

/** W' = f W diag(g). */
export function foldPart({ weight, gain, factor, matrix }: FoldOrder): void {
  if (gain !== undefined) {
    const width = gain.length;
    for (let i = 0; i < weight.length; i += width) for (let j = 0; j < width; j++) matrix[i + j] = weight[i + j]! * gain[j]!;
  } else if (factor !== 1) for (let i = 0; i < weight.length; i++) matrix[i] = weight[i]! * factor;
  else matrix.set(weight);
}

/** How many micro-batches' gradients are added in one pass over a sum. Part of the result: between passes the sum is rounded to float32. */
export const WAVE = 4;
/** Numbers of a sum that are worked on at a time, whole rows: what one pass wrote is still near the core when the next one reads it. */
const BLOCK = 4096;
const nothing = new Float32Array(0);

/** sum = 0 or `before`, + the gradients in their order, at most `WAVE`; in double precision, rounded once. */
function sumPart(sum: Float32Array, gradients: readonly Float32Array[], begins: boolean): void {
  const zeros = gradients.length < WAVE || begins ? new Float32Array(sum.length) : nothing;
  const before = begins ? zeros : sum;
  const [a = zeros, b = zeros, c = zeros, d = zeros] = gradients;
  for (let i = 0; i < sum.length; i++) sum[i] = before[i]! + a[i]! + b[i]! + c[i]! + d[i]!;
}

/** How a gradient of W' becomes one of W in place. */
export interface Unfolding extends FoldedPart {
  /** To which dg is added; none where gains are not trained. */
  gainGradient: Float64Array | undefined;
  /** Whether dg begins here, at 0. */
  gainBegins: boolean;
  /** The gradient of another matrix of the same tensor, to which this one is added. */
  into: Float32Array | undefined;
}

/** dW = f dW' diag(g); dg_j += f sum_i dW'_ij W_ij. */
function unfoldPart(gradient: Float32Array, { weight, gain, factor, gainGradient, into }: Unfolding): void {
  if (factor !== 1) for (let i = 0; i < gradient.length; i++) gradient[i]! *= factor;
  if (gain !== undefined) {
    const width = gain.length;
    for (let i = 0; i < gradient.length; i += width) {
      for (let j = 0; j < width; j++) {
        const d = gradient[i + j]!;
        if (gainGradient) gainGradient[j]! += d * weight[i + j]!;
        gradient[i + j] = d * gain[j]!;
      }
    }
  }
  if (into !== undefined) for (let i = 0; i < gradient.length; i++) into[i]! += gradient[i]!;
}

/** Adds gradients of micro-batches to the sum of one matrix, and after the last ones unfolds it. */
export interface SumOrder {
  sum: Float32Array;
  /** What is added, at most `WAVE` arrays at a time. */
  waves: Float32Array[][];
  /** Whether the sum begins here, at 0. */
  begins: boolean;
  unfolding: Unfolding | undefined;
}

function sumAndUnfold({ sum, waves, begins, unfolding }: SumOrder): void {
  if (unfolding?.gainBegins) unfolding.gainGradient?.fill(0);
  const width = unfolding?.gain?.length ?? 1;
  const step = Math.max(1, Math.floor(BLOCK / width)) * width;
  for (let from = 0; from < sum.length; from += step) {
    const part = <T extends Float32Array>(data: T) => data.subarray(from, from + step) as T;
    const own = part(sum);
    waves.forEach((wave, k) => sumPart(own, wave.map(part), begins && k === 0));
    if (unfolding) unfoldPart(own, { ...unfolding, weight: part(unfolding.weight), into: unfolding.into && part(unfolding.into) });
  }
}

/** The sum of the squares of all numbers, in double precision, as four sums that are added in the end. */
export function sumOfSquares(data: Float32Array): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  const even = data.length - (data.length % 4);
  for (let i = 0; i < even; i += 4) {
    a += data[i]! * data[i]!;
    b += data[i + 1]! * data[i + 1]!;
    c += data[i + 2]! * data[i + 2]!;
    d += data[i + 3]! * data[i + 3]!;
  }
  for (let i = even; i < data.length; i++) a += data[i]! * data[i]!;
  return a + b + (c + d);
}

/** What is done with one share of the gradients: matrices of one tensor or under one gain are never in different ones. */
export interface ShareOrder {
  matrices: SumOrder[];
  /** After them: gradients of gains that are complete, rounded to float32. */
  gains: { from: Float64Array; to: Float32Array }[];
  /** At last: the sum of the squares of a gradient, into the only place of `into`. */
  squares: { gradient: Float32Array; into: Float64Array }[];
}

export function sumShare({ matrices, gains, squares }: ShareOrder): void {
  matrices.forEach(sumAndUnfold);
  for (const { from, to } of gains) to.set(from);
  for (const { gradient, into } of squares) into[0] = sumOfSquares(gradient);
}
