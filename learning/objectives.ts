/**
 * The losses as graphs over the heads' outputs. What each means is said in `types.ts`; the tensors that a batch feeds them are made in `terms.ts`.
 */
import { badInput } from '../core/errors.ts';
import { gather, gatherColumns, logLikelihood, scatterSum } from './graph/indexing.ts';
import type { Graph, Value } from './graph/graph.ts';
import { add, clip, exp, logSoftmax, mul, reduceSum, reshape, scale, softplus, sub, total } from './graph/operators.ts';
import { hasValueHead, isScore } from './model.ts';
import type { LlamaConfig, Objective, PolicyGradientTerms, PreferenceTerms, RegressionTerms, Terms } from './types.ts';

/** Axes that the objectives add: A allowed tokens of a read, N choices, B actions, J pairs, Y values, 1 at least each. */
export const OBJECTIVE_AXES = ['A', 'N', 'B', 'J', 'Y'];

/** Options of an objective that change its graph: batches of one objective with the same parts share a session. */
type Part = 'vocabulary' | 'huber' | 'ipo' | 'clip' | 'reference' | 'entropy' | 'values';
export interface Form {
  objective: Objective;
  parts: ReadonlySet<Part>;
  /** Equal for equal forms. */
  key: string;
}

/** The form of a batch's loss; of an objective without options if only that is given. */
export function formOf(terms: Terms | { objective: Objective }): Form {
  type Options = Omit<PreferenceTerms, 'objective'> & Omit<PolicyGradientTerms, 'objective'> & Omit<RegressionTerms, 'objective'>;
  const { allowed, loss, huber, clip: range, reference, entropyWeights, values } = terms as Partial<Options>;
  const on: [Part, boolean][] = [
    ['vocabulary', 'actions' in terms && allowed === undefined],
    ['huber', huber !== undefined],
    ['ipo', loss === 'ipo'],
    ['clip', range !== undefined],
    ['reference', reference !== undefined],
    ['entropy', entropyWeights !== undefined],
    ['values', values !== undefined],
  ];
  const parts = on.flatMap(([part, is]) => (is ? [part] : []));
  return { objective: terms.objective, parts: new Set(parts), key: [terms.objective, ...parts].join(' + ') };
}

/** What a model's heads say at the reads: logits [P, V] of a causal model; scores [P] of a score head or a causal model's value head. */
export interface Heads {
  logits?: Value | undefined;
  scores?: Value | undefined;
}

/** Log-probabilities [P, A] of the tokens of input `allowed` under the constraint that one of them is taken; places that `padding` masks get none. */
export function constrainedLogProbabilities(graph: Graph, logits: Value): Value {
  const allowed = graph.input('allowed', 'int64', ['P', 'A']);
  const padding = graph.input('padding', 'float32', ['P', 'A']);
  return logSoftmax(add(gatherColumns(logits, allowed), padding));
}

const numbers = (graph: Graph, name: string, ...axes: string[]) => graph.input(name, 'float32', axes);
const index = (graph: Graph, name: string, axis: string) => graph.input(name, 'int64', [axis]);

/** sum_j positive_j * -log sigma(z_j) + negative_j * -log sigma(-z_j), where -log sigma(z) = softplus(-z): exact for large z on either side. */
function logistic(graph: Graph, z: Value): Value {
  const positive = numbers(graph, 'positive', 'J');
  const negative = numbers(graph, 'negative', 'J');
  return add(total(mul(positive, softplus(scale(z, -1)))), total(mul(negative, softplus(z))));
}

/** The log-probabilities at the decision points, [P, A] or [P, V], and of the actions, [B]. */
function likelihoods(graph: Graph, logits: Value, vocabulary: boolean): { points: Value; actions: Value } {
  const points = vocabulary ? logSoftmax(logits) : constrainedLogProbabilities(graph, logits);
  const choices = gather(reshape(points, [points.axes.join('*')]), index(graph, 'choices', 'N'));
  const actions = scatterSum(mul(choices, numbers(graph, 'choiceWeights', 'N')), index(graph, 'actionOf', 'N'), 'B');
  return { points, actions };
}

function preference(form: Form, graph: Graph, logits: Value): Value {
  const nllWeights = numbers(graph, 'nllWeights', 'B'); // made first: the number of actions is taken from it
  const { actions } = likelihoods(graph, logits, form.parts.has('vocabulary'));
  const likelihood = scale(total(mul(actions, nllWeights)), -1);
  const gap = sub(gather(actions, index(graph, 'chosen', 'J')), gather(actions, index(graph, 'rejected', 'J')));
  const h = sub(gap, numbers(graph, 'referenceMargins', 'J'));
  if (!form.parts.has('ipo')) return add(logistic(graph, mul(h, numbers(graph, 'beta'))), likelihood);
  const error = sub(h, numbers(graph, 'target'));
  return add(total(mul(numbers(graph, 'pairWeights', 'J'), mul(error, error))), likelihood);
}

function policyGradient(form: Form, graph: Graph, { logits, scores }: Heads): Value {
  const gains = numbers(graph, 'gains', 'B'); // weight * advantage; made first, as above
  const { points, actions } = likelihoods(graph, logits!, form.parts.has('vocabulary'));
  let gain = actions;
  if (form.parts.has('clip')) {
    // min(r A, clip(r) A) bounds r above where A > 0 and below where A < 0. The bounds are put on log r, so that no ratio overflows.
    const logRatio = sub(actions, numbers(graph, 'oldLogProbabilities', 'B'));
    gain = exp(clip(logRatio, numbers(graph, 'lowest', 'B'), numbers(graph, 'highest', 'B')));
  }
  let loss = scale(total(mul(gains, gain)), -1);
  if (form.parts.has('reference')) {
    const d = sub(numbers(graph, 'referenceLogProbabilities', 'B'), actions);
    loss = add(loss, total(mul(numbers(graph, 'referenceWeights', 'B'), sub(sub(exp(d), d), graph.scalar(1)))));
  }
  if (form.parts.has('entropy')) {
    const negative = reshape(reduceSum(mul(exp(points), points), [1]), ['P']);
    loss = add(loss, total(mul(numbers(graph, 'entropyWeights', 'P'), negative)));
  }
  if (form.parts.has('values')) {
    const error = sub(gather(scores!, index(graph, 'valueReads', 'Y')), numbers(graph, 'valueTargets', 'Y'));
    loss = add(loss, total(mul(numbers(graph, 'valueWeights', 'Y'), mul(error, error))));
  }
  return loss;
}

function regression(form: Form, graph: Graph, scores: Value): Value {
  const error = sub(scores, numbers(graph, 'labels', 'P'));
  const weights = numbers(graph, 'weights', 'P');
  if (!form.parts.has('huber')) return total(mul(weights, mul(error, error)));
  // With c the error held within delta: c (e - c / 2).
  const delta = numbers(graph, 'huber');
  const held = clip(error, scale(delta, -1), delta);
  return total(mul(weights, mul(held, sub(error, scale(held, 0.5)))));
}

/** The loss [] of one micro-batch. The heads must have what the objective reads, which `checkObjective` and `batchFeeds` see to. */
export function lossOf(form: Form, graph: Graph, heads: Heads): Value {
  graph.section = 'loss';
  const { logits, scores } = heads;
  switch (form.objective) {
    case 'crossEntropy': {
      const picked = reshape(logLikelihood(logits!, graph.input('targets', 'int64', ['P', '1'])), ['P']);
      return scale(total(mul(picked, numbers(graph, 'weights', 'P'))), -1);
    }
    case 'softBCE':
      // BCE(sigma(s), y) = softplus(s) - y s
      return total(mul(numbers(graph, 'weights', 'P'), sub(softplus(scores!), mul(numbers(graph, 'labels', 'P'), scores!))));
    case 'bradleyTerry':
    case 'inverse': {
      const second = mul(gather(scores!, index(graph, 'second', 'J')), numbers(graph, 'secondFactors', 'J'));
      const z = sub(sub(gather(scores!, index(graph, 'first', 'J')), second), numbers(graph, 'margins', 'J'));
      return logistic(graph, z);
    }
    case 'regression':
      return regression(form, graph, scores!);
    case 'preference':
      return preference(form, graph, logits!);
    case 'policyGradient':
      return policyGradient(form, graph, heads);
  }
}

const OF_SCORES: readonly Objective[] = ['softBCE', 'bradleyTerry', 'inverse', 'regression'];

/** Refuses an objective that the model's heads cannot serve. */
export function checkObjective(objective: Objective, config: LlamaConfig): void {
  const ofScores = OF_SCORES.includes(objective);
  if (objective === 'regression' && hasValueHead(config)) return;
  if (ofScores !== isScore(config)) {
    const wanted = ofScores ? 'LlamaForSequenceClassification' : 'LlamaForCausalLM';
    throw badInput(`architecture for objective '${objective}'`, config.architectures[0], `it needs ${wanted}`);
  }
}
