/** Every stage by name, and the queue whose workers run it. A stage is added by adding a line. */
import type { Queue, Stage } from '../stage.ts';
import { evaluate, pairTruth, planPairTruth } from './measuring.ts';
import { makePanels } from './panels.ts';
import { gatherRollouts, planRollouts, rolloutShard } from './rollouts.ts';
import { fitRewardModel, makeLabels, updatePolicy, warmStart } from './training.ts';

const implementations = {
  makePanels,
  planRollouts,
  rolloutShard,
  gatherRollouts,
  warmStart,
  makeLabels,
  fitRewardModel,
  updatePolicy,
  evaluate,
  planPairTruth,
  pairTruth,
};

/** The stages as typed functions, for callers that run them directly. */
export type Stages = typeof implementations;
export type StageName = keyof Stages;

const GPU: readonly StageName[] = ['warmStart', 'fitRewardModel', 'updatePolicy'];
const CPU: readonly StageName[] = ['makePanels', 'rolloutShard', 'makeLabels', 'evaluate', 'pairTruth'];

export const stages = Object.fromEntries(
  (Object.keys(implementations) as StageName[]).map((name) => [
    name,
    { queue: queueOf(name), run: implementations[name] as Stage<never, unknown> },
  ]),
) as unknown as Record<StageName, { queue: Queue; run: Stage<unknown, unknown> }>;

/** `gpu` for training, `cpu` for everything that plays or reads episodes, `loop` for bookkeeping. */
export function queueOf(name: StageName): Queue {
  return GPU.includes(name) ? 'gpu' : CPU.includes(name) ? 'cpu' : 'loop';
}
