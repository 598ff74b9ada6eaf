/**
 * The compute child's side of a stage call: a job is a stage's name with its scope and input, and it runs against the child's own connection to the
 * store, so that data never passes between processes. It takes its configuration from the environment that it was started with.
 */
import { requestsSince, type StoreRequests } from '../artifacts/store-requests.ts';
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

/** What a compute child tells of a stage call: how far it is (null: it ends before it said so). */
export interface StageNews {
  progress: Progress | null;
  /** All that the call has asked of the store so far: of news only the latest may arrive. */
  requests: StoreRequests;
}

/** What a compute child gives. */
export interface StageResult {
  output: unknown;
  requests: StoreRequests;
}

export function createStageRunner(stages: StageRegistry, env: Record<string, string | undefined> = process.env): JobRunner {
  const store = ArtifactStore.connect({ ...storeConfigFromEnvironment(env), cacheBytes: CACHE_BYTES });
  const fingerprint = numericFingerprint();
  const checkpointIntervalMs = intervalFrom(env['RATCHET_CHECKPOINT_INTERVAL_MS']);
  return {
    run: async ({ name, input: call }, hooks) => {
      const { scope, iteration = null, input, outOfMemory } = call as StageJob;
      const before = structuredClone(store.requests);
      const requests = (): StoreRequests => requestsSince(store.requests, before);
      let progress: Progress | null = null;
      const tell = (): void => hooks.progress({ progress, requests: requests() } satisfies StageNews);
      try {
        const output = await runStage(name, input, {
          stages,
          store,
          scope,
          iteration,
          fingerprint,
          ...(checkpointIntervalMs !== null && { checkpointIntervalMs }),
          onProgress: (now) => {
            progress = now;
            tell();
          },
          onCheckpoint: hooks.checkpoint,
          stopRequested: hooks.stopRequested,
          checkpointRequested: hooks.checkpointRequested,
          outOfMemory,
          signal: hooks.signal,
        });
        return { output, requests: requests() } satisfies StageResult;
      } catch (error) {
        tell(); // a store that fails is what a call may end of
        throw error;
      }
    },
  };
}

function intervalFrom(text: string | undefined): number | null {
  if (text === undefined || text === '') return null;
  const value = Number(text);
  if (!(value >= 0)) throw badInput('RATCHET_CHECKPOINT_INTERVAL_MS', text, 'milliseconds, at least 0');
  return value;
}
