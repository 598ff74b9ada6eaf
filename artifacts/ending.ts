/**
 * How a run ended that has iterations to come: stopped, cancelled or failed. Temporal knows it too, but forgets it when the retention of its histories has
 * passed; this note does not. It is not verified and decides nothing of what is computed, which is in the records; but a plain `start` does not take up a
 * run that has it (cli/unfinished.ts).
 */
import { recordsFolder, runKey } from './run-log.ts';
import type { ArtifactStore, CallOptions } from './store.ts';

/** `runs/<run>/ended.json`. */
export interface Ending {
  state: 'stopped' | 'cancelled' | 'failed';
  /** What it failed of; null for the others. */
  reason: string | null;
  /** ISO 8601, UTC. */
  at: string;
  /** How many records the run had: with more, it went on. */
  records: number;
}

function endingKey(runId: string): string {
  return `${runKey(runId).slice(0, -'run.json'.length)}ended.json`;
}

async function recordCount(store: ArtifactStore, runId: string, options: CallOptions): Promise<number> {
  let count = 0;
  for await (const _ of store.list(recordsFolder(runId), options)) count++;
  return count;
}

export async function noteEnding(
  store: ArtifactStore,
  runId: string,
  ending: Pick<Ending, 'state' | 'reason'>,
  options: CallOptions = {},
): Promise<void> {
  const noted: Ending = { ...ending, at: new Date().toISOString(), records: await recordCount(store, runId, options) };
  await store.writePointer(endingKey(runId), noted, options);
}

/** Null for a run that has not ended, or went on since. */
export async function readEnding(store: ArtifactStore, runId: string, options: CallOptions = {}): Promise<Ending | null> {
  const ending = await store.readManifest<Ending>(endingKey(runId), options);
  return ending && ending.records === (await recordCount(store, runId, options)) ? ending : null;
}

/** Before a run is taken up again. */
export function forgetEnding(store: ArtifactStore, runId: string, options: CallOptions = {}): Promise<void> {
  return store.delete(endingKey(runId), options);
}
