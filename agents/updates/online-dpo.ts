/**
 * Online DPO on process rewards (AgentPRM, arXiv 2502.10325, Stage 3): at the states of the policy's own rollouts, distinct candidates are drawn from
 * the *current* policy, the PRM picks the best and the worst, and the policy learns to prefer the one over the other, anchored to the policy that
 * collected (the reference). Candidates that are equal, rare or nearly tied give no pair.
 */
import type { Episode, ModelRef } from '../../core/nouns.ts';
import { Random, type RandomKey } from '../../core/random.ts';
import { mean } from '../../core/statistics.ts';
import { microBatches } from '../../learning/batch.ts';
import { initAdapter, type LoraOptions } from '../../learning/lora.ts';
import { createReader } from '../../learning/reader.ts';
import { rateFactor, type Schedule } from '../../learning/schedule.ts';
import { createTrainer } from '../../learning/trainer.ts';
import { train, type Split, type TrainingHooks } from '../../learning/training-loop.ts';
import type { Batch, Model, PreferenceTerms } from '../../learning/types.ts';
import type { DecisionTree, TurnDecisions } from '../decision-trees.ts';
import { distinctCommands } from '../strategy.ts';
import type { Tokens } from '../tokens.ts';
import { readDecisions, scoreEpisodes, type ScoredTree } from './scored-rollouts.ts';

export interface OnlineDpoSpec {
  /** Strength of the anchor to the reference policy (DPO, arXiv 2305.18290, Eq. 7). */
  beta: number;
  learningRate: number;
  weightDecay: number;
  steps: number;
  /** Episodes whose states one optimizer step sees. */
  batchEpisodes: number;
  /** Distinct candidates drawn per state. */
  candidates: number;
  /** Candidates that the policy gives less than this probability are dropped. */
  minProbability: number;
  /** Least difference in Q between the best and the worst candidate, in [0, 1]. */
  margin: number;
  /** Ends when the mean KL to the reference over a step's states exceeds this, nats per turn. */
  maxKl: number;
  /** A candidate policy is kept every so many steps, and at the end; validation chooses among them. */
  keepEvery: number;
  /** Weight of the mean negative log-likelihood of the commands of successful rollouts, an outcome term; 0 leaves the PRM alone. */
  outcomeWeight: number;
  /** `permuted` deals each state's scores out at random among its commands: a control that must not improve the policy. `no-prm` leaves only the outcome term. */
  control: 'none' | 'permuted' | 'no-prm';
  /** Only an adapter of this shape is trained (arXiv 2106.09685); candidates are the policy with it merged. Absent: all weights are. */
  lora?: Pick<LoraOptions, 'rank' | 'alpha' | 'targets'> | undefined;
}

export interface OnlineDpoReport {
  steps: number;
  pairs: number;
  /** Mean number of admissible commands of a state that the PRM scored. */
  scoredPerState: number;
  /** Mean difference in Q over the pairs. */
  meanMargin: number;
  /** Mean KL to the reference at the last step, nats per turn. */
  kl: number;
  loss: number;
  /** Where micro-batches were made smaller because memory ran out; absent where it never did. */
  splits?: Split[];
}

/** A pair as DPO was given it, for checking against the truth. */
export interface PairSample {
  task: string;
  family: string;
  /** Commands that lead to the state. */
  prefix: string[];
  chosen: string;
  rejected: string;
  chosenQ: number;
  rejectedQ: number;
}

/** A policy on the way, offered to validation. */
export interface Candidate {
  step: number;
  policy: ModelRef;
  /** Mean KL to the reference over the states of that step, nats per turn. */
  kl: number;
}

const WARM_UP_STEPS = 5;
const DECAY_FLOOR = 0.2;
/** Pairs remembered, a uniform sample, for the check against the truth: more than are ever checked, few enough to travel in a checkpoint. */
const PAIRS_REMEMBERED = 512;

/** What a checkpoint carries beside the trainer's state. */
interface Progress {
  candidates: Candidate[];
  pairs: PairSample[];
  pairCount: number;
  marginSum: number;
  kl: number;
}

export async function onlineDpo(
  options: {
    policy: Model;
    rewardModel: Model;
    episodes: readonly Episode[];
    tokens: Tokens;
    spec: OnlineDpoSpec;
    key: RandomKey;
    lanes: number;
    microBatches: number;
    /** Stores a candidate policy. */
    keep(model: Model): Promise<ModelRef>;
  },
  hooks: TrainingHooks,
): Promise<{ candidates: Candidate[]; pairs: PairSample[]; report: OnlineDpoReport }> {
  const { policy, spec, key, lanes } = options;
  const episodes = options.episodes.filter((episode) => episode.ending.kind === 'completed' && episode.turns.length > 0);
  const trees = await scoreEpisodes(policy, options.rewardModel, episodes, options, hooks);

  const trainer = await createTrainer(policy, {
    objective: 'preference',
    optimizer: { kind: 'adamw', beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: spec.weightDecay, clipNorm: 1 },
    lanes,
    ...(spec.lora && { adapter: initAdapter(policy, spec.lora, [...key, 'adapter']) }),
  });
  const reader = await createReader(policy, { lanes });
  const schedule: Schedule = { shape: 'cosine', steps: spec.steps, warmUp: WARM_UP_STEPS, floor: DECAY_FLOOR };
  let candidates: Candidate[] = [];
  let pairs: PairSample[] = [];
  let pairCount = 0;
  let marginSum = 0;
  let kl = 0;
  const perEpoch = Math.max(1, Math.floor(trees.length / spec.batchEpisodes));
  try {
    const { loss, steps, splits } = await train(
      {
        trainer,
        steps: spec.steps,
        phase: 'policy update',
        batches: async (step, parts) => {
          const order = new Random([...key, 'epoch', Math.floor(step / perEpoch)]).shuffled(trees);
          const at = (step % perEpoch) * spec.batchEpisodes;
          const chosen = order.slice(at, at + spec.batchEpisodes);
          reader.load(trainer.model());
          const now = await readDecisions(reader, chosen);
          kl = meanKl(chosen, now);
          const made = makeBatches(chosen, now, spec, options.microBatches * parts, new Random([...key, 'candidates', step]));
          for (const pair of made.pairs) {
            marginSum += pair.chosenQ - pair.rejectedQ;
            const place = new Random([...key, 'reservoir', pairCount]).below(++pairCount);
            if (pairs.length < PAIRS_REMEMBERED) pairs.push(pair);
            else if (place < PAIRS_REMEMBERED) pairs[place] = pair;
          }
          return made.batches;
        },
        rates: (step) => ({ learningRate: spec.learningRate * rateFactor(schedule, step) }),
        afterStep: async (step) => {
          const tooFar = kl > spec.maxKl;
          const done = step + 1;
          if (tooFar || done === spec.steps || done % spec.keepEvery === 0)
            candidates.push({ step: done, policy: await options.keep(trainer.model()), kl });
          return tooFar;
        },
        save: () => ({ candidates, pairs, pairCount, marginSum, kl }),
        restore: (state) => ({ candidates, pairs, pairCount, marginSum, kl } = state as Progress),
      },
      hooks,
    );
    const states = trees.reduce((sum, tree) => sum + tree.turns.length, 0);
    const scored = trees.reduce(
      (sum, tree) => sum + tree.scores.reduce((n, scores) => n + scores.filter((q) => !Number.isNaN(q)).length, 0),
      0,
    );
    const report = {
      steps,
      pairs: pairCount,
      scoredPerState: scored / Math.max(1, states),
      meanMargin: marginSum / Math.max(1, pairCount),
      kl,
      loss,
      ...(splits.length > 0 && { splits }),
    };
    return { candidates, pairs, report };
  } finally {
    await reader.close();
    await trainer.close();
  }
}

/** KL(current || reference), mean over the turns that have a choice, nats. */
function meanKl(trees: readonly ScoredTree[], now: Map<DecisionTree, Float64Array[]>): number {
  const values: number[] = [];
  for (const tree of trees) {
    (now.get(tree) as Float64Array[]).forEach((current, t) => {
      if (current.length < 2) return;
      let sum = 0;
      current.forEach(
        (logProbability, i) => (sum += Math.exp(logProbability) * (logProbability - ((tree.reference[t] as Float64Array)[i] as number))),
      );
      values.push(sum);
    });
  }
  return mean(values);
}

type ConstrainedTerms = PreferenceTerms & { allowed: number[][] };

/** The step's pairs and outcome terms, dealt over the micro-batches. Pairs weigh equally; so do the commands of successful episodes. */
function makeBatches(
  trees: readonly ScoredTree[],
  now: Map<DecisionTree, Float64Array[]>,
  spec: OnlineDpoSpec,
  count: number,
  random: Random,
): { batches: Batch[]; pairs: PairSample[] } {
  const samples: PairSample[] = [];
  const parts = microBatches(trees, count, ({ tree }) => tree.ids.length).map((part) => {
    const terms: ConstrainedTerms = {
      objective: 'preference',
      reads: [],
      allowed: [],
      actions: [],
      nllWeights: [],
      pairs: [],
      beta: spec.beta,
    };
    part.forEach((tree, index) => {
      tree.turns.forEach((turn, t) => {
        const current = (now.get(tree) as Float64Array[])[t] as Float64Array;
        const pair = spec.control === 'no-prm' ? null : bestAndWorst(current, tree.scores[t] as Float64Array, spec, random);
        const outcome = spec.outcomeWeight > 0 && tree.episode.outcome === 1 && turn.commands.length > 1;
        if (!pair && !outcome) return;
        const add = actionsOf(terms, index, turn);
        if (pair) {
          const reference = tree.reference[t] as Float64Array;
          const referenceMargin = (reference[pair.best] as number) - (reference[pair.worst] as number);
          terms.pairs.push({ chosen: add(pair.best, 0), rejected: add(pair.worst, 0), referenceMargin, weight: 1 });
          samples.push(sampleOf(tree, t, pair.best, pair.worst));
        }
        if (outcome) add(turn.executed, 1);
      });
    });
    return { part, terms };
  });
  const pairTotal = parts.reduce((sum, { terms }) => sum + terms.pairs.length, 0);
  const outcomeTotal = parts.reduce((sum, { terms }) => sum + terms.nllWeights.filter((weight) => weight > 0).length, 0);
  const batches = parts.map(({ part, terms }): Batch => {
    for (const pair of terms.pairs) pair.weight = 1 / pairTotal;
    terms.nllWeights = terms.nllWeights.map((weight) => (weight > 0 ? spec.outcomeWeight / outcomeTotal : 0));
    return { trees: part.map(({ tree }) => tree), terms };
  });
  return { batches, pairs: samples };
}

function bestAndWorst(
  current: Float64Array,
  scores: Float64Array,
  spec: OnlineDpoSpec,
  random: Random,
): { best: number; worst: number } | null {
  const candidates = distinctCommands(current, spec.candidates, spec.minProbability, random).filter(
    (index) => !Number.isNaN(scores[index]),
  );
  if (candidates.length < 2) return null;
  let best = candidates[0] as number;
  let worst = best;
  for (const index of candidates) {
    if ((scores[index] as number) > (scores[best] as number)) best = index;
    if ((scores[index] as number) < (scores[worst] as number)) worst = index;
  }
  return (scores[best] as number) - (scores[worst] as number) >= spec.margin ? { best, worst } : null;
}

/** Adds the turn's decision points to the terms once, and returns a function that adds one of its commands as an action. */
function actionsOf(terms: ConstrainedTerms, tree: number, turn: TurnDecisions): (command: number, nllWeight: number) => number {
  const base = terms.reads.length;
  turn.tree.points.forEach((point, p) => {
    terms.reads.push({ tree, node: turn.pointNodes[p] as number });
    terms.allowed.push(point.allowed);
  });
  return (command, nllWeight) => {
    const choices = turn.tree.choices[command] as ActionChoices;
    terms.nllWeights.push(nllWeight);
    return (
      terms.actions.push(
        choices.map(({ point, option }) => ({ point: base + point, token: turn.tree.points[point]?.allowed[option] as number })),
      ) - 1
    );
  };
}

type ActionChoices = TurnDecisions['tree']['choices'][number];

function sampleOf(tree: ScoredTree, t: number, best: number, worst: number): PairSample {
  const { episode } = tree;
  const turn = episode.turns[t];
  const scores = tree.scores[t] as Float64Array;
  return {
    task: episode.task,
    family: episode.family,
    prefix: episode.turns.slice(0, t).map(({ action }) => action),
    chosen: turn?.admissible[best] as string,
    rejected: turn?.admissible[worst] as string,
    chosenQ: scores[best] as number,
    rejectedQ: scores[worst] as number,
  };
}
