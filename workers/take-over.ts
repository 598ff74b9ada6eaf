/**
 * Runs that cannot go on by themselves. New code: a run that another build began and no worker of that build serves any more is taken over. Where its
 * history replays on this code, it goes on where it is; else its iteration begins again, and finds its finished stages and checkpoints in the store. What
 * operators asked in it is asked again by Temporal. An older copy of Temporal's database, put back under workers that remember more than it holds: a run of
 * this build that stands still, or whose history does not replay on the build that made it, begins its iteration again too. It refuses to touch a run that
 * somebody serves and that goes on, that has ended, that began again before for the same reason, or, in a fleet of pinned builds, that is another build's to
 * take: there only the current one does, and only from a build that was absent in two rounds.
 */
import { QueryNotRegisteredError, type Client, type WorkflowHandle } from '@temporalio/client';
import { Worker, type Logger } from '@temporalio/worker';
import { DeterminismViolationError } from '@temporalio/workflow';
import { setTimeout as delay } from 'node:timers/promises';
import type { LoopStatus } from '../workflows/durable-loop.ts';
import { currentBuildOf, pollersOf, QUEUE_KIND } from './pollers.ts';

/** From the end of one round to the next. The last worker of a build on another machine counts as gone some 75 s after it was seen. */
const ROUND_PAUSE_MS = 60_000;
/** The few questions that are asked together, of a run or of the queue: milliseconds each; a server that was killed is back within seconds. */
const QUESTIONS_BOUND_MS = 30_000;
/** A question that a worker answers, and that the server holds for as long as none does: seconds where another must first replay the run. */
const QUERY_BOUND_MS = 10_000;
/** `temporal.api.enums.v1.VersioningBehavior`. */
const BEHAVIOR = { pinned: 1, autoUpgrade: 2 } as const;

/** `temporal.api.enums.v1.WorkflowTaskFailedCause`: what a reset leaves in the history that goes on from it, with its reason. */
const RESET_WORKFLOW = 20;
/** A worker that is killed costs a decision one attempt; what fails again and again is looked at. */
const FAILING_FROM_ATTEMPT = 3;

/** To the current version whatever the run was pinned to. It ends with the iteration: what continues as new is pinned again. */
const UNPINNED = {
  workflowExecutionOptions: { versioningOverride: { autoUpgrade: true, behavior: BEHAVIOR.autoUpgrade } },
  updateMask: { paths: ['versioning_override'] },
};

type History = Awaited<ReturnType<WorkflowHandle['fetchHistory']>>;

export interface TakeOver {
  client: Client;
  /** The fleet's `loop` queue. */
  queue: string;
  /** This worker's build, and the path of its bundle. */
  build: string;
  codePath: string;
  /** Whether the fleet's builds stand side by side, each with runs of its own. */
  pinned: boolean;
  logger: Logger;
}

/** Settles after the first round; others follow, never two at a time, until what it gives is called. A round that fails is logged: another has to do. */
export async function keepTakingOver(takeOver: TakeOver): Promise<() => void> {
  let absent: ReadonlySet<string> | null = null;
  const round = async (): Promise<void> => {
    absent = await takeOverRuns(takeOver, absent).catch((error: unknown) => {
      takeOver.logger.warn(`runs of other builds cannot be looked for: ${String(error)}`);
      return new Set<string>();
    });
  };
  await round();
  const ending = new AbortController();
  const rounds = async (): Promise<void> => {
    while (!ending.signal.aborted) {
      await delay(ROUND_PAUSE_MS, undefined, { ref: false });
      if (!ending.signal.aborted) await round();
    }
  };
  void rounds();
  return () => ending.abort();
}

/**
 * One round over the runs under way. Gives the builds that have runs and no worker; `before`: what the round before gave. One machine has one build at a
 * time, and takes its runs at once; a pinned build may have crashed and be back in seconds. Null at a worker's first round, before it works: it remembers
 * nothing, and runs of its own build may have nobody else to answer for them. Throws what Temporal answers when it cannot be asked.
 */
export async function takeOverRuns(takeOver: TakeOver, before: ReadonlySet<string> | null): Promise<Set<string>> {
  const { client, queue, build, pinned, logger } = takeOver;
  const absent = new Set<string>();
  const runs: { workflowId: string; runId: string }[] = [];
  const served = await bounded(client, async () => {
    const query = `ExecutionStatus = 'Running' AND TaskQueue = '${queue}'`;
    for await (const { workflowId, runId } of client.workflow.list({ query })) runs.push({ workflowId, runId });
    return (await mayTakeOver(takeOver)) ? await buildsAt(takeOver) : null;
  });
  for (const { workflowId, runId } of runs) {
    try {
      const now = await bounded(client, () => lookAt(client, workflowId, runId));
      if (now === null || now.build === null) continue;
      if (now.build === build && before !== null) await setRight(takeOver, now, workflowId, runId);
      if (now.build === build || served === null || served.has(now.build)) continue;
      absent.add(now.build);
      if (!pinned || before?.has(now.build)) await takeOverRun(takeOver, now.build, workflowId, runId);
    } catch (error) {
      logger.warn(`run ${workflowId} cannot be taken over at this round: ${String(error)}`);
    }
  }
  return absent;
}

/** One execution from the build `from`, unless the execution has ended, or anybody else decided for it or may, by the time it is to be changed. */
export async function takeOverRun(takeOver: TakeOver, from: string, workflowId: string, runId: string): Promise<void> {
  const { client, build, codePath, logger } = takeOver;
  const history = await bounded(client, () => client.workflow.getHandle(workflowId, runId).fetchHistory());
  const decisions = (history.events ?? []).filter((event) => event.workflowTaskCompletedEventAttributes);
  const [first, last] = [decisions[0], decisions.at(-1)?.workflowTaskCompletedEventAttributes];
  if (!first || !last) return;
  const pinned = last.versioningBehavior === BEHAVIOR.pinned;
  const fits = await replays(codePath, history, workflowId);

  const changed = await bounded(client, async () => {
    // The replay took seconds. A reset of an execution that has ended would bring it back, and terminate what runs in its place.
    if ((await buildsAt(takeOver)).has(from) || !(await mayTakeOver(takeOver))) return false;
    if ((await lookAt(client, workflowId, runId))?.build !== from) return false;
    const namespace = client.options.namespace;
    const workflowExecution = { workflowId, runId };
    if (!fits) {
      const reason = `build ${from} is gone and its history does not replay on build ${build}`;
      await beginAgain(takeOver, workflowExecution, first, reason, pinned ? [{ updateWorkflowOptions: UNPINNED }] : []);
    } else if (pinned) {
      await client.workflowService.updateWorkflowExecutionOptions({ namespace, workflowExecution, ...UNPINNED });
    }
    return true;
  });
  if (!changed) return;
  const how = fits ? 'goes on where it is' : 'begins its iteration again, with what the store holds of it';
  logger.info(`run ${workflowId} was of build ${from}, which no worker serves; on build ${build} it ${how}`);
}

/**
 * An execution of this build. A worker that remembers an execution further than an older database answers what comes until then with nothing, so that it
 * stands still, and what comes after as if all before had been so: such a history may replay nowhere.
 */
async function setRight(takeOver: TakeOver, before: Now, workflowId: string, runId: string): Promise<void> {
  const { client, build, codePath, logger } = takeOver;
  const { still, failing } = before;
  if (!still && !failing) return;
  const waits = still ? await waitsForOperator(client, workflowId, runId) : null;
  if (waits === true) return;
  const history = await bounded(client, () => client.workflow.getHandle(workflowId, runId).fetchHistory());
  const events = history.events ?? [];
  const first = events.find((event) => event.workflowTaskCompletedEventAttributes);
  // What replays fails for another reason, and would do so again; or it was not the run that answered.
  if (!first || (waits === null && (await replays(codePath, history, workflowId)))) return;
  const reason = `${still ? 'it stands still' : 'its history does not replay'} on build ${build}, which made it`;
  // The resets that this execution came of are all before its first decision.
  const resets = events.slice(0, events.indexOf(first)).flatMap(({ workflowTaskFailedEventAttributes: failed }) => failed ?? []);
  if (resets.some(({ cause, failure }) => Number(cause) === RESET_WORKFLOW && failure?.message === reason)) {
    logger.warn(`run ${workflowId} cannot go on: ${reason}, as it did before its iteration began again; it is left as it is`);
    return;
  }

  if (still && (await waitsForOperator(client, workflowId, runId)) !== waits) return;
  const changed = await bounded(client, async () => {
    const now = await lookAt(client, workflowId, runId);
    if (now?.build !== build || now.still !== still || now.failing !== failing || now.events !== before.events) return false;
    await beginAgain(takeOver, { workflowId, runId }, first, reason, []);
    return true;
  });
  if (changed) logger.warn(`run ${workflowId} could not go on, as where an older database is put back; it begins its iteration again`);
}

/** Whether a run is paused or asks a question; null where it did not get to say: another build answered, or it took too long to replay. */
async function waitsForOperator(client: Client, workflowId: string, runId: string): Promise<boolean | null> {
  try {
    const status = () => client.workflow.getHandle(workflowId, runId).query<LoopStatus>('status');
    const { control, question } = await bounded(client, status, QUERY_BOUND_MS);
    return control.paused || question !== null;
  } catch (error) {
    // The client's name for every query that failed.
    if (!(error instanceof QueryNotRegisteredError)) throw error;
    // Shards of their own cannot be asked, and wait for nobody.
    return error.message.includes('did not register a handler') ? false : null;
  }
}

type Execution = { workflowId: string; runId: string };
type ResetOperations = Parameters<Client['workflowService']['resetWorkflowExecution']>[0]['postResetOperations'];

/** From its first decision on. Of two workers that ask for it within one round trip, the later ends what the earlier began, and all it costs is work. */
async function beginAgain(
  { client, build }: TakeOver,
  workflowExecution: Execution,
  { eventId }: NonNullable<History['events']>[number],
  reason: string,
  postResetOperations: NonNullable<ResetOperations>,
): Promise<void> {
  await client.workflowService.resetWorkflowExecution({
    namespace: client.options.namespace,
    workflowExecution,
    reason,
    workflowTaskFinishEventId: eventId ?? null,
    requestId: `${workflowExecution.runId} ${build}`,
    postResetOperations,
  });
}

function bounded<T>(client: Client, ask: () => Promise<T>, boundMs = QUESTIONS_BOUND_MS): Promise<T> {
  return client.connection.withDeadline(Date.now() + boundMs, ask);
}

interface Now {
  /** The build that decided last; null where none has. */
  build: string | null;
  /** Nothing is under way that would ever make it decide again, but for what an operator may say. */
  still: boolean;
  /** Its next decision fails again and again. */
  failing: boolean;
  /** How many events its history has. */
  events: number;
}

/** Null for an execution that is not the one that runs under this id. */
async function lookAt(client: Client, workflowId: string, runId: string): Promise<Now | null> {
  const now = await client.workflow.getHandle(workflowId).describe();
  if (now.runId !== runId || now.status.name !== 'RUNNING') return null;
  const { workflowExecutionInfo, pendingWorkflowTask, pendingActivities, pendingChildren } = now.raw;
  return {
    build: workflowExecutionInfo?.mostRecentWorkerVersionStamp?.buildId || null,
    still: !pendingWorkflowTask && !pendingActivities?.length && !pendingChildren?.length,
    failing: (pendingWorkflowTask?.attempt ?? 0) >= FAILING_FROM_ATTEMPT,
    events: now.historyLength,
  };
}

async function buildsAt({ client, queue }: TakeOver): Promise<Set<string | null>> {
  const pollers = await pollersOf(client.workflowService, client.options.namespace, queue, QUEUE_KIND.workflow);
  return new Set(pollers.map(({ build }) => build));
}

async function mayTakeOver({ client, queue, build, pinned }: TakeOver): Promise<boolean> {
  return !pinned || (await currentBuildOf(client.workflowService, client.options.namespace, queue, QUEUE_KIND.workflow)) === build;
}

/** Whether this code decides as the history says. What fails otherwise (a bug behind it, a busy machine) says nothing about that. */
async function replays(codePath: string, history: History, workflowId: string): Promise<boolean> {
  for await (const { error } of Worker.runReplayHistories({ workflowBundle: { codePath } }, [{ workflowId, history }])) {
    if (error instanceof DeterminismViolationError) return false;
  }
  return true;
}
