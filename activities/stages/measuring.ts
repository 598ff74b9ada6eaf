/** The measuring stages: evaluations of policies on panels, and the check of preference pairs against the truth. */
import { evaluate as evaluateEpisodes, gain, type Evaluation } from '../../agents/evaluation.ts';
import { pairTruth as verdict, samplePairs, truthSlots, type PairTruth } from '../../agents/pair-truth.ts';
import { strategyName, type StrategySpec } from '../../agents/strategy.ts';
import type { PairSample } from '../../agents/updates/online-dpo.ts';
import type { Sha256 } from '../../core/digest.ts';
import type { ArtifactRef, Estimate, TaskPanel } from '../../core/nouns.ts';
import type { RandomKey } from '../../core/random.ts';
import type { Stage } from '../stage.ts';
import { loadEpisodes } from './rollouts.ts';

export interface EvaluateInput {
  panel: ArtifactRef;
  episodes: ArtifactRef;
  policy: Sha256;
  strategy: StrategySpec;
  /** The evaluation to compare with, of the same panel; null for none. */
  before: ArtifactRef | null;
  key: RandomKey;
}

/** An evaluation in short; the whole is in the store. */
export interface Evaluated {
  evaluation: ArtifactRef;
  panel: Sha256;
  /** Digest of the episode set that the numbers come from. */
  episodes: Sha256;
  policy: Sha256;
  strategy: string;
  success: Estimate;
  turnsOnSuccess: Estimate;
  /** Gain over `before`, paired by task. */
  gain: Estimate | null;
}

export const evaluate: Stage<EvaluateInput, Evaluated> = async (input, context) => {
  const { store } = context;
  const panel = await store.getJson<TaskPanel>(input.panel);
  const episodes = await loadEpisodes(context, input.episodes);
  const taskIds = panel.tasks.map(({ id }) => id);
  const strategy = strategyName(input.strategy);
  const evaluation = evaluateEpisodes(episodes, input.panel.sha256, taskIds, input.policy, strategy);
  const before = input.before ? await store.getJson<Evaluation>(input.before) : null;
  return {
    evaluation: await store.putJson(evaluation),
    panel: input.panel.sha256,
    episodes: input.episodes.sha256,
    policy: input.policy,
    strategy,
    success: evaluation.success,
    turnsOnSuccess: evaluation.turnsOnSuccess,
    gain: before ? gain(before, evaluation, input.key) : null,
  };
};

/** Picks the pairs to check and lays out their continuations as slots for `planRollouts`. */
export const planPairTruth: Stage<
  { pairs: ArtifactRef; count: number; continuations: number; key: RandomKey },
  { pairs: ArtifactRef; slots: ArtifactRef; count: number }
> = async (input, { store }) => {
  const sampled = samplePairs(await store.getJson<PairSample[]>(input.pairs), input.count, input.key);
  return {
    pairs: await store.putJson(sampled),
    slots: await store.putJson(truthSlots(sampled, input.continuations)),
    count: sampled.length,
  };
};

export const pairTruth: Stage<{ pairs: ArtifactRef; episodes: ArtifactRef; continuations: number; discount: number }, PairTruth> = async (
  input,
  context,
) =>
  verdict(
    await context.store.getJson<PairSample[]>(input.pairs),
    await loadEpisodes(context, input.episodes),
    input.continuations,
    input.discount,
  );
