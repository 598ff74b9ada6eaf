/** The run that `start` goes on with: the newest one that was neither finished nor ended by anybody. */
import type { ArtifactStore } from '../artifacts/store.ts';
import { readEnding } from '../artifacts/ending.ts';
import { readGivenUp } from '../artifacts/retention.ts';
import { listRuns, readRun } from '../artifacts/run-log.ts';
import { digestJson } from '../core/digest.ts';
import { RatchetError } from '../core/errors.ts';
import type { Recipe } from '../recipes/schema.ts';
import { executionState, loopQueue, type Prepared } from './launch.ts';
import { isFinished } from './records.ts';
import { recipeOf, recordsOf } from './runs.ts';
import { ask, type Session } from './session.ts';

export interface Unfinished {
  runId: string;
  recipe: Recipe;
}

/** `like`: only a run of this recipe. Null where there is none. */
export async function unfinishedRun(session: Session, like: Prepared | null): Promise<Unfinished | null> {
  return (await underWay(session, like)) ?? (await forgotten(session, like));
}

/** The newest one that Temporal has under way for the workers of this installation and whose records are in this store. */
async function underWay({ store, temporal }: Session, like: Prepared | null): Promise<Unfinished | null> {
  const client = await temporal();
  const query = `WorkflowType = 'improvementLoop' AND ExecutionStatus = 'Running' AND TaskQueue = '${loopQueue()}'`;
  const found: { runId: string; startedAtMs: number }[] = [];
  await ask(client, async () => {
    for await (const { workflowId, startTime } of client.workflow.list({ query }))
      found.push({ runId: workflowId, startedAtMs: startTime.getTime() });
  });
  found.sort((a, b) => b.startedAtMs - a.startedAtMs);
  for (const { runId } of found) {
    const run = await ofStore(store, runId, like);
    if (run) return run;
  }
  return null;
}

/** One that is in the store, has work left and was not ended by anybody, and that Temporal does not know: its database was lost, or the launch died before it. */
async function forgotten({ store, temporal }: Session, like: Prepared | null): Promise<Unfinished | null> {
  const client = await temporal();
  for (const runId of (await listRuns(store)).toReversed()) {
    const run = await ofStore(store, runId, like);
    if (!run) continue;
    const records = await recordsOf(store, runId);
    const open = !records || !isFinished(records);
    const ended = !open || (await readGivenUp(store, runId)) !== null || (await readEnding(store, runId)) !== null;
    if (!ended && (await executionState(client, runId)) === null) return run;
  }
  return null;
}

async function ofStore(store: ArtifactStore, runId: string, like: Prepared | null): Promise<Unfinished | null> {
  // Other installations may share a Temporal; their run ids may not even be ours to read.
  const manifest = await readRun(store, runId).catch((error: unknown) => {
    if (error instanceof RatchetError && error.type === 'BadInput') return null;
    throw error;
  });
  if (!manifest) return null;
  const recipe = await recipeOf(store, manifest);
  // A model to start from is a path in one and a digest in the other: then only a run id says which is meant.
  return like && digestJson(like.recipe) !== manifest.recipeSha256 ? null : { runId, recipe };
}
