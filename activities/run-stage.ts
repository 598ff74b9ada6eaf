/**
 * Runs one stage call at most once: looks for its committed output, else computes it, going on from the newest checkpoint, and commits it by one
 * conditional write. The same function serves the compute child under Temporal and a loop that runs in one process. It neither retries nor decides
 * where a stage runs.
 */
import type { StageManifest } from '../artifacts/record.ts';
import { commitStage, readStage, stageIntent, stageKey } from '../artifacts/run-log.ts';
import type { ArtifactStore } from '../artifacts/store.ts';
import { badInput, RatchetError } from '../core/errors.ts';
import { checkPayload } from './payload.ts';
import { StageCheckpoints } from './stage-checkpoints.ts';
import type { Progress, Queue, Stage, StageContext } from './stage.ts';

/** Every stage by name. */
export type StageRegistry = Readonly<Record<string, { queue: Queue; run: Stage<unknown, unknown> }>>;

/** What is kept of a finished stage call: also the numeric fingerprint that the output was computed under. */
export interface CommittedStage extends StageManifest {
  fingerprint: string;
}

export interface StageDeps {
  stages: StageRegistry;
  store: ArtifactStore;
  /** Whose memory of finished calls is used: normally the run id. It is part of keys only and influences no other byte. */
  scope: string;
  /** In which iteration it is called, for the index of its results (`run-log.ts`); null where nobody keeps one. */
  iteration: number | null;
  fingerprint: string;
  onProgress?: (progress: Progress) => void;
  /** Told after each checkpoint that is safely stored. */
  onCheckpoint?: (step: number) => void;
  /** True once the stage is to end after its next checkpoint. */
  stopRequested?: () => boolean;
  /** True once a checkpoint is wanted at the next opportunity. */
  checkpointRequested?: () => boolean;
  /** How often memory has run out since the last checkpoint of this call. */
  outOfMemory?: number;
  signal?: AbortSignal;
  /** For people: what was skipped or adopted, and why. Absent: standard error. */
  warn?: (message: string) => void;
  /** Absent: by what saving costs. */
  checkpointIntervalMs?: number;
}

/**
 * The output of stage `name` on `input`. Throws BadInput for an unknown stage, a malformed scope (a run id), or an input or output above the payload limit;
 * Stopped after a requested stop; Conflict when another attempt under the same fingerprint committed another output (the stage is then not
 * deterministic); and whatever the stage throws.
 */
export async function runStage<Output = unknown>(name: string, input: unknown, deps: StageDeps): Promise<Output> {
  const { stages, store, scope, iteration, fingerprint } = deps;
  const definition = Object.hasOwn(stages, name) ? stages[name] : undefined;
  if (definition === undefined) throw badInput('stage', name, `one of ${Object.keys(stages).sort().join(', ')}`);
  checkPayload(`input of stage ${name}`, input);

  const signal = deps.signal ?? new AbortController().signal;
  const stopRequested = deps.stopRequested ?? (() => false);
  const warn = deps.warn ?? ((message: string) => console.warn(message));
  const committed = await readCommitted(store, scope, name, input, signal);
  if (committed !== null) return committed.output as Output;

  const checkpoints = new StageCheckpoints({
    store,
    scope,
    intent: stageIntent(name, input),
    fingerprint,
    intervalMs: deps.checkpointIntervalMs ?? null,
    wanted: () => stopRequested() || (deps.checkpointRequested?.() ?? false),
    onSaved: deps.onCheckpoint ?? (() => {}),
    warn,
    signal,
  });
  const context: StageContext = {
    store,
    signal,
    checkpoints,
    progress: (progress) => deps.onProgress?.(progress),
    outOfMemory: deps.outOfMemory ?? 0,
    stopIfRequested: () => {
      if (stopRequested()) throw new RatchetError('Stopped', `stage ${name} was asked to stop`);
    },
    committed: async <T>(stage: string, stageInput: unknown): Promise<T> => {
      const manifest = await readCommitted(store, scope, stage, stageInput, signal);
      if (manifest !== null) return manifest.output as T;
      throw new RatchetError(
        'Corrupt',
        `${stageKey(scope, stage, stageInput)} is missing: stage ${stage}, which ${name} needs, was never committed`,
      );
    },
  };

  const output = (await definition.run(input, context)) ?? null;
  signal.throwIfAborted();
  checkPayload(`output of stage ${name}`, output);
  const winner = await commit(store, scope, iteration, { stage: name, input, output, fingerprint }, signal, warn);
  await checkpoints.clear().catch((error: unknown) => warn(`checkpoints of stage ${name} were not all removed: ${String(error)}`));
  return winner as Output;
}

/** Commits, or gives way to whoever was first. Returns the output that counts. */
async function commit(
  store: ArtifactStore,
  scope: string,
  iteration: number | null,
  ours: CommittedStage,
  signal: AbortSignal,
  warn: (message: string) => void,
): Promise<unknown> {
  const key = stageKey(scope, ours.stage, ours.input);
  try {
    await commitStage(store, scope, iteration, ours, { signal });
    return ours.output;
  } catch (error) {
    if (!(error instanceof RatchetError) || error.type !== 'Conflict') throw error;
    const first = await readCommitted(store, scope, ours.stage, ours.input, signal);
    // Two machines may differ in the last bits, and the first output counts. One machine may not: its promise of equal bytes is broken.
    if (first === null || first.fingerprint === ours.fingerprint) throw error;
    warn(`${key} was committed under fingerprint ${first.fingerprint}; the output computed here under ${ours.fingerprint} is dropped`);
    return first.output;
  }
}

async function readCommitted(
  store: ArtifactStore,
  scope: string,
  stage: string,
  input: unknown,
  signal: AbortSignal,
): Promise<CommittedStage | null> {
  const manifest = (await readStage(store, scope, stage, input, { signal })) as CommittedStage | null;
  if (manifest === null) return null;
  const found = stageIntent(manifest.stage, manifest.input);
  if (found === stageIntent(stage, input)) return manifest;
  throw new RatchetError(
    'Corrupt',
    `${stageKey(scope, stage, input)} holds stage ${manifest.stage} with an input of digest ${found}, which is not its name`,
  );
}
