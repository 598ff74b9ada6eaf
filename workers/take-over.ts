/**
 * New code under running loops: a run that another build began and no worker of that build serves any more is taken over. Where its history replays on
 * this code, it goes on where it is; else its iteration begins again, and finds its finished stages and checkpoints in the store. What operators asked
 * in it is asked again by Temporal. It refuses to touch a run that somebody serves.
 */
import type { Client, WorkflowHandle } from '@temporalio/client';
import { Worker, type Logger } from '@temporalio/worker';
import { pollersOf, QUEUE_KIND } from './pollers.ts';

/** Every question of one round together: a few per run, milliseconds each; a server that was killed is back within seconds. */
const ROUND_BOUND_MS = 30_000;
/** `temporal.api.enums.v1.VersioningBehavior`. */
const BEHAVIOR = { pinned: 1, autoUpgrade: 2 } as const;

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
  logger: Logger;
}

/** One round over the runs under way. Throws what Temporal answers when it cannot be asked; then another round has to do. */
export async function takeOverRuns(takeOver: TakeOver): Promise<void> {
  const { client, queue } = takeOver;
  await client.connection.withDeadline(Date.now() + ROUND_BOUND_MS, async () => {
    const pollers = await pollersOf(client.workflowService, client.options.namespace, queue, QUEUE_KIND.workflow);
    const served = new Set(pollers.map(({ build }) => build));
    const query = `ExecutionStatus = 'Running' AND TaskQueue = '${queue}'`;
    for await (const { workflowId, runId } of client.workflow.list({ query }))
      await takeOverRun(takeOver, served, workflowId, runId).catch((error: unknown) =>
        takeOver.logger.warn(`run ${workflowId} cannot be taken over at this round: ${String(error)}`),
      );
  });
}

/** One run, unless somebody in `served` (build ids) has it or it has ended. */
export async function takeOverRun(
  { client, build, codePath, logger }: TakeOver,
  served: ReadonlySet<string | null>,
  workflowId: string,
  runId: string,
): Promise<void> {
  const history = await client.workflow.getHandle(workflowId, runId).fetchHistory();
  const decisions = (history.events ?? []).filter((event) => event.workflowTaskCompletedEventAttributes);
  const [first, last] = [decisions[0], decisions.at(-1)?.workflowTaskCompletedEventAttributes];
  const before = last?.workerVersion?.buildId;
  // Nothing was decided yet, so there is nothing to fit.
  if (!first || !last || !before || before === build || served.has(before)) return;

  // The list may lag behind: what has ended since must not be brought back by a reset.
  if ((await client.workflow.getHandle(workflowId, runId).describe()).status.name !== 'RUNNING') return;

  const namespace = client.options.namespace;
  const workflowExecution = { workflowId, runId };
  const pinned = last.versioningBehavior === BEHAVIOR.pinned;
  const fits = await replays(codePath, history, workflowId);
  if (!fits) {
    await client.workflowService.resetWorkflowExecution({
      namespace,
      workflowExecution,
      reason: `build ${before} is gone and its history does not replay on build ${build}`,
      workflowTaskFinishEventId: first.eventId ?? null,
      // Two workers that start together reset once.
      requestId: `${runId} ${build}`,
      postResetOperations: pinned ? [{ updateWorkflowOptions: UNPINNED }] : [],
    });
  } else if (pinned) {
    await client.workflowService.updateWorkflowExecutionOptions({ namespace, workflowExecution, ...UNPINNED });
  }
  const how = fits ? 'goes on where it is' : 'begins its iteration again, with what the store holds of it';
  logger.info(`run ${workflowId} was of build ${before}, which no worker serves; on build ${build} it ${how}`);
}

/** Whether this code decides as the history says. */
async function replays(codePath: string, history: History, workflowId: string): Promise<boolean> {
  for await (const { error } of Worker.runReplayHistories({ workflowBundle: { codePath } }, [{ workflowId, history }])) {
    if (error) return false;
  }
  return true;
}
