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
import type { RecordEntry, RecordRef } from '../artifacts/record.ts';
import type { ModelRef } from '../core/nouns.ts';
import type { Recipe } from '../recipes/schema.ts';
import { iterate, warmStart, type LoopCalls, type LoopState, type Phase } from './improvement-loop.ts';
import { stageCalls } from './stage-proxies.ts';

export interface LoopInput {
  runId: string;
  recipe: Recipe;
  /** Digest of the resolved recipe; a run id belongs to one recipe. */
  recipeSha256: string;
  /** A stored model to start from; null: from nothing. */
  initial: ModelRef | null;
  /** Null at the start; carried across continue-as-new. */
  state: LoopState | null;
  control: Control;
}

/** What operators have asked for. */
export interface Control {
  paused: boolean;
  /** End after the iteration at hand. */
  stopping: boolean;
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
  state: LoopState | null;
}

export interface LoopResult {
  iterations: number;
  stopped: boolean;
  head: RecordRef;
}

export const statusQuery = defineQuery<LoopStatus>('status');
export const pauseUpdate = defineUpdate<Control>('pause');
export const resumeUpdate = defineUpdate<Control>('resume');
export const stopUpdate = defineUpdate<Control>('stop');

export const PHASE = defineSearchAttributeKey('RatchetPhase', SearchAttributeType.KEYWORD);
export const ITERATION = defineSearchAttributeKey('RatchetIteration', SearchAttributeType.INT);
export const RECIPE = defineSearchAttributeKey('RatchetRecipe', SearchAttributeType.KEYWORD);
export const BEST_SUCCESS = defineSearchAttributeKey('RatchetBestSuccess', SearchAttributeType.DOUBLE);

export async function improvementLoop(input: LoopInput): Promise<LoopResult> {
  const { runId, recipe, recipeSha256, initial } = input;
  const control: Control = { ...input.control };
  let state = input.state;
  let phase: Phase = state ? 'collect' : 'warm start';
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
  const steer = (change: Partial<Control>): Control => {
    Object.assign(control, change);
    tell(phase);
    return { ...control };
  };
  setHandler(pauseUpdate, () => steer({ paused: true }), {
    validator: () => refuseIf(control.paused, 'pause: the run is paused already'),
  });
  setHandler(resumeUpdate, () => steer({ paused: false }), {
    validator: () => refuseIf(!control.paused, 'resume: the run is not paused'),
  });
  setHandler(stopUpdate, () => steer({ stopping: true, paused: false }), {
    validator: () => refuseIf(control.stopping, 'stop: the run is stopping already'),
  });

  const calls = gated(stageCalls(runId), control);

  if (state === null) {
    state = await warmStart(recipe, initial, calls, tell);
  } else if (!done(state, recipe, control)) {
    state = await iterate(recipe, state, calls, tell);
  }
  upsertSearchAttributes([{ key: BEST_SUCCESS, value: bestSuccess(state) }]);

  await condition(allHandlersFinished);
  if (!done(state, recipe, control)) {
    // One iteration per run keeps every history small, and lets new code take over at the boundary.
    const next = makeContinueAsNewFunc<typeof improvementLoop>({
      workflowType: workflowInfo().workflowType,
      initialVersioningBehavior: 'AUTO_UPGRADE',
    });
    await next({ ...input, state, control });
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
function gated(calls: LoopCalls, control: Control): LoopCalls {
  const hold = <Input, Output>(call: (input: Input) => Promise<Output>) => {
    return async (input: Input): Promise<Output> => {
      while (control.paused) await condition(() => !control.paused);
      return call(input);
    };
  };
  return Object.fromEntries(
    Object.entries(calls).map(([name, call]) => [name, hold(call as (input: RecordEntry) => Promise<RecordRef>)]),
  ) as unknown as LoopCalls;
}

function refuseIf(refused: boolean, message: string): void {
  if (refused) throw ApplicationFailure.create({ type: 'BadInput', message, nonRetryable: true });
}
