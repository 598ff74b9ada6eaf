/**
 * The improvement loop, as the algorithm: warm start, then per iteration collect, label, fit the reward model, update the policy, validate, gate, report,
 * record. Decisions only: it holds references and scalars, and every piece of work is a stage that it calls. It knows nothing of Temporal;
 * `workflows/durable-loop.ts` makes it durable and `bench/inline-loop.ts` runs it in one process, with the same final digests.
 */
import type { StrategySpec } from '../agents/strategy.ts';
import type { Evaluated } from '../activities/stages/measuring.ts';
import type { PanelRef, Panels } from '../activities/stages/panels.ts';
import type { Stages } from '../activities/stages/registry.ts';
import type { Actor, Gathered } from '../activities/stages/rollouts.ts';
import type { RecordEntry, RecordRef } from '../artifacts/record.ts';
import type { ArtifactRef, ModelRef } from '../core/nouns.ts';
import type { RandomKey } from '../core/random.ts';
import type { Amendment } from '../recipes/amend.ts';
import type { Recipe } from '../recipes/schema.ts';

/** The stages, each called with its input alone; whoever runs the loop says how. */
export type StageCalls = { [Name in keyof Stages]: (input: Parameters<Stages[Name]>[0]) => ReturnType<Stages[Name]> };

export interface LoopCalls extends Omit<StageCalls, 'rolloutShard'> {
  /** Plays every shard of a plan, as many at once as whoever runs the loop sees fit; `gatherRollouts` finds their results in the store. */
  rolloutShards(planned: { plan: ArtifactRef; shards: number }): Promise<void>;
  /** Appends to the run's chain of records. */
  appendRecord(entry: RecordEntry): Promise<RecordRef>;
  /** Asks a person whether what validation would promote is promoted. Only called where the recipe says so (`gate.approval`). */
  approve(question: ApprovalQuestion): Promise<Verdict>;
}

/** A person's answer; `unanswered` where the run was stopped while it waited: then nothing is promoted, and nobody decided so. */
export type Verdict = 'approved' | 'rejected' | 'unanswered';

export interface ApprovalQuestion {
  iteration: number;
  /** Digest of the candidate. */
  policy: string;
  /** Validation success of the candidate and of the policy at hand, in [0, 1]. */
  score: number;
  incumbentScore: number;
}

/** What the loop is doing, for people to see. */
export type Phase =
  | 'warm start'
  | 'collect'
  | 'label'
  | 'fit reward model'
  | 'update policy'
  | 'check pairs'
  | 'validate'
  | 'approval'
  | 'report'
  | 'record'
  | 'finished';
export type Tell = (phase: Phase) => void;

/** All that one iteration hands to the next: references and scalars, far below any payload limit. */
export interface LoopState {
  /** The last iteration that is closed; 0 is the warm start. */
  iteration: number;
  head: RecordRef;
  panels: Panels;
  demonstrations: ArtifactRef;
  /** Tasks of the train panel that are used: demonstrations take the first, each collection the next ones, whatever was amended in between. */
  tasksUsed: number;
  policy: ModelRef;
  /** The reports of the current policy, by panel and strategy, for the gains of the next one. */
  reports: Record<string, Evaluated>;
}

/** Iteration 0: demonstrations -> supervised policy pi_0 -> report. Opens the chain of records. */
export async function warmStart(recipe: Recipe, initial: ModelRef | null, calls: LoopCalls, tell: Tell): Promise<LoopState> {
  tell('warm start');
  const { seed, environment, warmStart: spec } = recipe;
  const panels = await calls.makePanels({ seed, environment, panels: recipe.panels });
  const genesis = await calls.appendRecord({ index: 0, kind: 'genesis', iteration: 0, previous: null, body: { recipe, initial, panels } });
  const intent = await calls.appendRecord({
    index: 1,
    kind: 'intent',
    iteration: 0,
    previous: genesis.sha256,
    body: { from: initial, demonstrations: spec.demonstrations, seed },
  });

  const demonstrator: Actor = { kind: 'demonstrator', habits: spec.habits, noise: spec.noise };
  const demonstrations = await rollOut(recipe, calls, panels.train, {
    from: 0,
    count: spec.demonstrations,
    actor: demonstrator,
    key: [seed, 'demonstrate'],
  });
  const trained = await calls.warmStart({
    environment: environment.name,
    policy: recipe.policy,
    spec,
    episodes: demonstrations.set,
    initial,
    key: [seed, 'warm start'],
    microBatches: recipe.work.microBatches,
  });

  tell('report');
  const reports = await report(recipe, calls, panels, trained.policy, null, {});
  tell('record');
  const head = await calls.appendRecord({
    index: 2,
    kind: 'outcome',
    iteration: 0,
    previous: intent.sha256,
    body: { policy: trained.policy, demonstrations, warmStart: trained.report, reports },
  });
  return {
    iteration: 0,
    head,
    panels,
    demonstrations: demonstrations.set,
    tasksUsed: spec.demonstrations,
    policy: trained.policy,
    reports,
  };
}

/**
 * Iteration 0 of a run that forks from another: its genesis names the record of the parent that it goes on from, and holds what the parent had
 * reached there. Nothing is computed.
 */
export async function fork(recipe: Recipe, initial: ModelRef | null, parent: LoopState, calls: LoopCalls): Promise<LoopState> {
  const { head, ...reached } = parent;
  const genesis = await calls.appendRecord({
    index: 0,
    kind: 'genesis',
    iteration: reached.iteration,
    previous: null,
    body: { recipe, initial, parent: head, ...reached },
  });
  return { ...parent, head: genesis };
}

/**
 * One turn of the loop: pi_{i-1} -> rollouts -> labels -> Q_i -> pi_i, promoted only if validation says so. `amendments` are what operators changed in
 * the recipe since the iteration before; `recipe` holds them already.
 */
export async function iterate(
  recipe: Recipe,
  state: LoopState,
  calls: LoopCalls,
  tell: Tell,
  amendments: readonly Amendment[] = [],
): Promise<LoopState> {
  const iteration = state.iteration + 1;
  const { seed, collect, label, work } = recipe;
  const { policy, panels } = state;
  const environment = recipe.environment.name;
  const keyOf = (stage: string): RandomKey => [seed, stage, iteration];
  const first = state.head.index + 1;
  const intent = await calls.appendRecord({
    index: first,
    kind: 'intent',
    iteration,
    previous: state.head.sha256,
    body: {
      from: policy,
      collect,
      label,
      rewardModel: recipe.rewardModel,
      update: recipe.update,
      seed,
      ...(amendments.length > 0 && { amendments }),
    },
  });

  tell('collect');
  const sampling: StrategySpec = { kind: 'sample', temperature: collect.temperature };
  const actor: Actor = { kind: 'policy', policy, strategy: sampling, rewardModel: null };
  const from = state.tasksUsed;
  const rollouts = await rollOut(recipe, calls, panels.train, {
    from,
    count: collect.tasks,
    repeats: collect.repeats,
    actor,
    key: keyOf('collect'),
  });

  tell('label');
  const labels = await calls.makeLabels({ episodes: rollouts.set, spec: label, key: keyOf('label') });

  tell('fit reward model');
  const common = { environment, policy, episodes: rollouts.set, microBatches: work.microBatches };
  const q = await calls.fitRewardModel({ ...common, labels: labels.labels, spec: recipe.rewardModel, key: keyOf('fit') });

  // Whoever learns from a reward model that predicts nothing on held-out games learns its noise.
  const informed = !readsRewardModel(recipe.update) || q.report.correlation >= recipe.gate.minCorrelation;
  if (informed) tell('update policy');
  const update = informed
    ? await calls.updatePolicy({
        ...common,
        rewardModel: q.rewardModel,
        demonstrations: state.demonstrations,
        spec: recipe.update,
        key: keyOf('update'),
      })
    : null;

  if (update) tell('check pairs');
  const truth = update?.pairs ? await checkPairs(recipe, calls, panels.train, actor, update.pairs, keyOf('pair truth')) : null;

  tell('validate');
  const incumbent = await validate(recipe, calls, panels, policy);
  const candidates = await Promise.all(
    (update?.candidates ?? []).map(async (candidate) => ({
      ...candidate,
      validation: await validate(recipe, calls, panels, candidate.policy),
    })),
  );
  const best = candidates.reduce<(typeof candidates)[number] | null>(
    (a, b) => (a && a.validation.score >= b.validation.score ? a : b),
    null,
  );
  const better = best !== null && best.validation.score - incumbent.score >= recipe.gate.minGain ? best : null;
  const scores = { score: best?.validation.score ?? incumbent.score, incumbentScore: incumbent.score };
  const asked = better !== null && recipe.gate.approval === 'person';
  if (asked) tell('approval');
  const verdict = asked ? await calls.approve({ iteration, policy: better.policy.sha256, ...scores }) : null;
  const promoted = verdict === null || verdict === 'approved' ? better : null;
  const decision = {
    promoted: promoted !== null,
    step: promoted?.step ?? 0,
    ...scores,
    minGain: recipe.gate.minGain,
    ...(verdict !== null && { verdict }),
  };
  const next = promoted?.policy ?? policy;

  tell('report');
  const reports = await report(recipe, calls, panels, next, q.rewardModel, state.reports);

  tell('record');
  const head = await calls.appendRecord({
    index: first + 1,
    kind: 'outcome',
    iteration,
    previous: intent.sha256,
    body: {
      policy: next,
      rollouts,
      labels,
      rewardModel: q,
      update,
      pairTruth: truth,
      validation: { incumbent, candidates },
      decision,
      reports,
    },
  });
  return { ...state, iteration, head, tasksUsed: from + collect.tasks, policy: next, reports };
}

/** Whether the update asks the reward model anything; supervised ones and the control without it do not. */
function readsRewardModel(update: Recipe['update']): boolean {
  return update.kind === 'online-dpo' && update.control !== 'no-prm';
}

interface RollOut {
  from?: number;
  count?: number;
  repeats?: number;
  slots?: ArtifactRef;
  actor: Actor;
  key: RandomKey;
}

/** Plans the episodes, plays the shards, gathers them. */
async function rollOut(
  recipe: Recipe,
  calls: LoopCalls,
  panel: PanelRef,
  { from = 0, count = panel.tasks, repeats = 1, slots, actor, key }: RollOut,
): Promise<Gathered> {
  const { shardEpisodes, liveEpisodes } = recipe.work;
  const { plan, shards } = await calls.planRollouts({
    environment: recipe.environment.name,
    panel: panel.ref,
    from,
    count,
    repeats,
    slots: slots ?? null,
    actor,
    key,
    shardEpisodes,
    liveEpisodes,
    context: recipe.policy.context,
  });
  await calls.rolloutShards({ plan, shards });
  return calls.gatherRollouts({ plan });
}

/** Plays a policy once on every task of a panel under a strategy and evaluates it. The same policy on the same panel is measured once, whatever the iteration. */
async function measure(
  recipe: Recipe,
  calls: LoopCalls,
  panel: PanelRef,
  role: string,
  policy: ModelRef,
  strategy: StrategySpec,
  rewardModel: ModelRef | null,
  before: Evaluated | undefined,
): Promise<Evaluated> {
  const asked = strategy.kind === 'best-of-n' ? rewardModel : null;
  const actor: Actor = { kind: 'policy', policy, strategy, rewardModel: asked };
  const key = [recipe.seed, role, strategy.kind];
  const { set } = await rollOut(recipe, calls, panel, { actor, key });
  return calls.evaluate({
    panel: panel.ref,
    episodes: set,
    policy: policy.sha256,
    strategy,
    before: before?.evaluation ?? null,
    key: [...key, 'gain'],
  });
}

/** Mean share of the validation panel that is solved, over the gate's strategies; a game whose episode failed is not solved. */
async function validate(
  recipe: Recipe,
  calls: LoopCalls,
  panels: Panels,
  policy: ModelRef,
): Promise<{ score: number; evaluations: Evaluated[] }> {
  const evaluations = await Promise.all(
    recipe.gate.strategies.map((strategy) => measure(recipe, calls, panels.validation, 'validation', policy, strategy, null, undefined)),
  );
  const solved = evaluations.map(({ success }) => Math.round(success.value * success.n) / panels.validation.tasks);
  return { score: solved.reduce((sum, share) => sum + share, 0) / solved.length, evaluations };
}

/** Measures the policy on the report panels; nothing is decided by it. Strategies that need a reward model wait for the first one. */
async function report(
  recipe: Recipe,
  calls: LoopCalls,
  panels: Panels,
  policy: ModelRef,
  rewardModel: ModelRef | null,
  before: Record<string, Evaluated>,
): Promise<Record<string, Evaluated>> {
  const wanted = recipe.report.panels.flatMap((role) => recipe.report.strategies.map((strategy) => ({ role, strategy })));
  const possible = wanted.filter(({ strategy }) => rewardModel !== null || strategy.kind !== 'best-of-n');
  const entries = await Promise.all(
    possible.map(async ({ role, strategy }) => {
      const measured = await measure(recipe, calls, panels[role], role, policy, strategy, rewardModel, before[`${role} ${strategy.kind}`]);
      return [`${role} ${strategy.kind}`, measured] as const;
    }),
  );
  return Object.fromEntries(entries);
}

/** Continues a sample of the pairs that the update was given, by fresh rollouts of the policy whose Q they were judged by. */
async function checkPairs(recipe: Recipe, calls: LoopCalls, panel: PanelRef, actor: Actor, pairs: ArtifactRef, key: RandomKey) {
  const { pairs: count, continuations } = recipe.pairTruth;
  const planned = await calls.planPairTruth({ pairs, count, continuations, key });
  if (planned.count === 0) return null;
  const { set } = await rollOut(recipe, calls, panel, { slots: planned.slots, actor, key });
  return calls.pairTruth({ pairs: planned.pairs, episodes: set, continuations, discount: recipe.label.discount });
}
