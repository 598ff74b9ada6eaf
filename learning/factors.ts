/**
 * Factored tables: the row of token v is the sum of the rows of a learned feature table, rows = M table with M the fixed multi-hot matrix of
 * `factors[v]`. Tokens that share features learn together, from fewer tokens. Folded into a plain table whenever a model leaves the trainer.
 */
import { badInput } from '../core/errors.ts';

/** Relative size of the ridge that makes the normal equations solvable when features are redundant: far above double rounding, far below float32. */
const RIDGE = 1e-10;

export class Factors {
  readonly features: number;
  readonly #lists: number[][];

  /** `lists[v]`: the features of token v, whole numbers from 0, none twice, at least one each. */
  constructor(lists: number[][]) {
    lists.forEach((list, token) => {
      if (list.length === 0 || new Set(list).size !== list.length || list.some((feature) => !Number.isInteger(feature) || feature < 0))
        throw badInput(`factors[${token}]`, list, 'at least one feature index, none twice');
    });
    this.#lists = lists.map((list) => [...list]);
    this.features = 1 + this.#lists.reduce((most, list) => Math.max(most, ...list), 0);
  }

  get tokens(): number {
    return this.#lists.length;
  }

  /** rows [V, D] = M table [F, D]. */
  rows(table: Float32Array, width: number, rows: Float32Array): void {
    this.#lists.forEach((list, token) => {
      for (let j = 0; j < width; j++) {
        let sum = 0;
        for (const feature of list) sum += table[feature * width + j]!;
        rows[token * width + j] = sum;
      }
    });
  }

  /** The gradient of the table [F, D] from that of the rows [V, D]: M^T dRows. */
  tableGradient(rowGradient: Float32Array | Float64Array, width: number): Float64Array {
    const out = new Float64Array(this.features * width);
    this.#lists.forEach((list, token) => {
      for (const feature of list) for (let j = 0; j < width; j++) out[feature * width + j]! += rowGradient[token * width + j]!;
    });
    return out;
  }

  /**
   * The table [F, D] whose rows come nearest to the given ones (least squares, smallest norm up to the ridge). Exact to rounding when the rows were
   * made from a table with the same factors.
   */
  table(rows: Float32Array, width: number): Float32Array {
    const n = this.features;
    const gram = new Float64Array(n * n);
    for (const list of this.#lists) for (const a of list) for (const b of list) gram[a * n + b]! += 1;
    let trace = 0;
    for (let i = 0; i < n; i++) trace += gram[i * n + i]!;
    for (let i = 0; i < n; i++) gram[i * n + i]! += RIDGE * trace;
    const lower = cholesky(gram, n);
    const right = this.tableGradient(Float64Array.from(rows), width);
    for (let j = 0; j < width; j++) {
      for (let i = 0; i < n; i++) {
        let sum = right[i * width + j]!;
        for (let k = 0; k < i; k++) sum -= lower[i * n + k]! * right[k * width + j]!;
        right[i * width + j] = sum / lower[i * n + i]!;
      }
      for (let i = n - 1; i >= 0; i--) {
        let sum = right[i * width + j]!;
        for (let k = i + 1; k < n; k++) sum -= lower[k * n + i]! * right[k * width + j]!;
        right[i * width + j] = sum / lower[i * n + i]!;
      }
    }
    return Float32Array.from(right);
  }
}

/** The lower factor L of a positive definite matrix, A = L L^T. */
function cholesky(matrix: Float64Array, n: number): Float64Array {
  const lower = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = matrix[i * n + j]!;
      for (let k = 0; k < j; k++) sum -= lower[i * n + k]! * lower[j * n + k]!;
      lower[i * n + j] = i === j ? Math.sqrt(Math.max(sum, RIDGE)) : sum / lower[j * n + j]!;
    }
  }
  return lower;
}
