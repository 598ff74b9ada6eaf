/**
 * From logits to a token: the distributions that tokens are drawn from, and the draw. It knows nothing of models or caches; every draw comes from the
 * generator that it is given.
 */
import { badInput } from '../core/errors.ts';
import type { Random } from '../core/random.ts';

/** How a token is drawn. The filters apply in this order: temperature, top-k, top-p. */
export interface Sampling {
  /** 0: the likeliest token (greedy, the lowest id of equals). Otherwise logits are divided by it. */
  temperature: number;
  /** Only the k likeliest tokens (of equals the lower ids); absent: all. */
  topK?: number | undefined;
  /** Nucleus sampling (arXiv 1904.09751): only the smallest set of likeliest tokens whose probabilities sum to at least this; absent or 1: all. */
  topP?: number | undefined;
}

export function checkSampling({ temperature, topK, topP }: Sampling): void {
  if (!(temperature >= 0 && Number.isFinite(temperature))) throw badInput('temperature', temperature, 'a finite number of at least 0');
  if (topK !== undefined && !(Number.isInteger(topK) && topK >= 1)) throw badInput('topK', topK, 'a whole number of at least 1');
  if (topP !== undefined && !(topP > 0 && topP <= 1)) throw badInput('topP', topP, 'a number above 0 and at most 1');
}

/** log(sum(exp(values / temperature))), without overflow. */
export function logSumExp(values: ArrayLike<number>, temperature = 1): number {
  let max = -Infinity;
  for (let i = 0; i < values.length; i++) if ((values[i] as number) > max) max = values[i] as number;
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += Math.exp(((values[i] as number) - max) / temperature);
  return max / temperature + Math.log(sum);
}

/** log softmax over the allowed entries of the logits at a temperature (exact under the constraint: they sum to 1). */
export function logSoftmaxOver(logits: ArrayLike<number>, allowed: readonly number[], temperature: number): Float64Array {
  const values = Float64Array.from(allowed, (id) => (logits[id] as number) / temperature);
  const log = logSumExp(values);
  return values.map((value) => value - log);
}

/** The place of the largest value; the first of equals. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if ((values[i] as number) > (values[best] as number)) best = i;
  return best;
}

/** What a token is drawn from: probabilities that sum to 1 over the places `ids` of the logits. */
export interface Distribution {
  ids: ArrayLike<number>;
  probabilities: Float64Array;
}

/** The distribution over the places of `logits` that `sampling` describes. Filtered ones are in descending order, unfiltered ones in that of the logits. */
export function distribution(logits: ArrayLike<number>, { temperature, topK, topP = 1 }: Sampling): Distribution {
  if (temperature === 0) return { ids: [argmax(logits)], probabilities: Float64Array.of(1) };
  const log = logSumExp(logits, temperature);
  const probabilities = Float64Array.from(logits, (logit) => Math.exp(logit / temperature - log));
  const every = Int32Array.from(probabilities.keys());
  if ((topK === undefined || topK >= logits.length) && topP === 1) return { ids: every, probabilities };
  // Tokens rarer than (1 - p) / V sum to less than 1 - p, so none of them is in the nucleus: only the others need sorting. With top-k the nucleus is
  // taken from what top-k left, renormalised, in which no token is rarer than before.
  const floor = topK === undefined ? (1 - topP) / logits.length : 0;
  let ids = every.filter((id) => (probabilities[id] as number) >= floor);
  ids.sort((a, b) => (probabilities[b] as number) - (probabilities[a] as number) || a - b);
  if (topK !== undefined) ids = ids.subarray(0, topK);
  const kept = ids.reduce((sum, id) => sum + (probabilities[id] as number), 0);
  const whole = topK === undefined ? 1 : kept;
  let nucleus = 0;
  let size = 0;
  while (size < ids.length && nucleus < topP * whole) nucleus += probabilities[ids[size++] as number] as number;
  if (topP < 1) ids = ids.subarray(0, Math.max(1, size));
  const sum = ids.reduce((total, id) => total + (probabilities[id] as number), 0);
  return { ids, probabilities: Float64Array.from(ids, (id) => (probabilities[id] as number) / sum) };
}

/** One draw by inverting the cumulative distribution: a place in `probabilities`. A certain outcome takes no draw. */
export function draw(probabilities: ArrayLike<number>, random: Random): number {
  if (probabilities.length === 1) return 0;
  let left = random.uniform();
  for (let i = 0; i < probabilities.length; i++) {
    left -= probabilities[i] as number;
    if (left < 0) return i;
  }
  // The probabilities sum to a little less than 1 in floating point.
  return argmax(probabilities);
}

/** The `count` likeliest tokens with their log-probabilities under the whole distribution, in descending order (of equals the lower id first). */
export function likeliest(logits: ArrayLike<number>, log: number, count: number): { id: number; logProbability: number }[] {
  const best: number[] = [];
  if (count === 0) return [];
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id] as number;
    if (best.length === count && logit <= (logits[best.at(-1) as number] as number)) continue;
    let at = best.length;
    while (at > 0 && logit > (logits[best[at - 1] as number] as number)) at--;
    best.splice(at, 0, id);
    if (best.length > count) best.pop();
  }
  return best.map((id) => ({ id, logProbability: (logits[id] as number) - log }));
}
