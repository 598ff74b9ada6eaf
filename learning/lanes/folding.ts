/**
 * The arithmetic around a graph whose matrices carry gains and factors: W' = f W diag(g). Sums of gradients over micro-batches, the way back to the
 * gradients of W and g by the product rule, and W' itself. In double precision over float32 weights; runs on lanes, and knows nothing of models.
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

export interface SumOrder {
  sum: Float64Array;
  /** What is added, in this order. */
  gradients: Float32Array[];
  /** Whether the sum begins here, at 0. */
  begins: boolean;
}

/** Adds gradients of micro-batches to their sum. */
export function sumPart({ sum, gradients, begins }: SumOrder): void {
  let k = 0;
  if (begins) {
    const [a, b] = gradients;
    if (!a) sum.fill(0);
    // 0 first: a sum of nothing but -0 is 0.
    else if (!b) for (let i = 0; i < sum.length; i++) sum[i] = 0 + a[i]!;
    else for (let i = 0; i < sum.length; i++) sum[i] = 0 + a[i]! + b[i]!;
    k = 2;
  }
  // Two at a time: one pass over the sum serves both.
  for (; k + 1 < gradients.length; k += 2) {
    const [a, b] = [gradients[k]!, gradients[k + 1]!];
    for (let i = 0; i < sum.length; i++) sum[i] = sum[i]! + a[i]! + b[i]!;
  }
  if (k < gradients.length) {
    const a = gradients[k]!;
    for (let i = 0; i < sum.length; i++) sum[i]! += a[i]!;
  }
}

/** A gradient of W' that becomes one of W in place. */
export interface UnfoldOrder extends FoldedPart {
  gradient: Float64Array;
  /** To which dg is added; none where gains are not trained. */
  gainGradient: Float64Array | undefined;
  /** Whether dg begins here, at 0. */
  gainBegins: boolean;
  /** The gradient of another matrix of the same tensor, to which this one is added. */
  into: Float64Array | undefined;
}

/** dW = f dW' diag(g); dg_j += f sum_i dW'_ij W_ij. */
export function unfoldPart({ weight, gain, factor, gradient, gainGradient, gainBegins, into }: UnfoldOrder): void {
  if (gainBegins) gainGradient?.fill(0);
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
