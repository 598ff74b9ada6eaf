/**
 * The stages as a workflow calls them: each an activity on the queue of its resource, with the time bounds that suit it. Time bounds limit the work, not
 * counts of attempts, because a drained worker costs an attempt. Only types come from the stages themselves.
 */
import { ActivityCancellationType, proxyActivities, workflowInfo } from '@temporalio/workflow';
import type { ActivityOptions } from '@temporalio/workflow';
import type { RecordCall } from '../activities/activities.ts';
import type { StageCall } from '../activities/stage-runner.ts';
import type { Queue } from '../activities/stage.ts';
import type { Stages } from '../activities/stages/registry.ts';
import type { RecordEntry, RecordRef, Steering } from '../artifacts/record.ts';
import { NON_RETRYABLE_ERRORS } from '../core/errors.ts';
import type { LoopCalls, StageCalls } from './improvement-loop.ts';
import { siblingQueue } from './task-queues.ts';

/** Which queue carries which stage: `gpu` trains, `cpu` plays and reads episodes, `loop` plans and keeps the books. Equal to the stages' registry (tested). */
export const STAGE_QUEUES: Readonly<Record<keyof Stages, Queue>> = {
  makePanels: 'cpu',
  planRollouts: 'loop',
  rolloutShard: 'cpu',
  gatherRollouts: 'loop',
  warmStart: 'gpu',
  makeLabels: 'cpu',
  fitRewardModel: 'gpu',
  updatePolicy: 'gpu',
  evaluate: 'cpu',
  planPairTruth: 'loop',
  pairTruth: 'cpu',
};

/**
 * A worker that was killed is noticed after this long. Heartbeats come every second from an event loop that is kept free, so eight can be missed on an
 * overloaded machine before work is given to somebody else, who goes on from the checkpoint.
 */
export const HEARTBEAT_TIMEOUT_MS = 10_000;

/**
 * The longest that one attempt may take. A dead or stuck attempt is found by its heartbeats within seconds; this only bounds work that goes on and on.
 * An attempt that is cut off costs nothing but the way back to its checkpoint.
 */
export const START_TO_CLOSE_MS: Readonly<Record<Queue, number>> = {
  loop: 10 * 60_000,
  cpu: 6 * 3_600_000,
  gpu: 48 * 3_600_000,
};

/**
 * The longest that a stage waits for a worker to take it: an attempt that nobody takes for so long fails the run, which says so and can be taken up again from
 * the store. A queue whose machines are away over a holiday, or that is behind by days of shards, is served in time; `status` names it within seconds.
 */
export const SCHEDULE_TO_START_MS = 14 * 24 * 3_600_000;

/** A crash is retried at once; an outage of the store or a full disk is asked about every half minute, for as long as it lasts. */
const RETRY = {
  initialInterval: 1_000,
  backoffCoefficient: 2,
  maximumInterval: 30_000,
  nonRetryableErrorTypes: [...NON_RETRYABLE_ERRORS],
};

/** Shorter ones, for tests. */
export interface Bounds {
  heartbeatTimeoutMs?: number;
  scheduleToStartMs?: number;
}

/** Options for every stage activity of a queue, but for the task queue itself. */
export function stageOptions(
  queue: Queue,
  { heartbeatTimeoutMs = HEARTBEAT_TIMEOUT_MS, scheduleToStartMs = SCHEDULE_TO_START_MS }: Bounds = {},
): ActivityOptions {
  return {
    scheduleToStartTimeout: scheduleToStartMs,
    startToCloseTimeout: START_TO_CLOSE_MS[queue],
    heartbeatTimeout: heartbeatTimeoutMs,
    retry: RETRY,
    // The next stage never starts while the device is still busy with one that was cancelled.
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  };
}

type UntypedActivities = Record<string, (call: StageCall) => Promise<unknown>>;

/** Activities of `Activities` on a queue of this run's fleet. */
export function proxyQueue<Activities extends object = UntypedActivities>(queue: Queue, bounds?: Bounds) {
  const own = workflowInfo().taskQueue;
  return proxyActivities<Activities>({ ...stageOptions(queue, bounds), taskQueue: siblingQueue(own, queue) });
}

/** The calls that are activities. */
export type DurableCalls = StageCalls & Pick<LoopCalls, 'appendRecord'>;

/**
 * Every stage call and record of an iteration of the run `scope`. `steering` hands over what operators did since the last record, for the attestation of the next. To be
 * called inside a workflow.
 */
export function stageCalls(scope: string, iteration: number, steering: () => Steering[]): DurableCalls {
  const activities = {
    loop: proxyQueue('loop'),
    cpu: proxyQueue('cpu'),
    gpu: proxyQueue('gpu'),
  };
  const stages = Object.entries(STAGE_QUEUES).map(([name, queue]) => [
    name,
    (input: unknown) => activities[queue][name]!({ scope, iteration, input }),
  ]);
  const { appendRecord } = proxyQueue<{ appendRecord: (call: RecordCall) => Promise<RecordRef> }>('loop');
  return {
    ...Object.fromEntries(stages),
    appendRecord: (input: RecordEntry) => appendRecord!({ scope, input, steering: steering() }),
  } as unknown as DurableCalls;
}
