/** Finds the episodes that a command is asked for: those of the collection, of an evaluation, or the demonstrations of the warm start. */
import { loadEpisodes, type Gathered } from '../activities/stages/rollouts.ts';
import { objectKey, type ArtifactStore } from '../artifacts/store.ts';
import { badInput, RatchetError } from '../core/errors.ts';
import { nearest } from '../core/nearest.ts';
import type { ArtifactRef, Episode, ModelRef } from '../core/nouns.ts';
import { isIterationBody, type Iteration, type RunRecords } from './records.ts';

export const SOURCES = ['collect', 'demonstrations', 'unseen', 'seen'] as const;
export type Source = (typeof SOURCES)[number];

export interface ChosenEpisodes {
  /** In words, e.g. `unseen greedy`. */
  name: string;
  iteration: number;
  episodes: Episode[];
  /** What scores them: the reward model of the iteration, else the first one after it. */
  rewardModel: ModelRef | null;
}

/** Throws BadInput naming the iterations, sources or strategies that there are. */
export async function chooseEpisodes(
  store: ArtifactStore,
  runId: string,
  records: RunRecords,
  asked: { source: Source | null; iteration: number | undefined; strategy: string | undefined },
): Promise<ChosenEpisodes> {
  const closed = records.iterations;
  const wanted = asked.iteration ?? (asked.source === 'demonstrations' ? 0 : closed.at(-1)?.iteration);
  const found = closed.find(({ iteration }) => iteration === wanted);
  if (!found)
    throw badInput(
      '--iteration',
      wanted ?? null,
      closed.length > 0 ? `run ${runId} has closed iterations 0 to ${closed.length - 1}` : `run ${runId} has closed none yet`,
    );
  const source = asked.source ?? (isIterationBody(found.body) ? 'collect' : 'demonstrations');
  const { name, set } = await setOf(store, found, source, asked.strategy);
  const scoring = closed.find(({ iteration, body }) => iteration >= found.iteration && isIterationBody(body));
  return {
    name,
    iteration: found.iteration,
    episodes: await loadEpisodes({ store, progress: () => {} }, set),
    rewardModel: scoring && isIterationBody(scoring.body) ? scoring.body.rewardModel.rewardModel : null,
  };
}

async function setOf(
  store: ArtifactStore,
  { iteration, body }: Iteration,
  source: Source,
  strategy: string | undefined,
): Promise<{ name: string; set: ArtifactRef }> {
  if (source === 'collect' || source === 'demonstrations') {
    const gathered: Gathered | null =
      source === 'collect' ? (isIterationBody(body) ? body.rollouts : null) : isIterationBody(body) ? null : body.demonstrations;
    if (!gathered)
      throw badInput(
        '--of',
        source,
        source === 'collect'
          ? 'the warm start (iteration 0) has no collection; use demonstrations, unseen or seen'
          : 'only iteration 0 has demonstrations',
      );
    return { name: source, set: gathered.set };
  }
  const reports = Object.entries(body.reports).filter(([name]) => name.split(' ')[0] === source);
  const strategies = reports.map(([, evaluated]) => evaluated.strategy);
  if (reports.length === 0)
    throw badInput(
      '--of',
      source,
      `iteration ${iteration} was reported on ${[...new Set(Object.keys(body.reports).map((name) => name.split(' ')[0]))].join(', ')}`,
    );
  const [, evaluated] = reports.find(([, each]) => strategy === undefined || each.strategy === strategy) ?? [];
  if (!evaluated)
    throw badInput(
      '--strategy',
      strategy,
      `did you mean ${nearest(strategy ?? '', strategies)}? Iteration ${iteration} was played with ${strategies.join(', ')}`,
    );
  return { name: `${source} ${evaluated.strategy}`, set: await refOf(store, evaluated.episodes) };
}

/** The reference of an object that a record names by its digest alone. */
async function refOf(store: ArtifactStore, sha256: string): Promise<ArtifactRef> {
  const key = objectKey(sha256);
  for await (const found of store.list(key)) if (found.key === key) return { key, sha256, bytes: found.bytes };
  throw new RatchetError('Corrupt', `${key} is missing`);
}
