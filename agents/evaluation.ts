/** Evaluations: what a set of episodes on a panel says of a policy, and whether one policy is better than another on the same panel. */
import { RatchetError } from '../core/errors.ts';
import type { Sha256 } from '../core/digest.ts';
import type { Episode, Estimate } from '../core/nouns.ts';
import type { RandomKey } from '../core/random.ts';
import { meanEstimate, pairedDifference, proportion } from '../core/statistics.ts';

export interface Evaluation {
  panel: Sha256;
  policy: Sha256;
  strategy: string;
  /** Success over the completed episodes, with its Wilson 95 % interval. */
  success: Estimate;
  /** Turns taken by the successful episodes, mean with 95 % interval. */
  turnsOnSuccess: Estimate;
  families: Record<string, Estimate>;
  /** Outcome of every task of the panel, in its order: 1, 0, or null where no episode was completed. */
  outcomes: (number | null)[];
}

/** Evaluates one episode per task. `taskIds` is the panel's order. */
export function evaluate(
  episodes: readonly Episode[],
  panel: Sha256,
  taskIds: readonly string[],
  policy: Sha256,
  strategy: string,
): Evaluation {
  const byTask = new Map(episodes.map((episode) => [episode.task, episode]));
  const completed = taskIds.map((id) => byTask.get(id)).map((episode) => (episode?.ending.kind === 'completed' ? episode : null));
  const outcomes = completed.map((episode) => episode?.outcome ?? null);
  const present = completed.filter((episode) => episode !== null);
  const families: Record<string, Estimate> = {};
  for (const family of [...new Set(present.map((episode) => episode.family))].sort()) {
    const of = present.filter((episode) => episode.family === family);
    families[family] = proportion(successes(of), of.length);
  }
  return {
    panel,
    policy,
    strategy,
    success: proportion(successes(present), present.length),
    turnsOnSuccess: meanEstimate(present.filter((episode) => episode.outcome === 1).map((episode) => episode.turns.length)),
    families,
    outcomes,
  };
}

function successes(episodes: readonly Episode[]): number {
  return episodes.reduce((sum, episode) => sum + episode.outcome, 0);
}

/** Gain of `after` over `before`, paired by task, with a 95 % bootstrap interval. Refuses evaluations of different panels. */
export function gain(before: Evaluation, after: Evaluation, key: RandomKey): Estimate {
  if (before.panel !== after.panel) {
    throw new RatchetError(
      'BadInput',
      `gain: the evaluations are of different panels (${before.panel.slice(0, 12)} and ${after.panel.slice(0, 12)}); only equal panels compare`,
    );
  }
  const pairs = before.outcomes
    .map((a, i) => [a, after.outcomes[i]] as const)
    .filter((pair): pair is readonly [number, number] => typeof pair[0] === 'number' && typeof pair[1] === 'number');
  return pairedDifference(
    pairs.map(([a]) => a),
    pairs.map(([, b]) => b),
    key,
  );
}
