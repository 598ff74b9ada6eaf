/** The training stages: warm start, labels, reward model, policy update. Thin: each loads its inputs, calls the part that does the work, stores what came out. */
import { readTable, writeTable } from '../../artifacts/table.ts';
import { onlineDpo, type Candidate, type OnlineDpoReport, type PairSample } from '../../agents/updates/online-dpo.ts';
import { trainSupervised, type SupervisedReport } from '../../agents/updates/supervised.ts';
import { encodeEpisode, Tokens } from '../../agents/tokens.ts';
import type { ArtifactRef, ModelRef } from '../../core/nouns.ts';
import type { RandomKey } from '../../core/random.ts';
import { tokenFactors } from '../../environments/codec-factors.ts';
import { worldNamed } from '../../environments/registry.ts';
import { initModel, llamaConfig } from '../../learning/model.ts';
import type { Model } from '../../learning/types.ts';
import type { Recipe } from '../../recipes/schema.ts';
import { makeLabels as label, type LabelReport } from '../../rewards/labels.ts';
import { fitRewardModel as fit, type LabelledEpisode, type RewardModelReport } from '../../rewards/reward-model.ts';
import type { Stage } from '../stage.ts';
import { loadModel, saveModel } from './models.ts';
import { loadEpisodes } from './rollouts.ts';
import { lanes } from './lanes.ts';

export interface WarmStartInput {
  environment: string;
  policy: Recipe['policy'];
  spec: Recipe['warmStart'];
  episodes: ArtifactRef;
  /** A stored model to start from; null: from nothing. */
  initial: ModelRef | null;
  key: RandomKey;
  microBatches: number;
}

export const warmStart: Stage<WarmStartInput, { policy: ModelRef; report: SupervisedReport }> = async (input, context) => {
  const world = worldNamed(input.environment);
  const episodes = await loadEpisodes(context, input.episodes);
  const { layers, width, heads, feedForward, context: longest } = input.policy;
  const size = { vocabulary: world.codec.vocabulary.length, layers, width, heads, feedForward, context: longest };
  const factors = tokenFactors(world.codec);
  const initial = input.initial
    ? await loadModel(context.store, input.initial, world.codec)
    : initModel(llamaConfig(size), [...input.key, 'init'], factors);
  const { model, report } = await trainSupervised(
    {
      initial,
      episodes,
      tokens: new Tokens(world.codec),
      spec: input.spec,
      key: input.key,
      lanes: lanes(),
      microBatches: input.microBatches,
      phase: 'warm start',
      ...(input.initial ? {} : { factors }),
    },
    context,
  );
  return { policy: await saveModel(context.store, model, world), report };
};

export interface LabelInput {
  episodes: ArtifactRef;
  spec: Recipe['label'];
  key: RandomKey;
}

const LABEL_COLUMNS = { episode: 'string', turn: 'int', value: 'double', visits: 'int' } as const;

export const makeLabels: Stage<LabelInput, { labels: ArtifactRef; report: LabelReport }> = async (input, context) => {
  const { store } = context;
  const { labels, report } = label(await loadEpisodes(context, input.episodes), input.spec, input.key);
  const bytes = writeTable(LABEL_COLUMNS, {
    episode: labels.map(({ episode }) => episode),
    turn: labels.map(({ turn }) => turn),
    value: labels.map(({ value }) => value),
    visits: labels.map(({ visits }) => visits),
  });
  return { labels: await store.put(bytes), report };
};

export interface RewardModelInput {
  environment: string;
  policy: ModelRef;
  episodes: ArtifactRef;
  labels: ArtifactRef;
  spec: Recipe['rewardModel'];
  key: RandomKey;
  microBatches: number;
}

export const fitRewardModel: Stage<RewardModelInput, { rewardModel: ModelRef; report: RewardModelReport }> = async (input, context) => {
  const { store } = context;
  const world = worldNamed(input.environment);
  const tokens = new Tokens(world.codec);
  const table = await readTable(LABEL_COLUMNS, await store.get(input.labels));
  const labels = new Map(table.value.map((value, row) => [`${table.episode[row]} ${table.turn[row]}`, value]));
  const episodes = (await loadEpisodes(context, input.episodes))
    .filter((episode) => episode.ending.kind === 'completed')
    .map((episode): LabelledEpisode => {
      const { ids, actionEnds } = encodeEpisode(tokens, episode);
      const labelled = actionEnds
        .map((read, turn) => ({ read, value: labels.get(`${episode.id} ${turn}`) }))
        .filter((one): one is { read: number; value: number } => one.value !== undefined);
      return { task: episode.task, ids, reads: labelled.map(({ read }) => read), labels: labelled.map(({ value }) => value) };
    });
  const policy = await loadModel(store, input.policy, world.codec);
  const { model, report } = await fit(
    { policy, episodes, spec: input.spec, key: input.key, lanes: lanes(), microBatches: input.microBatches },
    context,
  );
  return { rewardModel: await saveModel(store, model, world), report };
};

export interface UpdateInput {
  environment: string;
  policy: ModelRef;
  rewardModel: ModelRef;
  /** The rollouts of `policy`. */
  episodes: ArtifactRef;
  /** The demonstrations of the warm start. */
  demonstrations: ArtifactRef;
  spec: Recipe['update'];
  key: RandomKey;
  microBatches: number;
}

export interface UpdateOutput {
  candidates: Candidate[];
  /** Pairs that DPO was given, a uniform sample (JSON); null for updates without pairs. */
  pairs: ArtifactRef | null;
  report: OnlineDpoReport | SupervisedReport;
}

export const updatePolicy: Stage<UpdateInput, UpdateOutput> = async (input, context) => {
  const { store } = context;
  const world = worldNamed(input.environment);
  const tokens = new Tokens(world.codec);
  const policy = await loadModel(store, input.policy, world.codec);
  const common = { tokens, key: input.key, lanes: lanes(), microBatches: input.microBatches };
  const { spec } = input;
  if (spec.kind === 'online-dpo') {
    const [rewardModel, episodes] = [await loadModel(store, input.rewardModel, world.codec), await loadEpisodes(context, input.episodes)];
    const keep = (model: Model) => saveModel(store, model, world);
    const { candidates, pairs, report } = await onlineDpo({ policy, rewardModel, episodes, spec, keep, ...common }, context);
    return { candidates, pairs: await store.putJson(pairs satisfies PairSample[]), report };
  }
  const all = await loadEpisodes(context, spec.kind === 'rejection-sft' ? input.episodes : input.demonstrations);
  const episodes = spec.kind === 'rejection-sft' ? all.filter((episode) => episode.outcome === 1) : all;
  // Nothing to learn from is no failure: the gate then keeps the policy.
  if (episodes.length === 0) return { candidates: [], pairs: null, report: { episodes: 0, steps: 0, tokens: 0, loss: 0 } };
  const { model, report } = await trainSupervised({ initial: policy, episodes, spec, phase: 'policy update', ...common }, context);
  return { candidates: [{ step: report.steps, policy: await saveModel(store, model, world), kl: 0 }], pairs: null, report };
};
