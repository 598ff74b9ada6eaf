/**
 * The stages as Temporal activities, one per stage name: each runs in a compute slot's child, while this process only forwards: heartbeats as long as the
 * child makes progress, cancellation, a worker's shutdown as a request for a checkpoint. Nothing is computed here.
 */
import { CancelledFailure, Context } from '@temporalio/activity';
import type { SigningKey } from '../artifacts/attestation.ts';
import type { RecordEntry, RecordRef, Steering } from '../artifacts/record.ts';
import { requireBulk } from '../artifacts/retention.ts';
import { appendRecord } from '../artifacts/run-log.ts';
import { requestsSince, type StoreRequests } from '../artifacts/store-requests.ts';
import type { ArtifactStore } from '../artifacts/store.ts';
import { badInput, RatchetError } from '../core/errors.ts';
import type { ComputePool } from '../learning/compute/pool.ts';
import { attestRecord } from './attest.ts';
import { countFailure, toApplicationFailure } from './failures.ts';
import type { FailureCounts } from './failures.ts';
import { checkPayload } from './payload.ts';
import type { StageCall, StageJob, StageNews, StageResult } from './stage-runner.ts';
import type { Progress } from './stage.ts';

/** Often enough that people see progress live and a cancellation (which comes back with a heartbeat) arrives within a second or two. */
const HEARTBEAT_INTERVAL_MS = 1_000;

/**
 * A child that has said nothing for so long is taken for dead. The longest honest silence is importing and compiling a training graph, or storing a
 * large checkpoint while the store restarts: below a minute.
 */
export const STALL_BOUND_MS = 120_000;

/**
 * How long a draining worker waits for a checkpoint. Container platforms send SIGKILL 30 s after SIGTERM by default; this leaves time to report the
 * stop and close down.
 */
export const STOP_BOUND_MS = 20_000;

/** What a heartbeat tells, for `status`, the UI and the next attempt. A hint: the checkpoints in the store are the truth. */
export interface StageHeartbeat {
  progress: Progress | null;
  /** Step of the newest checkpoint of this attempt. */
  checkpoint: number | null;
  failures: FailureCounts;
}

export interface StageActivityDeps {
  /** Names of the stages that this worker's queue carries. */
  names: readonly string[];
  pool: ComputePool;
  stallBoundMs?: number;
  stopBoundMs?: number;
  /** Hears what the children ask of the store, within seconds; the last of one that is killed is lost. */
  onRequests?: (requests: StoreRequests) => void;
}

export type StageActivity = (call: StageCall) => Promise<unknown>;

/** One activity per stage. Each throws only ApplicationFailure, typed (see failures.ts), or CancelledFailure. */
export function createStageActivities(deps: StageActivityDeps): Record<string, StageActivity> {
  return Object.fromEntries(deps.names.map((name) => [name, (call: StageCall) => runInSlot(name, call, deps)]));
}

/** A record to append, with what operators did since the one before. */
export interface RecordCall extends StageCall<RecordEntry> {
  steering: Steering[];
}

/** The activities that need no compute: a few small reads and writes in the store, done in the worker's own process; attestations are signed with `key`. */
export function createRecordActivities(store: ArtifactStore, key: SigningKey): { appendRecord: (call: RecordCall) => Promise<RecordRef> } {
  return {
    appendRecord: async (call) => {
      const context = Context.current();
      const told: StageHeartbeat = { progress: null, checkpoint: null, failures: earlierFailures(context) };
      // The store bounds its own patience with a server that is away, and this activity only waits for it.
      const timer = setInterval(() => context.heartbeat(told), HEARTBEAT_INTERVAL_MS);
      try {
        checkCall('appendRecord', call);
        // Given up at the moment that it was taken up again.
        await requireBulk(store, call.scope, { signal: context.cancellationSignal });
        const record = await appendRecord(store, call.scope, call.input, { signal: context.cancellationSignal });
        await attestRecord(
          store,
          call.scope,
          record,
          { attempts: context.info.attempt, steering: call.steering ?? [] },
          key,
          context.cancellationSignal,
        );
        return record;
      } catch (error) {
        throw failed(context, error, told);
      } finally {
        clearInterval(timer);
      }
    },
  };
}

async function runInSlot(name: string, call: StageCall, deps: StageActivityDeps): Promise<unknown> {
  const { pool, stallBoundMs = STALL_BOUND_MS, stopBoundMs = STOP_BOUND_MS, onRequests } = deps;
  const context = Context.current();
  const told: StageHeartbeat = { progress: null, checkpoint: null, failures: earlierFailures(context) };
  let counted: StoreRequests = {};
  const count = (requests: StoreRequests): void => {
    onRequests?.(requestsSince(requests, counted));
    counted = requests;
  };
  const stop = new AbortController();
  const kill = new AbortController();
  let lastSignMs = performance.now();

  // Liveness without progress is a failure: the timer speaks for the child only while the child has spoken.
  const timer = setInterval(() => {
    const silentMs = performance.now() - lastSignMs;
    if (silentMs < stallBoundMs) context.heartbeat(told);
    else kill.abort(new RatchetError('ComputeStalled', stallMessage(name, stallBoundMs, told.progress)));
  }, HEARTBEAT_INTERVAL_MS);
  let stopTimer: NodeJS.Timeout | undefined;
  const onCancel = (): void => {
    const { workerShutdown, paused, reset } = context.cancellationDetails ?? {};
    if (!workerShutdown && !paused && !reset) {
      kill.abort(context.cancellationSignal.reason);
      return;
    }
    // The result is still wanted, only not here and now.
    stop.abort();
    const late = new RatchetError('Stopped', `stage ${name} reached no checkpoint within ${stopBoundMs} ms of being asked to stop`);
    stopTimer = setTimeout(() => kill.abort(late), stopBoundMs);
  };
  if (context.cancellationSignal.aborted) onCancel();
  else context.cancellationSignal.addEventListener('abort', onCancel, { once: true });

  try {
    checkCall(name, call);
    context.heartbeat(told);
    const job: StageJob = { ...call, outOfMemory: told.failures.OutOfMemory ?? 0 };
    const { output, requests } = (await pool.run(name, job, {
      signal: kill.signal,
      stop: stop.signal,
      onProgress: (news) => {
        lastSignMs = performance.now();
        const { progress, requests } = news as StageNews;
        told.progress = progress;
        count(requests);
      },
      onCheckpoint: (step) => {
        lastSignMs = performance.now();
        told.checkpoint = step;
        told.failures = {};
      },
    })) as StageResult;
    count(requests);
    checkPayload(`output of stage ${name}`, output);
    return output;
  } catch (error) {
    throw failed(context, error, told);
  } finally {
    clearInterval(timer);
    clearTimeout(stopTimer);
    context.cancellationSignal.removeEventListener('abort', onCancel);
  }
}

/** What to throw for `error`; the count of failures goes with it, as the last heartbeat of this attempt. */
function failed(context: Context, error: unknown, told: StageHeartbeat): Error {
  if (error instanceof CancelledFailure) return error;
  const failures = countFailure(told.failures, error);
  context.heartbeat({ ...told, failures } satisfies StageHeartbeat);
  return toApplicationFailure(error, failures);
}

function earlierFailures(context: Context): FailureCounts {
  return (context.info.heartbeatDetails as StageHeartbeat | undefined)?.failures ?? {};
}

function checkCall(name: string, call: StageCall): void {
  const given = typeof call === 'object' && call !== null && typeof call.scope === 'string' && call.input !== undefined;
  if (!given) throw badInput(`argument of activity ${name}`, call, '{ scope: the run id, input: what the stage is given }');
  checkPayload(`input of stage ${name}`, call.input);
}

function stallMessage(name: string, boundMs: number, progress: Progress | null): string {
  const last =
    progress === null
      ? 'it had reported nothing yet'
      : `its last was ${progress.phase} ${progress.done} of ${progress.total} ${progress.unit}`;
  return `stage ${name} made no progress for ${boundMs} ms (${last}); its child was killed`;
}
