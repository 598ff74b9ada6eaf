/**
 * Stages that answer at once, so that what is left is the loop itself: workflow, activities, children, store, records. Plans and gathering are the real
 * ones. Nothing is learnt: every update gives a new policy, and every policy is better than the one before.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { StageRegistry } from '../../activities/run-stage.ts';
import type { Stage } from '../../activities/stage.ts';
import type { EvaluateInput } from '../../activities/stages/measuring.ts';
import { stages as real } from '../../activities/stages/registry.ts';
import { digestJson } from '../../core/digest.ts';
import type { ArtifactRef, Estimate, ModelRef } from '../../core/nouns.ts';

const ref = (of: unknown): ArtifactRef => {
  const sha256 = digestJson(of);
  return { key: `objects/${sha256}`, sha256, bytes: 1 };
};
const model = (of: unknown): ModelRef => ({
  sha256: digestJson(of),
  files: { config: ref(['config', of]), weights: ref(['weights', of]), tokenizer: ref(['tokenizer', of]) },
});
const certain = (value: number): Estimate => ({ value, low: value, high: value, n: 1 });

/** How long a shard takes at least: for those who want to meet one at work. */
const SHARD_MS = Number(process.env['RATCHET_LIMITS_SHARD_MS'] ?? 0);

const makePanels: Stage<{ panels: Record<string, number> }, unknown> = async ({ panels }, { store }) => {
  const made = Object.entries(panels).map(async ([role, tasks]) => [role, { ref: await store.putJson({ role, tasks }), tasks }]);
  return Object.fromEntries(await Promise.all(made)) as unknown;
};

const rolloutShard: Stage<unknown, unknown> = async (input, { store }) => {
  if (SHARD_MS > 0) await delay(SHARD_MS);
  const played = await store.putJson(input);
  return { episodes: played, turns: played, dispatched: 1, completed: 1, failed: 0, abandoned: 0, successes: 1, turnCount: 1 };
};

const evaluate: Stage<EvaluateInput, unknown> = async (input, { store }) => ({
  evaluation: await store.putJson(input),
  panel: input.panel.sha256,
  episodes: input.episodes.sha256,
  policy: input.policy,
  strategy: input.strategy.kind,
  success: certain(0.5),
  turnsOnSuccess: certain(1),
  gain: null,
});

const answers: Record<string, Stage<never, unknown>> = {
  makePanels,
  rolloutShard,
  evaluate,
  warmStart: async (input) => ({ policy: model(input), report: {} }),
  makeLabels: async (input) => ({ labels: ref(input), report: {} }),
  fitRewardModel: async (input) => ({ rewardModel: model(input), report: { correlation: 1 } }),
  updatePolicy: async (input) => ({ candidates: [{ step: 1, policy: model(input) }], pairs: null, report: {} }),
};

export const stages: StageRegistry = Object.fromEntries(
  Object.entries(real).map(([name, { queue, run }]) => [name, { queue, run: (answers[name] ?? run) as Stage<unknown, unknown> }]),
);
