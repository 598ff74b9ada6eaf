/** The reward model's score of every step of some episodes, computed here and now: Q in [0, 1] of the command taken, as best-of-N reads it. */
import { loadModel } from '../activities/stages/models.ts';
import { encodeEpisode, Tokens } from '../agents/tokens.ts';
import type { ArtifactStore } from '../artifacts/store.ts';
import type { Episode, ModelRef } from '../core/nouns.ts';
import { sigmoid } from '../core/statistics.ts';
import { worldNamed } from '../environments/registry.ts';
import { createReader } from '../learning/reader.ts';

/** One core is enough for a few episodes. */
const LANES = 1;

/** For each episode one score per turn; null for turns beyond what the model can read. Null where there is no reward model. */
export async function scoreEpisodes(
  store: ArtifactStore,
  environment: string,
  rewardModel: ModelRef | null,
  episodes: readonly Episode[],
): Promise<(number | null)[][] | null> {
  if (!rewardModel) return null;
  const { codec } = worldNamed(environment);
  const tokens = new Tokens(codec);
  const model = await loadModel(store, rewardModel, codec);
  const longest = model.config.max_position_embeddings;
  const encoded = episodes.map((episode) => encodeEpisode(tokens, episode));
  // What does not fit is not read: positions beyond the longest were never trained.
  const read = encoded.map(({ ids, actionEnds }) => ({
    ids: ids.slice(0, longest),
    ends: actionEnds.filter((end) => end < longest),
    turns: actionEnds.length,
  }));
  const reader = await createReader(model, { lanes: LANES });
  try {
    const requests = read.map(({ ids, ends }) => ({
      trees: [{ ids, parents: ids.map((_, i) => i - 1) }],
      reads: ends.map((node) => ({ tree: 0, node })),
    }));
    const logits = await reader.scores(requests.filter(({ reads }) => reads.length > 0));
    let next = 0;
    return read.map(({ ends, turns }) => {
      const scores = ends.length > 0 ? Array.from(logits[next++] ?? [], sigmoid) : [];
      return Array.from({ length: turns }, (_, turn) => scores[turn] ?? null);
    });
  } finally {
    await reader.close();
  }
}
