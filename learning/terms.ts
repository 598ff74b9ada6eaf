/**
 * The tensors that a batch feeds its loss (`objectives.ts`). Terms that do not fit their trees, each other or the model are refused as BadInput that
 * names the field, before anything runs. Lists that are empty become one entry of weight 0, because empty tensors are not for every kernel.
 */
import { badInput } from '../core/errors.ts';
import { MASKED, floatFeed, indexFeed, int64 } from './batch.ts';
import type { Packed } from './batch.ts';
import type { Feed } from './lanes/lane.ts';
import { hasValueHead } from './model.ts';
import type {
  ActionTerms,
  Batch,
  BradleyTerryTerms,
  CrossEntropyTerms,
  InverseTerms,
  LlamaConfig,
  Objective,
  PolicyGradientTerms,
  PreferenceTerms,
  RegressionTerms,
  SoftBceTerms,
  Terms,
} from './types.ts';

type Feeds = Record<string, Feed>;

function sameLength(field: string, got: number, wanted: number): void {
  if (got !== wanted) throw badInput(field, `${got} entries`, `${wanted} are needed, one for each`);
}
function finite(field: string, values: number[]): void {
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) throw badInput(`${field}[${at}]`, String(values[at]), 'a finite number');
}
/** As many finite numbers as there are things they belong to. */
function numbersFor(field: string, values: number[], count: number): void {
  sameLength(field, values.length, count);
  finite(field, values);
}
function within(field: string, value: number, low: number, high: number): void {
  if (!(value >= low && value <= high)) throw badInput(field, value, `in [${low}, ${high}]`);
}
function above0(field: string, value: number): void {
  if (!(value > 0 && Number.isFinite(value))) throw badInput(field, value, 'a finite number above 0');
}
function indexBelow(field: string, value: number, count: number, what: string): void {
  if (!Number.isInteger(value) || value < 0 || value >= count) throw badInput(field, value, `${what} 0 to ${count - 1}`);
}
function token(field: string, value: number, vocabulary: number): void {
  if (!Number.isInteger(value) || value < 0 || value >= vocabulary) throw badInput(field, value, `a token below ${vocabulary}`);
}

const scalar = (value: number): Feed => ({ data: Float32Array.of(value), dims: [] });
/** A list of weights or of anything that weights multiply; one 0 if it is empty. */
const floats = (values: number[]) => floatFeed(values.length ? values : [0]);
const indexes = (values: number[]) => indexFeed(values.length ? values : [0]);

/** Tokens allowed at each read as two tensors [P, A]; shorter lists are padded with masked places. */
export function allowedFeeds(allowed: number[][], vocabulary: number): { allowed: Feed; padding: Feed; width: number } {
  const width = Math.max(1, ...allowed.map((list) => list.length));
  const ids = new Int32Array(allowed.length * width);
  const padding = new Float32Array(allowed.length * width).fill(MASKED);
  allowed.forEach((list, p) => {
    if (list.length === 0 || new Set(list).size !== list.length) throw badInput(`allowed[${p}]`, list, 'at least one token, none twice');
    list.forEach((id, j) => {
      token(`allowed[${p}][${j}]`, id, vocabulary);
      ids[p * width + j] = id;
      padding[p * width + j] = 0;
    });
  });
  const dims = [allowed.length, width];
  return { allowed: { data: int64(ids), dims }, padding: { data: padding, dims }, width };
}

function crossEntropy({ reads, targets, weights }: CrossEntropyTerms, vocabulary: number): Feeds {
  sameLength('targets', targets.length, reads.length);
  numbersFor('weights', weights, reads.length);
  targets.forEach((target, p) => token(`targets[${p}]`, target, vocabulary));
  const list = reads.length ? targets : [0];
  return { targets: { data: int64(list), dims: [list.length, 1] }, weights: floats(weights) };
}

function softBce({ reads, labels, weights }: SoftBceTerms): Feeds {
  sameLength('labels', labels.length, reads.length);
  numbersFor('weights', weights, reads.length);
  labels.forEach((label, p) => within(`labels[${p}]`, label, 0, 1));
  return { labels: floats(labels), weights: floats(weights) };
}

function regression({ reads, labels, weights, huber }: RegressionTerms): Feeds {
  numbersFor('labels', labels, reads.length);
  numbersFor('weights', weights, reads.length);
  if (huber !== undefined) above0('huber', huber);
  return { labels: floats(labels), weights: floats(weights), ...(huber !== undefined && { huber: scalar(huber) }) };
}

/** A logistic loss of score differences: z = score[first] - factor * score[second] - margin. */
interface Difference {
  first: number;
  second: number;
  factor: number;
  margin: number;
  positive: number;
  negative: number;
}
function differences(list: Difference[]): Feeds {
  const all = (field: keyof Difference) => list.map((difference) => difference[field]);
  return {
    first: indexes(all('first')),
    second: indexes(all('second')),
    secondFactors: floats(all('factor')),
    margins: floats(all('margin')),
    positive: floats(all('positive')),
    negative: floats(all('negative')),
  };
}

function bradleyTerry({ reads, pairs }: BradleyTerryTerms): Feeds {
  return differences(
    pairs.map(({ chosen, rejected, margin = 0, weight }, j) => {
      indexBelow(`pairs[${j}].chosen`, chosen, reads.length, 'reads');
      indexBelow(`pairs[${j}].rejected`, rejected, reads.length, 'reads');
      finite(`pairs[${j}]`, [margin, weight]);
      return { first: chosen, second: rejected, factor: 1, margin, positive: weight, negative: 0 };
    }),
  );
}

function inverse({ reads, transitions, gamma }: InverseTerms): Feeds {
  within('gamma', gamma, 0, 1);
  return differences(
    transitions.map(({ now, next, label, weight }, j) => {
      indexBelow(`transitions[${j}].now`, now, reads.length, 'reads');
      if (next !== null) indexBelow(`transitions[${j}].next`, next, reads.length, 'reads, or null,');
      within(`transitions[${j}].label`, label, 0, 1);
      finite(`transitions[${j}].weight`, [weight]);
      const factor = next === null ? 0 : gamma;
      return { first: now, second: next ?? now, factor, margin: 0, positive: weight * label, negative: weight * (1 - label) };
    }),
  );
}

/** The constraint, and the choices [N] that make up the actions [B], as places in the log-probabilities at the reads. */
function actionFeeds({ reads, allowed, actions }: ActionTerms, vocabulary: number): Feeds {
  if (allowed) sameLength('allowed', allowed.length, reads.length);
  const { width, ...constraint } = allowed ? allowedFeeds(reads.length ? allowed : [[0]], vocabulary) : { width: vocabulary };
  const choices: number[] = [];
  const actionOf: number[] = [];
  actions.forEach((action, a) =>
    action.forEach(({ point, token: id }, i) => {
      if (!allowed) {
        indexBelow(`actions[${a}][${i}].point`, point, reads.length, 'reads');
        token(`actions[${a}][${i}].token`, id, vocabulary);
      }
      const place = allowed ? (allowed[point]?.indexOf(id) ?? -1) : id;
      if (place < 0) throw badInput(`actions[${a}]`, { point, token: id }, 'a token allowed at one of the decision points');
      choices.push(point * width + place);
      actionOf.push(a);
    }),
  );
  const choiceWeights = choices.map(() => 1);
  return { ...constraint, choices: indexes(choices), actionOf: indexes(actionOf), choiceWeights: floats(choiceWeights) };
}

function preference(terms: PreferenceTerms, vocabulary: number): Feeds {
  const { actions, nllWeights, pairs, beta, loss = 'dpo' } = terms;
  numbersFor('nllWeights', nllWeights, actions.length);
  if (loss !== 'dpo' && loss !== 'ipo') throw badInput('loss', loss, "'dpo' or 'ipo'");
  if (loss === 'ipo') above0('beta', beta);
  else finite('beta', [beta]);
  for (const [j, { chosen, rejected, referenceMargin, weight, labelSmoothing = 0 }] of pairs.entries()) {
    indexBelow(`pairs[${j}].chosen`, chosen, actions.length, 'actions');
    indexBelow(`pairs[${j}].rejected`, rejected, actions.length, 'actions');
    finite(`pairs[${j}]`, [referenceMargin, weight]);
    within(`pairs[${j}].labelSmoothing`, labelSmoothing, 0, loss === 'ipo' ? 0 : 0.5);
  }
  const weights =
    loss === 'ipo'
      ? { pairWeights: floats(pairs.map(({ weight }) => weight)), target: scalar(1 / (2 * beta)) }
      : {
          positive: floats(pairs.map(({ weight, labelSmoothing = 0 }) => weight * (1 - labelSmoothing))),
          negative: floats(pairs.map(({ weight, labelSmoothing = 0 }) => weight * labelSmoothing)),
          beta: scalar(beta),
        };
  return {
    ...actionFeeds(terms, vocabulary),
    nllWeights: floats(nllWeights),
    chosen: indexes(pairs.map(({ chosen }) => chosen)),
    rejected: indexes(pairs.map(({ rejected }) => rejected)),
    referenceMargins: floats(pairs.map(({ referenceMargin }) => referenceMargin)),
    ...weights,
  };
}

function policyGradient(terms: PolicyGradientTerms, config: LlamaConfig): Feeds {
  const { reads, actions, advantages, weights, clip, reference, entropyWeights, values } = terms;
  const count = actions.length;
  numbersFor('advantages', advantages, count);
  numbersFor('weights', weights, count);
  const feeds: Feeds = { ...actionFeeds(terms, config.vocab_size), gains: floats(weights.map((weight, a) => weight * advantages[a]!)) };
  if (clip) {
    numbersFor('clip.oldLogProbabilities', clip.oldLogProbabilities, count);
    within('clip.low', clip.low, Number.MIN_VALUE, 1);
    above0('clip.high', clip.high);
    // min(r A, clip(r) A) binds r from above for an action that should become likelier, from below for one that should not.
    const bound = (up: boolean) =>
      advantages.map((advantage) =>
        up ? (advantage > 0 ? Math.log1p(clip.high) : Infinity) : advantage < 0 ? Math.log1p(-clip.low) : -Infinity,
      );
    feeds['oldLogProbabilities'] = floats(clip.oldLogProbabilities);
    feeds['lowest'] = floats(bound(false));
    feeds['highest'] = floats(bound(true));
  }
  if (reference) {
    numbersFor('reference.logProbabilities', reference.logProbabilities, count);
    finite('reference.coefficient', [reference.coefficient]);
    feeds['referenceLogProbabilities'] = floats(reference.logProbabilities);
    feeds['referenceWeights'] = floats(weights.map((weight) => reference.coefficient * weight));
  }
  if (entropyWeights) {
    numbersFor('entropyWeights', entropyWeights, reads.length);
    feeds['entropyWeights'] = floats(entropyWeights);
  }
  if (values) {
    if (!hasValueHead(config)) throw badInput('values', `${values.length} entries`, 'none: the model has no value head');
    values.forEach(({ read, target, weight }, k) => {
      indexBelow(`values[${k}].read`, read, reads.length, 'reads');
      finite(`values[${k}]`, [target, weight]);
    });
    feeds['valueReads'] = indexes(values.map(({ read }) => read));
    feeds['valueTargets'] = floats(values.map(({ target }) => target));
    feeds['valueWeights'] = floats(values.map(({ weight }) => weight));
  }
  return feeds;
}

function own(terms: Terms, config: LlamaConfig): Feeds {
  switch (terms.objective) {
    case 'crossEntropy':
      return crossEntropy(terms, config.vocab_size);
    case 'softBCE':
      return softBce(terms);
    case 'bradleyTerry':
      return bradleyTerry(terms);
    case 'inverse':
      return inverse(terms);
    case 'regression':
      return regression(terms);
    case 'preference':
      return preference(terms, config.vocab_size);
    case 'policyGradient':
      return policyGradient(terms, config);
  }
}

/** All tensors that the training graph of the batch's form is fed, beside the weights: the packed trees, the places of the reads, and the terms. */
export function batchFeeds(batch: Batch, packed: Packed, objective: Objective, config: LlamaConfig): Feeds {
  const { terms } = batch;
  if (terms.objective !== objective) throw badInput('terms.objective', terms.objective, `this trainer minimises '${objective}'`);
  return { ...packed.feeds, ...own(terms, config) };
}
