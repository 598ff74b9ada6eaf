/**
 * The compute child's side of a stage call: a job is a stage's name with its scope and input, and it runs against the child's own connection to the
 * store, so that data never passes between processes. It takes its configuration from the environment that it was started with.
 */
import { newRequests, type StoreRequests } from '../artifacts/store-requests.ts';
import { ArtifactStore } from '../artifacts/store.ts';
import { storeConfigFromEnvironment } from '../artifacts/store-config.ts';
import { badInput } from '../core/errors.ts';
import { numericFingerprint } from '../learning/compute/fingerprint.ts';
import type { JobRunner } from '../learning/compute/protocol.ts';
import { runStage } from './run-stage.ts';
import type { StageRegistry } from './run-stage.ts';
import type { Progress } from './stage.ts';

/** Models and panels are read again by every shard that a warm child plays. */
const CACHE_BYTES = 64 * 2 ** 20;

/** The one argument of every stage activity. */
export interface StageCall<Input = unknown> {
  /** The run id: whose memory of finished calls is used. Never part of what is computed. */
  scope: string;
  /** The iteration at hand. Absent in calls that were made by a version without it. */
  iteration?: number;
  input: Input;
}

/** What a compute child is given: the call, and what its earlier attempts have met. */
export interface StageJob extends StageCall {
  outOfMemory: number;
}

/** What a compute child tells: how far its stage call is, or what came out, and what it asked of the store since it told last, whichever call that was for. */
export interface StageNews {
  progress?: Progress;
  output?: unknown;
  requests: StoreRequests;
}

export function createStageRunner(stages: StageRegistry, env: Record<string, string | undefined> = process.env): JobRunner {
  const store = ArtifactStore.connect({ ...storeConfigFromEnvironment(env), cacheBytes: CACHE_BYTES });
  const fingerprint = numericFingerprint();
  const checkpointIntervalMs = intervalFrom(env['RATCHET_CHECKPOINT_INTERVAL_MS']);
  const requests = newRequests(store.requests);
  return {
    run: async ({ name, input: call }, hooks) => {
      const { scope, iteration = null, input, outOfMemory } = call as StageJob;
      const output = await runStage(name, input, {
        stages,
        store,
        scope,
        iteration,
        fingerprint,
        ...(checkpointIntervalMs !== null && { checkpointIntervalMs }),
        onProgress: (progress) => hooks.progress({ progress, requests: requests() } satisfies StageNews),
        onCheckpoint: hooks.checkpoint,
        stopRequested: hooks.stopRequested,
        checkpointRequested: hooks.checkpointRequested,
        outOfMemory,
        signal: hooks.signal,
      });
      return { output, requests: requests() } satisfies StageNews;
    },
  };
}

function intervalFrom(text: string | undefined): number | null {
  if (text === undefined || text === '') return null;
  const value = Number(text);
  if (!(value >= 0)) throw badInput('RATCHET_CHECKPOINT_INTERVAL_MS', text, 'milliseconds, at least 0');
  return value;
}
