/**
 * Recomputes stage calls of a run from their stored inputs and compares what comes out with what is stored, digest by digest. Nothing of the run is
 * changed and no checkpoint is used; results of other stages that a call reads are the stored ones, so that a difference is named where it arises.
 */
import type { StageIndex } from '../artifacts/record.ts';
import { readChain, readStage, stagesFolder } from '../artifacts/run-log.ts';
import type { ArtifactStore } from '../artifacts/store.ts';
import { canonicalJson, digestJson, type Sha256 } from '../core/digest.ts';
import { differences, type Difference } from '../core/difference.ts';
import { badInput, RatchetError } from '../core/errors.ts';
import type { CommittedStage, StageRegistry } from './run-stage.ts';
import type { Progress, StageContext } from './stage.ts';

/** Stages that compute with models, whose bytes depend on the numeric fingerprint. All others are arithmetic on stored data. */
const NUMERIC: ReadonlySet<string> = new Set(['rolloutShard', 'warmStart', 'fitRewardModel', 'updatePolicy']);

/**
 * How strongly a run was re-executed: R2, models and episodes came out bit for bit; R1, labels, plans and metrics did; R0, nothing was shown.
 * R3 (statistically equal) is for another fingerprint and is not decided here: a difference under another fingerprint is told as such.
 */
export type ReplayLevel = 'R0' | 'R1' | 'R2';

export interface ReplayedCall {
  stage: string;
  /** Digest of stage and input: the name of the stored result. */
  intent: Sha256;
  equal: boolean;
  /** Where the outputs first differ, e.g. `output.policy.sha256`, with the stored value (`a`) and the new one (`b`); null when they are equal. */
  difference: Difference | null;
  /** The fingerprint that the stored result was computed under. */
  fingerprint: string;
  seconds: number;
}

export interface ReplayReport {
  runId: string;
  level: ReplayLevel;
  /** Of this machine. */
  fingerprint: string;
  calls: ReplayedCall[];
}

export interface ReplayOptions {
  store: ArtifactStore;
  runId: string;
  stages: StageRegistry;
  fingerprint: string;
  /** Only the stages of this iteration (0 is the warm start). */
  iteration?: number;
  /** Only stages of this name. */
  stage?: string;
  /** Told before a call is replayed, and of its progress. */
  onCall?: (call: { stage: string; at: number; of: number; progress: Progress | null }) => void;
  onReplayed?: (call: ReplayedCall) => void;
  signal?: AbortSignal;
}

/** Throws BadInput for a stage or an iteration that the run does not have, Corrupt when a stored input cannot be read. */
export async function replayRun(options: ReplayOptions): Promise<ReplayReport> {
  const { runId, stages, fingerprint, stage: only } = options;
  if (only !== undefined && !Object.hasOwn(stages, only))
    throw badInput('--stage', only, `one of ${Object.keys(stages).sort().join(', ')}`);
  const manifests = (await stagesOf(options)).filter(({ stage }) => only === undefined || stage === only);
  if (manifests.length === 0) throw badInput('--stage', only ?? null, 'a stage that ran in what was asked for');
  const calls: ReplayedCall[] = [];
  for (const [at, manifest] of manifests.entries()) {
    options.onCall?.({ stage: manifest.stage, at, of: manifests.length, progress: null });
    const call = await replayCall(manifest, options, (progress) =>
      options.onCall?.({ stage: manifest.stage, at, of: manifests.length, progress }),
    );
    calls.push(call);
    options.onReplayed?.(call);
  }
  return { runId, level: levelOf(calls), fingerprint, calls };
}

/** In the order of their names, which is the same every time. */
async function stagesOf({ store, runId, iteration, signal }: ReplayOptions): Promise<CommittedStage[]> {
  const call = signal ? { signal } : {};
  const chain = await readChain(store, runId, call);
  const outcomes = chain.filter(({ entry }) => entry.kind === 'outcome');
  const wanted = outcomes.filter(({ entry }) => iteration === undefined || entry.iteration === iteration);
  if (wanted.length === 0)
    throw badInput('--iteration', iteration ?? null, `a closed iteration; the run has ${outcomes.length} of them, from 0`);
  const out: CommittedStage[] = [];
  for (const { entry } of wanted) {
    if (!entry.stages) throw badInput('run', runId, 'a run whose records name their stages');
    for (const intent of Object.keys(await store.getJson<StageIndex>(entry.stages, call)).sort()) {
      const key = `${stagesFolder(runId)}${intent}.json`;
      const manifest = await store.readManifest<CommittedStage>(key, call);
      if (!manifest) throw new RatchetError('Corrupt', `${key} is missing; \`ratchet verify\` tells more`);
      out.push(manifest);
    }
  }
  return out;
}

async function replayCall(
  manifest: CommittedStage,
  options: ReplayOptions,
  onProgress: (progress: Progress) => void,
): Promise<ReplayedCall> {
  const { store, runId, stages } = options;
  const signal = options.signal ?? new AbortController().signal;
  const context: StageContext = {
    store,
    signal,
    progress: onProgress,
    stopIfRequested: () => signal.throwIfAborted(),
    outOfMemory: 0,
    checkpoints: { load: async () => null, save: async () => {}, due: () => false },
    committed: async <T>(stage: string, input: unknown): Promise<T> => {
      const stored = await readStage(store, runId, stage, input, { signal });
      if (!stored) throw new RatchetError('Corrupt', `stage ${stage}, which ${manifest.stage} reads, is not stored with that input`);
      return stored.output as T;
    },
  };
  const startedAt = performance.now();
  const definition = stages[manifest.stage];
  if (!definition) throw badInput('stage', manifest.stage, 'a stage that this version of Ratchet knows');
  const replayed = (await definition.run(manifest.input, context)) ?? null;
  const equal = canonicalJson(replayed) === canonicalJson(manifest.output);
  return {
    stage: manifest.stage,
    intent: digestJson({ stage: manifest.stage, input: manifest.input }),
    equal,
    difference: differences(manifest.output, replayed, 'output').next().value ?? null,
    fingerprint: manifest.fingerprint,
    seconds: (performance.now() - startedAt) / 1000,
  };
}

function levelOf(calls: readonly ReplayedCall[]): ReplayLevel {
  if (calls.some(({ stage, equal }) => !equal && !NUMERIC.has(stage))) return 'R0';
  const numeric = calls.filter(({ stage }) => NUMERIC.has(stage));
  if (numeric.length > 0 && numeric.every(({ equal }) => equal)) return 'R2';
  return numeric.length < calls.length ? 'R1' : 'R0';
}
