/**
 * What a worker of this home held when it died is given back by the next one as it starts, instead of waiting until its heartbeats have been missing for long
 * enough. It gives back nothing of a worker that lives or of another machine; what it cannot give back the missing heartbeats do.
 */
import type { Client } from '@temporalio/client';
import { ApplicationFailure, DefaultFailureConverter, defaultPayloadConverter } from '@temporalio/common';
import type { ErrorType } from '../core/errors.ts';

/** Every question together: a few per run, milliseconds each. Longer would be later than the heartbeats. */
const ROUND_BOUND_MS = 5_000;
/** The cause is gone with the worker; the growing pauses of the retry policy are for failures. */
const RETRY_DELAY_MS = 100;
/** `temporal.api.enums.v1.PendingActivityState.PENDING_ACTIVITY_STATE_STARTED`. */
const STARTED = 2;

/** Fails every attempt that one of `dead` (workers' identities) had begun in a run on `queue`, so that it is tried again at once. Returns how many. */
export async function giveBack(client: Client, queue: string, dead: ReadonlySet<string>, identity: string): Promise<number> {
  if (dead.size === 0) return 0;
  const { workflowService, connection } = client;
  const { namespace } = client.options;
  let given = 0;
  await connection.withDeadline(Date.now() + ROUND_BOUND_MS, async () => {
    for await (const { workflowId, runId } of client.workflow.list({ query: `ExecutionStatus = 'Running' AND TaskQueue = '${queue}'` })) {
      const { raw } = await client.workflow.getHandle(workflowId, runId).describe();
      for (const { activityId, state, lastWorkerIdentity } of raw.pendingActivities ?? []) {
        if (state !== STARTED || !activityId || !dead.has(lastWorkerIdentity ?? '')) continue;
        const failure = failureOf(`worker ${lastWorkerIdentity} died`);
        await workflowService.respondActivityTaskFailedById({ namespace, workflowId, runId, activityId, identity, failure });
        given++;
      }
    }
  });
  return given;
}

function failureOf(message: string) {
  const type: ErrorType = 'ComputeCrashed';
  const failure = ApplicationFailure.create({ type, message, nextRetryDelay: RETRY_DELAY_MS });
  return new DefaultFailureConverter().errorToFailure(failure, defaultPayloadConverter);
}
