/**
 * What a run's records say, as the commands read them: the bodies that `workflows/improvement-loop.ts` writes, joined per iteration.
 * Reads only the store, never Temporal, and changes nothing.
 */
import type { Evaluated } from '../activities/stages/measuring.ts';
import type { Panels } from '../activities/stages/panels.ts';
import type { Gathered } from '../activities/stages/rollouts.ts';
import type { UpdateOutput } from '../activities/stages/training.ts';
import type { PairTruth } from '../agents/pair-truth.ts';
import type { SupervisedReport } from '../agents/updates/supervised.ts';
import type { RecordEntry, RecordRef } from '../artifacts/record.ts';
import type { ArtifactRef, ModelRef } from '../core/nouns.ts';
import { amendRecipe, type Amendment } from '../recipes/amend.ts';
import type { Recipe } from '../recipes/schema.ts';
import type { LabelReport } from '../rewards/labels.ts';
import type { RewardModelReport } from '../rewards/reward-model.ts';
import type { LoopState, Verdict } from '../workflows/improvement-loop.ts';

export interface GenesisBody extends Partial<Pick<LoopState, 'policy' | 'demonstrations' | 'tasksUsed' | 'reports' | 'iteration'>> {
  recipe: Recipe;
  initial: ModelRef | null;
  panels: Panels;
  /** Only of a run that forked: the parent's record that it goes on from. The other optional fields are what the parent had reached there. */
  parent?: RecordRef;
}

/** Of iteration 0. */
export interface WarmStartBody {
  policy: ModelRef;
  demonstrations: Gathered;
  warmStart: SupervisedReport;
  reports: Record<string, Evaluated>;
}

export interface Validation {
  score: number;
  evaluations: Evaluated[];
}

export interface Decision {
  promoted: boolean;
  /** Optimizer step of the promoted candidate; 0 where none was. */
  step: number;
  score: number;
  incumbentScore: number;
  minGain: number;
  /** Only where a person was asked. */
  verdict?: Verdict;
}

/** Of iterations from 1 on. */
export interface IterationBody {
  policy: ModelRef;
  rollouts: Gathered;
  labels: { labels: ArtifactRef; report: LabelReport };
  rewardModel: { rewardModel: ModelRef; report: RewardModelReport };
  /** Null where the reward model predicted too little to learn from (`gate.minCorrelation`). */
  update: UpdateOutput | null;
  pairTruth: PairTruth | null;
  validation: { incumbent: Validation; candidates: (UpdateOutput['candidates'][number] & { validation: Validation })[] };
  decision: Decision;
  reports: Record<string, Evaluated>;
}

/** One closed iteration. */
export interface Iteration {
  iteration: number;
  head: RecordRef;
  body: WarmStartBody | IterationBody;
}

/** All that the records of a run say. */
export interface RunRecords {
  genesis: GenesisBody;
  iterations: Iteration[];
  /** The newest record, closed or not. */
  head: RecordRef;
  entries: { entry: RecordEntry; ref: RecordRef }[];
}

export function isIterationBody(body: WarmStartBody | IterationBody): body is IterationBody {
  return 'decision' in body;
}

/** Joins a chain of records, in order. Null for a chain without its first record. */
export function joinRecords(entries: { entry: RecordEntry; ref: RecordRef }[]): RunRecords | null {
  const [first] = entries;
  const last = entries.at(-1);
  if (!first || !last) return null;
  return {
    genesis: first.entry.body as GenesisBody,
    iterations: entries
      .filter(({ entry }) => entry.kind === 'outcome')
      .map(({ entry, ref }) => ({ iteration: entry.iteration, head: ref, body: entry.body as WarmStartBody | IterationBody })),
    head: last.ref,
    entries,
  };
}

/** The state after the last closed iteration, as the loop itself would hold it: what a run goes on from when Temporal has forgotten it. */
export function loopStateOf(records: RunRecords): LoopState | null {
  return stateAfter(records, records.iterations.at(-1)?.iteration ?? null);
}

/** The state after a closed iteration; null: after the genesis of a run that forked. Null where there is no such state. */
export function stateAfter({ genesis, iterations, entries }: RunRecords, iteration: number | null): LoopState | null {
  const { panels, recipe, parent, policy, demonstrations, reports } = genesis;
  const first = iterations[0]?.body;
  const made = first && !isIterationBody(first) ? first.demonstrations.set : demonstrations;
  const closed = iterations.find((each) => each.iteration === iteration);
  const opening = entries[0];
  if (!made || !opening) return null;
  const collected = entries
    .filter(({ entry }) => entry.kind === 'intent' && iteration !== null && entry.iteration <= iteration)
    .map(({ entry }) => (entry.body as { collect?: Recipe['collect'] }).collect?.tasks ?? 0);
  const tasksUsed = collected.reduce((sum, tasks) => sum + tasks, genesis.tasksUsed ?? recipe.warmStart.demonstrations);
  const common = { panels, demonstrations: made, tasksUsed };
  if (closed)
    return { ...common, iteration: closed.iteration, head: closed.head, policy: closed.body.policy, reports: closed.body.reports };
  if (!parent || !policy || !reports || (iteration !== null && iteration !== opening.entry.iteration)) return null;
  return { ...common, iteration: opening.entry.iteration, head: opening.ref, policy, reports };
}

/**
 * The recipe after the last closed iteration (or after `iteration`): that of the genesis with what operators amended since. `pending` was amended for
 * the iteration under way.
 */
export function recipeAfter(
  records: RunRecords,
  iteration: number = records.iterations.at(-1)?.iteration ?? openingOf(records),
): { recipe: Recipe; pending: Amendment[] } {
  let { recipe } = records.genesis;
  let pending: Amendment[] = [];
  for (const { entry } of records.entries) {
    if (entry.kind !== 'intent') continue;
    const { amendments = [] } = entry.body as { amendments?: Amendment[] };
    if (entry.iteration <= iteration) recipe = amendRecipe(recipe, amendments);
    else if (entry.iteration === iteration + 1) pending = amendments;
  }
  return { recipe, pending };
}

/** The iteration that a run without a closed one stands after: its parent's for a fork, none for any other. */
function openingOf({ genesis, entries }: RunRecords): number {
  return genesis.parent ? (entries[0]?.entry.iteration ?? -1) : -1;
}

/** Whether every iteration is closed that the recipe, as amended, asks for. */
export function isFinished(records: RunRecords): boolean {
  return (records.iterations.at(-1)?.iteration ?? -1) >= recipeAfter(records).recipe.iterations;
}
