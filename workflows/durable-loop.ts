/**
 * The improvement loop as a Temporal workflow: every stage call is an activity on the queue of its resource, operators speak to it by validated updates,
 * and it continues as new at iteration boundaries. What is computed is in `workflows/improvement-loop.ts`.
 */
import {
  allHandlersFinished,
  ApplicationFailure,
  condition,
  defineQuery,
  defineUpdate,
  makeContinueAsNewFunc,
  setHandler,
  setCurrentDetails,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import { defineSearchAttributeKey, SearchAttributeType } from '@temporalio/common';
import type { RecordEntry, RecordRef, Steering } from '../artifacts/record.ts';
import type { ModelRef } from '../core/nouns.ts';
import type { Recipe } from '../recipes/schema.ts';
import { amendRecipe, type Amendment } from '../recipes/amend.ts';
import {
  fork,
  iterate,
  warmStart,
  type ApprovalQuestion,
  type LoopCalls,
  type LoopState,
  type Phase,
  type Verdict,
} from './improvement-loop.ts';
import { handOutShards, playStretch, type ShardCalls, type Stretch } from './shards.ts';
import { stageCalls, type DurableCalls } from './stage-proxies.ts';

export interface LoopInput {
  runId: string;
  recipe: Recipe;
  /** Digest of the resolved recipe; a run id belongs to one recipe. */
  recipeSha256: string;
  /** A stored model to start from; null: from nothing. */
  initial: ModelRef | null;
  /** Null at the start; carried across continue-as-new. */
  state: LoopState | null;
  /** `state` is where another run was: this one forks from there, and its chain has yet to begin. */
  fork?: boolean;
  control: Control;
  /** What operators did since the last record, for its attestation. */
  steering?: Steering[];
  /** Fewer, for tests. */
  shardsPerHistory?: number;
}

/** What operators have asked for. */
export interface Control {
  paused: boolean;
  /** End after the iteration at hand. */
  stopping: boolean;
  /** Changes to the recipe from the next iteration on. */
  amendments: Amendment[];
}

/** Who steers, and why. */
export interface Operator {
  by: string;
  reason: string | null;
}

export interface LoopStatus {
  runId: string;
  recipe: string;
  recipeSha256: string;
  scale: string;
  phase: Phase;
  /** The iteration at hand (0 is the warm start), and how many there are to be. */
  iteration: number;
  iterations: number;
  control: Control;
  /** What a person is asked; `approve` or `reject` answers it. */
  question: ApprovalQuestion | null;
  state: LoopState | null;
}

export interface LoopResult {
  iterations: number;
  stopped: boolean;
  head: RecordRef;
}

export const statusQuery = defineQuery<LoopStatus>('status');
export const pauseUpdate = defineUpdate<Control, [Operator]>('pause');
export const resumeUpdate = defineUpdate<Control, [Operator]>('resume');
export const stopUpdate = defineUpdate<Control, [Operator]>('stop');
export const amendUpdate = defineUpdate<Control, [Operator, Amendment[]]>('amend');
export const approveUpdate = defineUpdate<Control, [Operator]>('approve');
export const rejectUpdate = defineUpdate<Control, [Operator]>('reject');

export const PHASE = defineSearchAttributeKey('RatchetPhase', SearchAttributeType.KEYWORD);
export const ITERATION = defineSearchAttributeKey('RatchetIteration', SearchAttributeType.INT);
export const RECIPE = defineSearchAttributeKey('RatchetRecipe', SearchAttributeType.KEYWORD);
export const BEST_SUCCESS = defineSearchAttributeKey('RatchetBestSuccess', SearchAttributeType.DOUBLE);

export async function improvementLoop(input: LoopInput): Promise<LoopResult> {
  const { runId, recipeSha256, initial } = input;
  const control: Control = { ...input.control };
  const steering = [...(input.steering ?? [])];
  const { amendments } = control;
  control.amendments = [];
  const recipe = amendRecipe(input.recipe, amendments);
  let state = input.state;
  let phase: Phase = state ? 'collect' : 'warm start';
  let question: ApprovalQuestion | null = null;
  let answered: Verdict | null = null;
  const current = () => Math.min(recipe.iterations, state === null ? 0 : state.iteration + 1);

  setHandler(statusQuery, () => ({
    runId,
    recipe: recipe.name,
    recipeSha256,
    scale: recipe.scale,
    phase,
    iteration: current(),
    iterations: recipe.iterations,
    control,
    question,
    state,
  }));
  const tell = (next: Phase) => {
    phase = next;
    upsertSearchAttributes([
      { key: PHASE, value: next },
      { key: ITERATION, value: current() },
    ]);
    setCurrentDetails(`iteration ${current()} of ${recipe.iterations}: ${next}${control.paused ? ' (paused)' : ''}`);
  };
  /** Does what an operator asked, and remembers who asked for the next attestation. */
  const steer = (what: string, { by, reason }: Operator, change: Partial<Control>): Control => {
    steering.push({ what, by, reason, at: new Date().toISOString() });
    Object.assign(control, change);
    tell(phase);
    return { ...control };
  };
  const answer = (verdict: 'approved' | 'rejected', operator: Operator): Control => {
    answered = verdict;
    return steer(`${verdict === 'approved' ? 'approve' : 'reject'} ${question?.policy ?? ''}`, operator, {});
  };
  const refuseUnlessAsked = (_operator: Operator) => refuseIf(question === null || answered !== null, 'the run asks for no approval now');
  setHandler(pauseUpdate, (operator) => steer('pause', operator, { paused: true }), {
    validator: (_operator: Operator) => refuseIf(control.paused, 'pause: the run is paused already'),
  });
  setHandler(resumeUpdate, (operator) => steer('resume', operator, { paused: false }), {
    validator: (_operator: Operator) => refuseIf(!control.paused, 'resume: the run is not paused'),
  });
  setHandler(stopUpdate, (operator) => steer('stop', operator, { stopping: true, paused: false }), {
    validator: (_operator: Operator) => refuseIf(control.stopping, 'stop: the run is stopping already'),
  });
  setHandler(
    amendUpdate,
    (operator, changes) => {
      const what = changes.map(({ path, value }) => `${path}=${JSON.stringify(value)}`).join(', ');
      return steer(`amend ${what}`, operator, { amendments: [...control.amendments, ...changes] });
    },
    {
      validator: (_operator, changes) => {
        refuseIf(control.stopping, 'amend: the run stops after the iteration at hand');
        const { iterations } = checkedAmendment(recipe, [...control.amendments, ...changes]);
        refuseIf(iterations < current(), `amend: iterations: ${iterations} is not valid; iteration ${current()} is under way`);
        refuseIf(
          current() >= iterations,
          `amend: iteration ${current()} under way is the last; raise iterations to change what comes after it`,
        );
      },
    },
  );
  setHandler(approveUpdate, (operator) => answer('approved', operator), { validator: refuseUnlessAsked });
  setHandler(rejectUpdate, (operator) => answer('rejected', operator), { validator: refuseUnlessAsked });

  const at = state === null ? 0 : state.iteration + 1;
  const stages = gated(
    {
      ...stageCalls(runId, at, () => steering.splice(0)),
      playStretch: (stretch: Stretch) => playStretch(runId, at, stretch),
    },
    control,
  );
  const calls: LoopCalls = {
    ...stages,
    rolloutShards: handOutShards(stages, input.shardsPerHistory),
    async approve(asked) {
      question = asked;
      // Whoever stops a run at its gate promotes nothing, and rejects nothing.
      await condition(() => answered !== null || control.stopping);
      question = null;
      return answered ?? 'unanswered';
    },
  };

  if (state === null) {
    state = await warmStart(recipe, initial, calls, tell);
  } else if (input.fork) {
    state = await fork(recipe, initial, state, calls);
  } else if (!done(state, recipe, control)) {
    state = await iterate(recipe, state, calls, tell, amendments);
  }
  upsertSearchAttributes([{ key: BEST_SUCCESS, value: bestSuccess(state) }]);

  await condition(allHandlersFinished);
  if (!done(state, amendRecipe(recipe, control.amendments), control)) {
    // One iteration per run keeps every history small, and lets new code take over at the boundary.
    const next = makeContinueAsNewFunc<typeof improvementLoop>({
      workflowType: workflowInfo().workflowType,
      initialVersioningBehavior: 'AUTO_UPGRADE',
    });
    const { fork: _, ...rest } = input;
    await next({ ...rest, recipe, state, control, steering });
  }
  tell('finished');
  return { iterations: state.iteration, stopped: state.iteration < recipe.iterations, head: state.head };
}

function done(state: LoopState, recipe: Recipe, control: Control): boolean {
  return control.stopping || state.iteration >= recipe.iterations;
}

function bestSuccess(state: LoopState): number {
  return Math.max(0, ...Object.values(state.reports).map(({ success }) => success.value));
}

/** Holds back the next stage call while the run is paused; stages in flight finish. */
function gated<Calls extends DurableCalls & ShardCalls>(calls: Calls, control: Control): Calls {
  const hold = <Input, Output>(call: (input: Input) => Promise<Output>) => {
    return async (input: Input): Promise<Output> => {
      while (control.paused) await condition(() => !control.paused);
      return call(input);
    };
  };
  return Object.fromEntries(
    Object.entries(calls).map(([name, call]) => [name, hold(call as (input: RecordEntry) => Promise<RecordRef>)]),
  ) as unknown as Calls;
}

/** In a validator: a typed refusal instead of a failure of the workflow. */
function checkedAmendment(recipe: Recipe, amendments: readonly Amendment[]): Recipe {
  try {
    return amendRecipe(recipe, amendments);
  } catch (error) {
    throw ApplicationFailure.create({ type: 'BadInput', message: (error as Error).message, nonRetryable: true });
  }
}

function refuseIf(refused: boolean, message: string): void {
  if (refused) throw ApplicationFailure.create({ type: 'BadInput', message, nonRetryable: true });
}
