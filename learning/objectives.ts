/**
 * The three losses as graphs over the head's outputs, and the tensors that a batch feeds them. Every loss is a sum of weighted terms; the meaning of
 * each is in `types.ts`. Terms that do not fit their trees are refused as BadInput.
 */
import { badInput } from '../core/errors.ts';
import { MASKED, floatFeed, indexFeed, int64 } from './batch.ts';
import type { Packed } from './batch.ts';
import type { Graph, Value } from './graph/graph.ts';
import { gather, gatherColumns, logLikelihood, scatterSum } from './graph/indexing.ts';
import { add, logSoftmax, mul, reshape, scale, softplus, sub, total } from './graph/operators.ts';
import type { Feed } from './lanes/lane.ts';
import { isScore } from './model.ts';
import type { Batch, CrossEntropyTerms, LlamaConfig, Objective, PreferenceTerms, SoftBceTerms } from './types.ts';

/** Axes that the objectives add: A allowed tokens of a read, N choices, B actions, J pairs, 1 at least each. */
export const OBJECTIVE_AXES = ['A', 'N', 'B', 'J'];

/** Log-probabilities [P, A] of the tokens of input `allowed` under the constraint that one of them is taken; places that `padding` masks get none. */
export function constrainedLogProbabilities(graph: Graph, logits: Value): Value {
  const allowed = graph.input('allowed', 'int64', ['P', 'A']);
  const padding = graph.input('padding', 'float32', ['P', 'A']);
  return logSoftmax(add(gatherColumns(logits, allowed), padding));
}

/** The loss [] of an objective over the head's outputs (logits [P, V] or score logits [P]). */
export function lossOf(objective: Objective, graph: Graph, out: Value): Value {
  const input = (name: string, axes: string[]) => graph.input(name, 'float32', axes);
  const index = (name: string, axes: string[]) => graph.input(name, 'int64', axes);
  if (objective === 'crossEntropy') {
    const picked = reshape(logLikelihood(out, index('targets', ['P', '1'])), ['P']);
    return scale(total(mul(picked, input('weights', ['P']))), -1);
  }
  if (objective === 'softBCE') {
    // BCE(sigmoid(s), y) = softplus(s) - y s
    return total(mul(input('weights', ['P']), sub(softplus(out), mul(input('labels', ['P']), out))));
  }
  const nllWeights = input('nllWeights', ['B']); // made first: the number of actions is taken from it
  const choices = gather(reshape(constrainedLogProbabilities(graph, out), ['P*A']), index('choices', ['N']));
  const actions = scatterSum(mul(choices, input('choiceWeights', ['N'])), index('actionOf', ['N']), 'B');
  const likelihood = scale(total(mul(actions, nllWeights)), -1);
  const gap = sub(gather(actions, index('chosen', ['J'])), gather(actions, index('rejected', ['J'])));
  const logits = mul(sub(gap, input('referenceMargins', ['J'])), input('beta', []));
  const preference = total(mul(input('pairWeights', ['J']), softplus(scale(logits, -1)))); // -log sigmoid(z) = softplus(-z)
  return add(preference, likelihood);
}

/** Refuses an objective that the model's head cannot serve. */
export function checkObjective(objective: Objective, config: LlamaConfig): void {
  const wanted = objective === 'softBCE' ? 'LlamaForSequenceClassification' : 'LlamaForCausalLM';
  if ((objective === 'softBCE') !== isScore(config))
    throw badInput(`architecture for objective '${objective}'`, config.architectures[0], `it needs ${wanted}`);
}

function sameLength(field: string, got: number, wanted: number): void {
  if (got !== wanted) throw badInput(field, `${got} entries`, `${wanted} are needed, one for each`);
}
function finite(field: string, values: number[]): void {
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) throw badInput(`${field}[${at}]`, String(values[at]), 'a finite number');
}

/** The tensors of the reads: indexes of the nodes. There is always at least one (of weight 0), because empty tensors are not for every kernel. */
function readFeed(batch: Pick<Batch, 'terms'>, packed: Packed): Feed {
  const { reads } = batch.terms;
  return indexFeed(reads.length ? reads.map((read) => packed.place(read)) : [0]);
}

/** Tokens allowed at each read as two tensors [P, A]; shorter lists are padded with masked places. */
export function allowedFeeds(allowed: number[][], vocabulary: number): { allowed: Feed; padding: Feed; width: number } {
  const width = Math.max(1, ...allowed.map((list) => list.length));
  const ids = new Int32Array(allowed.length * width);
  const padding = new Float32Array(allowed.length * width).fill(MASKED);
  allowed.forEach((list, p) => {
    if (list.length === 0 || new Set(list).size !== list.length) throw badInput(`allowed[${p}]`, list, 'at least one token, none twice');
    list.forEach((token, j) => {
      if (!Number.isInteger(token) || token < 0 || token >= vocabulary)
        throw badInput(`allowed[${p}][${j}]`, token, `a token below ${vocabulary}`);
      ids[p * width + j] = token;
      padding[p * width + j] = 0;
    });
  });
  const dims = [allowed.length, width];
  return { allowed: { data: int64(ids), dims }, padding: { data: padding, dims }, width };
}

function crossEntropyFeeds({ reads, targets, weights }: CrossEntropyTerms, vocabulary: number): Record<string, Feed> {
  sameLength('targets', targets.length, reads.length);
  sameLength('weights', weights.length, reads.length);
  finite('weights', weights);
  const wrong = targets.findIndex((token) => !Number.isInteger(token) || token < 0 || token >= vocabulary);
  if (wrong >= 0) throw badInput(`targets[${wrong}]`, targets[wrong], `a token below ${vocabulary}`);
  const list = reads.length ? targets : [0];
  return { targets: { data: int64(list), dims: [list.length, 1] }, weights: floatFeed(reads.length ? weights : [0]) };
}

function softBceFeeds({ reads, labels, weights }: SoftBceTerms): Record<string, Feed> {
  sameLength('labels', labels.length, reads.length);
  sameLength('weights', weights.length, reads.length);
  finite('weights', weights);
  const wrong = labels.findIndex((label) => !(label >= 0 && label <= 1));
  if (wrong >= 0) throw badInput(`labels[${wrong}]`, labels[wrong], 'in [0, 1]');
  return { labels: floatFeed(reads.length ? labels : [0]), weights: floatFeed(reads.length ? weights : [0]) };
}

function preferenceFeeds(terms: PreferenceTerms, vocabulary: number): Record<string, Feed> {
  const { reads, allowed, actions, nllWeights, pairs, beta } = terms;
  sameLength('allowed', allowed.length, reads.length);
  sameLength('nllWeights', nllWeights.length, actions.length);
  finite('nllWeights', nllWeights);
  finite('beta', [beta]);
  const { width, ...constraint } = allowedFeeds(reads.length ? allowed : [[0]], vocabulary);
  const choices: number[] = [];
  const actionOf: number[] = [];
  actions.forEach((action, a) =>
    action.forEach(({ point, token }) => {
      const place = allowed[point]?.indexOf(token) ?? -1;
      if (place < 0) throw badInput(`actions[${a}]`, { point, token }, 'a token allowed at one of the decision points');
      choices.push(point * width + place);
      actionOf.push(a);
    }),
  );
  const choiceWeights = choices.map(() => 1);
  if (choices.length === 0) [choices[0], actionOf[0], choiceWeights[0]] = [0, 0, 0];
  for (const [j, pair] of pairs.entries()) {
    for (const side of [pair.chosen, pair.rejected])
      if (!actions[side]) throw badInput(`pairs[${j}]`, pair, `actions 0 to ${actions.length - 1}`);
    finite(`pairs[${j}]`, [pair.referenceMargin, pair.weight]);
  }
  const list = pairs.length ? pairs : [{ chosen: 0, rejected: 0, referenceMargin: 0, weight: 0 }];
  return {
    ...constraint,
    choices: indexFeed(choices),
    actionOf: indexFeed(actionOf),
    choiceWeights: floatFeed(choiceWeights),
    nllWeights: floatFeed(actions.length ? nllWeights : [0]),
    chosen: indexFeed(list.map((pair) => pair.chosen)),
    rejected: indexFeed(list.map((pair) => pair.rejected)),
    referenceMargins: floatFeed(list.map((pair) => pair.referenceMargin)),
    pairWeights: floatFeed(list.map((pair) => pair.weight)),
    beta: { data: Float32Array.of(beta), dims: [] },
  };
}

/** All tensors that the training graph of `objective` is fed for a batch, beside the weights. */
export function batchFeeds(batch: Batch, packed: Packed, objective: Objective, vocabulary: number): Record<string, Feed> {
  const { terms } = batch;
  if (terms.objective !== objective) throw badInput('terms.objective', terms.objective, `this trainer minimises '${objective}'`);
  const own =
    terms.objective === 'crossEntropy'
      ? crossEntropyFeeds(terms, vocabulary)
      : terms.objective === 'softBCE'
        ? softBceFeeds(terms)
        : preferenceFeeds(terms, vocabulary);
  return { ...packed.feeds, reads: readFeed(batch, packed), ...own };
}
