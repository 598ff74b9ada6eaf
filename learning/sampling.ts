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

/** The places 0, 1, 2 ... of the largest logits so far. */
let places = new Int32Array(0);
function firstPlaces(count: number): Int32Array {
  if (places.length < count) places = Int32Array.from({ length: count }, (_, i) => i);
  return places.subarray(0, count);
}

/**
 * The distribution over the places of `logits` that `sampling` describes. Filtered ones are in descending order, unfiltered ones in that of the logits.
 * It runs for every token of every row, hence the plain loops.
 */
export function distribution(logits: ArrayLike<number>, { temperature, topK, topP = 1 }: Sampling): Distribution {
  if (temperature === 0) return { ids: [argmax(logits)], probabilities: Float64Array.of(1) };
  const size = logits.length;
  const probabilities = new Float64Array(size);
  let max = -Infinity;
  for (let i = 0; i < size; i++) if ((logits[i] as number) > max) max = logits[i] as number;
  let sum = 0;
  for (let i = 0; i < size; i++) sum += probabilities[i] = Math.exp(((logits[i] as number) - max) / temperature);
  for (let i = 0; i < size; i++) probabilities[i] = (probabilities[i] as number) / sum;
  const kept = Math.min(topK ?? size, size);
  if (kept === size && topP === 1) return { ids: firstPlaces(size), probabilities };
  // Tokens rarer than (1 - p) / V sum to less than 1 - p, so none of them is in the nucleus. With top-k the nucleus is taken from what that left,
  // renormalised, in which no token is rarer than before.
  let ids = largest(probabilities, kept, kept < size ? 0 : (1 - topP) / size);
  const whole = kept < size ? massOf(probabilities, ids) : 1;
  if (topP < 1) {
    let mass = 0;
    let count = 0;
    while (count < ids.length && (count === 0 || mass < topP * whole)) mass += probabilities[ids[count++] as number] as number;
    ids = ids.slice(0, count);
  }
  const mass = massOf(probabilities, ids);
  return { ids, probabilities: Float64Array.from(ids, (id) => (probabilities[id] as number) / mass) };
}

function massOf(probabilities: Float64Array, ids: readonly number[]): number {
  let sum = 0;
  for (const id of ids) sum += probabilities[id] as number;
  return sum;
}

/** Beyond so many, sorting all costs less than keeping a sorted list. */
const FEW = 128;

/** The places of the `count` largest values that are at least `floor`, in descending order, of equals the lower place first. */
function largest(values: ArrayLike<number>, count: number, floor: number): number[] {
  const best: number[] = [];
  if (count > FEW) {
    for (let i = 0; i < values.length; i++) if ((values[i] as number) >= floor) best.push(i);
    best.sort((a, b) => (values[b] as number) - (values[a] as number) || a - b);
    return best.slice(0, count);
  }
  if (count === 0) return best;
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number;
    if (value < floor || (best.length === count && value <= (values[best[count - 1] as number] as number))) continue;
    let at = best.length < count ? best.length : count - 1;
    for (; at > 0 && value > (values[best[at - 1] as number] as number); at--) best[at] = best[at - 1] as number;
    best[at] = i;
  }
  return best;
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
  return largest(logits, count, -Infinity).map((id) => ({ id, logProbability: (logits[id] as number) - log }));
}
