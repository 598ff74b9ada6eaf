/** Runs by id: finding one, and saying which is nearest when there is none of that name. From the store alone. */
import { listRuns, readRun, readChain } from '../artifacts/run-log.ts';
import type { RunManifest } from '../artifacts/record.ts';
import type { ArtifactStore } from '../artifacts/store.ts';
import { badInput } from '../core/errors.ts';
import { nearest } from '../core/nearest.ts';
import type { Recipe } from '../recipes/schema.ts';
import { joinRecords, type RunRecords } from './records.ts';

/** Throws BadInput that names the nearest run there is. */
export async function requireRun(store: ArtifactStore, runId: string): Promise<RunManifest> {
  const manifest = /^[\w.-]+$/.test(runId) ? await readRun(store, runId) : null;
  if (manifest) return manifest;
  const ids = await listRuns(store);
  const hint =
    ids.length > 0 ? `did you mean ${nearest(runId, ids)}? \`npx ratchet ls\` lists all` : 'there are no runs yet; `npm start` makes one';
  throw badInput('run', runId, hint);
}

export async function recipeOf(store: ArtifactStore, manifest: RunManifest): Promise<Recipe> {
  return store.getJson<Recipe>(manifest.recipe);
}

/** All records of a run; null before the first is written. */
export async function recordsOf(store: ArtifactStore, runId: string): Promise<RunRecords | null> {
  return joinRecords(await readChain(store, runId));
}

/** The records of a run that has some. Throws BadInput for an unknown run and for one that has not begun. */
export async function requireRecords(store: ArtifactStore, runId: string): Promise<RunRecords> {
  await requireRun(store, runId);
  const records = await recordsOf(store, runId);
  if (!records) throw badInput('run', runId, 'it has no records yet; `npx ratchet status` tells what it is doing');
  return records;
}
