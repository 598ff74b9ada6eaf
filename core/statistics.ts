/** The statistics that Ratchet reports: proportions with Wilson intervals, paired differences with bootstrap intervals, correlation. Pure and seeded. */
import type { Estimate } from './nouns.ts';
import { Random, type RandomKey } from './random.ts';

/** Two-sided 95 % quantile of the standard normal distribution. */
export const Z95 = 1.959963984540054;

/** Resamples of a bootstrap: the error of a 2.5 % quantile is then about 0.3 % of the distribution's mass. */
const BOOTSTRAP_RESAMPLES = 2000;

export function mean(values: readonly number[]): number {
  let sum = 0;
  for (const value of values) sum += value;
  return values.length === 0 ? 0 : sum / values.length;
}

/** Sample standard deviation (n - 1); 0 for fewer than two values. */
export function standardDeviation(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const centre = mean(values);
  let sum = 0;
  for (const value of values) sum += (value - centre) ** 2;
  return Math.sqrt(sum / (values.length - 1));
}

/** A proportion with its Wilson score interval (Wilson 1927), 95 %. */
export function proportion(successes: number, n: number): Estimate {
  if (n === 0) return { value: 0, low: 0, high: 1, n: 0 };
  const p = successes / n;
  const z2 = Z95 * Z95;
  const centre = (p + z2 / (2 * n)) / (1 + z2 / n);
  const half = (Z95 / (1 + z2 / n)) * Math.sqrt((p * (1 - p)) / n + z2 / (4 * n * n));
  return { value: p, low: Math.max(0, centre - half), high: Math.min(1, centre + half), n };
}

/** A mean with the normal 95 % interval of its standard error. */
export function meanEstimate(values: readonly number[]): Estimate {
  const value = mean(values);
  const half = values.length === 0 ? 0 : (Z95 * standardDeviation(values)) / Math.sqrt(values.length);
  return { value, low: value - half, high: value + half, n: values.length };
}

/** Mean of paired differences (b - a) with a 95 % percentile bootstrap over the pairs (Efron 1979), drawn from `key`. */
export function pairedDifference(a: readonly number[], b: readonly number[], key: RandomKey): Estimate {
  if (a.length !== b.length) throw new RangeError(`pairedDifference: ${a.length} and ${b.length} values do not pair`);
  const differences = a.map((value, i) => (b[i] as number) - value);
  const n = differences.length;
  if (n === 0) return { value: 0, low: 0, high: 0, n: 0 };
  const random = new Random(key);
  const means = new Float64Array(BOOTSTRAP_RESAMPLES);
  for (let k = 0; k < BOOTSTRAP_RESAMPLES; k++) {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += differences[random.below(n)] as number;
    means[k] = sum / n;
  }
  means.sort();
  const quantile = (q: number) => means[Math.round(q * (BOOTSTRAP_RESAMPLES - 1))] as number;
  return { value: mean(differences), low: quantile(0.025), high: quantile(0.975), n };
}

/** Pearson's correlation; 0 when either side is constant. */
export function correlation(a: readonly number[], b: readonly number[]): number {
  const meanA = mean(a);
  const meanB = mean(b);
  let ab = 0;
  let aa = 0;
  let bb = 0;
  for (let i = 0; i < a.length; i++) {
    const da = (a[i] as number) - meanA;
    const db = (b[i] as number) - meanB;
    ab += da * db;
    aa += da * da;
    bb += db * db;
  }
  return aa === 0 || bb === 0 ? 0 : ab / Math.sqrt(aa * bb);
}

/** Binary cross-entropy of a prediction against a (possibly soft) label, both in [0, 1], in nats. */
export function binaryCrossEntropy(prediction: number, label: number): number {
  const p = Math.min(1 - 1e-12, Math.max(1e-12, prediction));
  return -(label * Math.log(p) + (1 - label) * Math.log(1 - p));
}

export function sigmoid(logit: number): number {
  return 1 / (1 + Math.exp(-logit));
}

export function logitOf(probability: number): number {
  return Math.log(probability / (1 - probability));
}
