/**
 * What a run has done and is doing, read from the events of its Temporal history: the phase, the work of that phase with its counts, and what operators
 * asked for. It needs no worker to answer, so it is right even when all of them are dead. No result depends on it.
 */
import { arrayFromPayloads, defaultPayloadConverter, optionalTsToMs } from '@temporalio/common';
import type { WorkflowService } from '@temporalio/client';
import type { Planned, RolloutRequest } from '../../activities/stages/rollouts.ts';
import type { StageCall } from '../../activities/stage-runner.ts';
import type { Progress } from '../../activities/stage.ts';
import { strategyName } from '../../agents/strategy.ts';
import type { EpisodeShard } from '../../core/nouns.ts';
import type { Control, LoopInput } from '../../workflows/durable-loop.ts';
import type { Phase } from '../../workflows/improvement-loop.ts';

type HistoryAnswer = Awaited<ReturnType<WorkflowService['getWorkflowExecutionHistory']>>;
export type HistoryEvent = NonNullable<NonNullable<HistoryAnswer['history']>['events']>[number];
type Payloads = { payloads?: Parameters<typeof arrayFromPayloads>[1] } | null | undefined;

/** Work that is shown as one line: the shards of all rollouts of one kind, or one training. */
export interface Work {
  label: string;
  done: number;
  total: number;
  /** What is counted; empty where only the work itself is. */
  unit: string;
  finished: boolean;
  /** Figures worth seeing, e.g. `{ success: 0.54 }`. */
  metrics: Record<string, number>;
  /** When the first part of it was scheduled, milliseconds since the epoch; null once it is in a later phase, whose pace is its own. */
  sinceMs: number | null;
}

interface Activity {
  /** Temporal's activity id, by which heartbeats are found; empty for shards that another workflow asks for. */
  id: string;
  stage: string;
  label: string;
  /** Position in the phases of this run, so that work of earlier phases can be left out. */
  phase: number;
  sinceMs: number | null;
  done: boolean;
  /** What a finished shard, or a stretch of them, counted. */
  shard: Pick<EpisodeShard, 'dispatched' | 'successes'> | null;
  /** The latest heartbeat of work in flight. */
  progress: Progress | null;
  /** What the work was when it was last heard of. */
  last: Progress | null;
}

/** Stages that are over in a blink; a line for each would only flicker. */
const BOOKKEEPING = new Set(['makePanels', 'planRollouts', 'gatherRollouts', 'planPairTruth', 'appendRecord']);
/** Lines for the stages that are one activity each. */
const LABELS: Record<string, string> = {
  warmStart: 'supervised training',
  makeLabels: 'labels',
  fitRewardModel: 'reward model',
  updatePolicy: 'policy update',
  evaluate: 'evaluations',
  pairTruth: 'pair truth',
};
/** The phases that trainings report while they train. */
const TRAINING = new Set(['warm start', 'reward model', 'policy update']);

/**
 * `temporal.api.enums.v1.WorkflowTaskFailedCause`: why a decision is asked for again without anything being wrong with it. UNHANDLED_COMMAND and
 * UNHANDLED_UPDATE: something came in meanwhile. RESET_STICKY_TASK_QUEUE: the worker hands it to another. FORCE_CLOSE_COMMAND, FAILOVER_CLOSE_COMMAND and
 * RESET_WORKFLOW: the server took it back (too much came in meanwhile, another cluster leads, the run begins again). WORKFLOW_PAUSE_REQUESTED_BEFORE_TASK_STARTED:
 * by whoever paused it with Temporal's own command. For every other cause the next try fails like the last.
 */
const NO_BUG = new Set([1, 31, 13, 17, 18, 20, 39]);

/** How a history ended. */
export type Close =
  | { kind: 'completed' }
  | { kind: 'failed' | 'timed out' | 'terminated'; message: string }
  | { kind: 'cancelled' }
  | { kind: 'continued'; runId: string };

/** One execution's history, event by event. A run is a chain of executions, one per iteration: start a new log for each. */
export class ActivityLog {
  /** What the execution was started with; null until its first event came. */
  input: LoopInput | null = null;
  control: Control = { paused: false, stopping: false, amendments: [] };
  phase: Phase | null = null;
  iteration: number | null = null;
  close: Close | null = null;
  /** What the workflow's own code failed of, where it has decided nothing since. */
  bug: string | null = null;
  #phases = 0;
  readonly #activities = new Map<string, Activity>();
  /** What plans and their shards are shown as, by the digest of the plan. */
  readonly #plans = new Map<string, { label: string; episodes: number; phase: number }>();
  readonly #asked = new Map<string, RolloutRequest>();

  apply(event: HistoryEvent): void {
    const started = event.workflowExecutionStartedEventAttributes;
    const scheduled = event.activityTaskScheduledEventAttributes;
    const completed = event.activityTaskCompletedEventAttributes;
    const gone =
      event.activityTaskFailedEventAttributes ?? event.activityTaskTimedOutEventAttributes ?? event.activityTaskCanceledEventAttributes;
    // Shards that the loop handed to another workflow: shown when all of them are done.
    const handed = event.startChildWorkflowExecutionInitiatedEventAttributes;
    const played = event.childWorkflowExecutionCompletedEventAttributes;
    const dropped =
      event.childWorkflowExecutionFailedEventAttributes ??
      event.childWorkflowExecutionTimedOutEventAttributes ??
      event.childWorkflowExecutionCanceledEventAttributes ??
      event.childWorkflowExecutionTerminatedEventAttributes;
    const update = event.workflowExecutionUpdateAcceptedEventAttributes;
    const again = event.workflowExecutionUpdateAdmittedEventAttributes;
    if (started) this.#begin(values<LoopInput>(started.input)[0] ?? null);
    else if (scheduled) this.#schedule(event, scheduled.activityId ?? '', scheduled.activityType?.name ?? '', scheduled.input);
    else if (completed) this.#complete(String(completed.scheduledEventId), completed.result);
    else if (gone) this.#activities.delete(String(gone.scheduledEventId));
    else if (handed) this.#schedule(event, '', 'rolloutShard', handed.input);
    else if (played) this.#complete(String(played.initiatedEventId), played.result);
    else if (dropped) this.#activities.delete(String(dropped.initiatedEventId));
    else if (update) this.#steer(update.acceptedRequest?.input?.name ?? '');
    // Asked before a reset, and asked again after it.
    else if (again) this.#steer(again.request?.input?.name ?? '');
    const attributes = event.upsertWorkflowSearchAttributesEventAttributes?.searchAttributes?.indexedFields;
    if (attributes) this.#tell(attributes);
    this.bug = bugAfter(event, this.bug);
    this.close ??= closeOf(event);
  }

  /** The heartbeats of the work in flight, by activity id; all others are waiting for a worker. */
  hear(heartbeats: ReadonlyMap<string, Progress>): void {
    for (const activity of this.#activities.values()) {
      if (activity.done) continue;
      activity.progress = heartbeats.get(activity.id) ?? null;
      if (activity.progress && activity.last && activity.progress.phase !== activity.last.phase) activity.sinceMs = null;
      activity.last = activity.progress ?? activity.last;
    }
  }

  /** The work of the phase at hand, in the order in which it began. */
  work(): Work[] {
    const byLabel = new Map<string, Activity[]>();
    for (const activity of this.#activities.values()) {
      if (activity.phase !== this.#phases || BOOKKEEPING.has(activity.stage)) continue;
      const of = byLabel.get(activity.label) ?? [];
      of.push(activity);
      byLabel.set(activity.label, of);
    }
    return [...byLabel].map(([label, activities]) =>
      activities[0]?.stage === 'rolloutShard' ? this.#rollouts(label, activities) : stage(label, activities),
    );
  }

  /** What a shard is called, for messages about one. */
  labelOf(activityId: string): string | null {
    for (const activity of this.#activities.values()) if (activity.id === activityId) return activity.label;
    return null;
  }

  #begin(input: LoopInput | null): void {
    this.input = input;
    if (!input) return;
    this.control = { ...input.control };
    this.iteration = input.state === null ? 0 : input.state.iteration + 1;
  }

  #schedule({ eventId, eventTime }: HistoryEvent, id: string, stageName: string, payloads: Payloads): void {
    const place = String(eventId);
    const input = stageInput(values(payloads));
    if (stageName === 'planRollouts') this.#asked.set(place, input as RolloutRequest);
    const plan = stageName === 'rolloutShard' ? this.#plans.get((input as { plan: { sha256: string } }).plan.sha256) : undefined;
    const label = plan?.label ?? LABELS[stageName] ?? stageName;
    this.#activities.set(place, {
      id,
      stage: stageName,
      label,
      phase: this.#phases,
      sinceMs: optionalTsToMs(eventTime) ?? 0,
      done: false,
      shard: null,
      progress: null,
      last: null,
    });
  }

  #complete(eventId: string, payloads: Payloads): void {
    const activity = this.#activities.get(eventId);
    if (!activity) return;
    activity.done = true;
    const [result] = values(payloads);
    if (activity.stage === 'rolloutShard') activity.shard = result as Activity['shard'];
    const asked = this.#asked.get(eventId);
    if (asked) {
      const { plan, episodes } = result as Planned;
      this.#plans.set(plan.sha256, { label: rolloutLabel(asked), episodes, phase: activity.phase });
    }
  }

  #steer(update: string): void {
    if (update === 'pause') this.control = { ...this.control, paused: true };
    if (update === 'resume') this.control = { ...this.control, paused: false };
    if (update === 'stop') this.control = { ...this.control, paused: false, stopping: true };
  }

  #tell(attributes: Record<string, unknown>): void {
    const read = (name: string) => {
      const payload = attributes[name];
      // Servers may hand a single value back as a list of one.
      return payload ? [defaultPayloadConverter.fromPayload(payload)].flat()[0] : undefined;
    };
    const phase = read('RatchetPhase') as Phase | undefined;
    const iteration = read('RatchetIteration') as number | undefined;
    if (iteration !== undefined) this.iteration = Number(iteration);
    if (phase === undefined) return;
    this.phase = phase;
    this.#phases++;
  }

  #rollouts(label: string, activities: Activity[]): Work {
    const plans = [...this.#plans.values()].filter((plan) => plan.label === label && plan.phase === this.#phases);
    const total = plans.reduce((sum, plan) => sum + plan.episodes, 0);
    let done = 0;
    let successes = 0;
    for (const { shard, last } of activities) {
      done += shard?.dispatched ?? last?.done ?? 0;
      successes += shard?.successes ?? (last?.metrics?.['success'] ?? 0) * (last?.done ?? 0);
    }
    const metrics: Record<string, number> = done > 0 ? { success: successes / done } : {};
    const finished = done >= total && activities.every((activity) => activity.done);
    return { label, done, total, unit: 'episodes', finished, metrics, sinceMs: since(activities) };
  }
}

function stage(label: string, activities: Activity[]): Work {
  const [only] = activities;
  const finished = activities.every(({ done }) => done);
  const sinceMs = since(activities);
  if (!only || activities.length > 1 || !only.last) {
    const done = activities.filter((activity) => activity.done).length;
    return { label, done, total: activities.length, unit: '', finished, metrics: {}, sinceMs };
  }
  const { done, total, unit, metrics, phase } = only.last;
  // What is done before and after the training proper has a phase of its own.
  const shown = TRAINING.has(phase) || only.done ? label : `${label}: ${phase}`;
  return { label: shown, done: only.done ? total : done, total, unit, finished, metrics: metrics ?? {}, sinceMs };
}

function since(activities: readonly Activity[]): number | null {
  return activities.map(({ sinceMs }) => sinceMs).reduce(earliest, Infinity);
}

/** The earlier of two times, null where either is unknown. */
export const earliest = (a: number | null, b: number | null): number | null => (a === null || b === null ? null : Math.min(a, b));

/** What rollouts are for, from the key that their draws come from. */
function rolloutLabel({ actor, key }: RolloutRequest): string {
  const what = String(key[1]);
  if (actor.kind === 'demonstrator') return 'demonstrations';
  if (what === 'collect') return 'rollouts';
  if (what === 'pair truth') return 'pair truth rollouts';
  return `${what} ${strategyName(actor.strategy)}`;
}

/** A stage's input: what the activity was called with, beside the run that it belongs to. */
function stageInput(args: unknown[]): unknown {
  return (args[0] as StageCall | undefined)?.input;
}

function values<T = unknown>(payloads: Payloads): (T | undefined)[] {
  return arrayFromPayloads(defaultPayloadConverter, payloads?.payloads) as (T | undefined)[];
}

/** What a workflow's own code has failed of and decided nothing since, from one event to the next. */
export function bugAfter(event: HistoryEvent, before: string | null): string | null {
  if (event.workflowTaskCompletedEventAttributes) return null;
  const failed = event.workflowTaskFailedEventAttributes;
  return failed && !NO_BUG.has(Number(failed.cause)) ? failureText(failed.failure) : before;
}

function closeOf(event: HistoryEvent): Close | null {
  if (event.workflowExecutionCompletedEventAttributes) return { kind: 'completed' };
  if (event.workflowExecutionCanceledEventAttributes) return { kind: 'cancelled' };
  if (event.workflowExecutionTimedOutEventAttributes) return { kind: 'timed out', message: 'the time that the run was given is over' };
  const terminated = event.workflowExecutionTerminatedEventAttributes;
  if (terminated) return { kind: 'terminated', message: terminated.reason || 'terminated from outside' };
  const failed = event.workflowExecutionFailedEventAttributes;
  if (failed) return { kind: 'failed', message: failureText(failed.failure) };
  const continued = event.workflowExecutionContinuedAsNewEventAttributes;
  if (continued) return { kind: 'continued', runId: continued.newExecutionRunId ?? '' };
  return null;
}

type Failure = NonNullable<HistoryEvent['workflowExecutionFailedEventAttributes']>['failure'];

/** `temporal.api.enums.v1.TimeoutType`. */
const SCHEDULE_TO_START = 2;

/** A failure in words: the one that Ratchet knows by type, wherever in the chain of causes it is. */
export function failureText(failure: Failure): string {
  for (let at = failure; at; at = at.cause) {
    if (at.timeoutFailureInfo)
      return at.timeoutFailureInfo.timeoutType === SCHEDULE_TO_START
        ? 'no worker took it from its queue in time'
        : 'the worker was lost in the middle of it';
    const type = at.applicationFailureInfo?.type;
    if (type) return `${type}: ${at.message ?? ''}`;
  }
  return failure?.message || 'no reason given';
}
