/**
 * The outcome table: for each (state, action), how many episodes passed through it and what came of them. Every kind of label is a function of it.
 * Failed and abandoned episodes are absent; they are not low outcomes.
 */
import { sha256 } from '../core/digest.ts';
import type { Episode } from '../core/nouns.ts';

export interface OutcomeRow {
  /** Names the (state, action): the task and all commands up to and including this one (the worlds are deterministic, so that is the history). */
  key: string;
  visits: number;
  /** Sum over visits of the discounted return-to-go. */
  returnSum: number;
  successes: number;
}

export interface OutcomeTable {
  discount: number;
  rows: Map<string, OutcomeRow>;
}

/** The keys of an episode's (state, action) pairs, one per turn. */
export function outcomeKeys(episode: Pick<Episode, 'task' | 'turns'>): string[] {
  let state = episode.task;
  return episode.turns.map((turn) => {
    state = sha256(`${state}\n${turn.action}`);
    return state;
  });
}

/**
 * Discounted return-to-go at every turn: sum over k >= t of discount^(k-t) r_k (arXiv 2502.10325, Eq. 1; the paper's to-go form, not the discount
 * from the start that its code uses). In [0, 1] for a single terminal reward in [0, 1].
 */
export function returnsToGo(episode: Pick<Episode, 'turns'>, discount: number): number[] {
  const returns = new Array<number>(episode.turns.length);
  let togo = 0;
  for (let t = episode.turns.length - 1; t >= 0; t--) {
    togo = (episode.turns[t]?.reward ?? 0) + discount * togo;
    returns[t] = togo;
  }
  return returns;
}

export function outcomeTable(episodes: Iterable<Episode>, discount: number): OutcomeTable {
  const rows = new Map<string, OutcomeRow>();
  for (const episode of episodes) {
    if (episode.ending.kind !== 'completed') continue;
    const keys = outcomeKeys(episode);
    const returns = returnsToGo(episode, discount);
    keys.forEach((key, t) => {
      let row = rows.get(key);
      if (!row) rows.set(key, (row = { key, visits: 0, returnSum: 0, successes: 0 }));
      row.visits++;
      row.returnSum += returns[t] as number;
      row.successes += episode.outcome;
    });
  }
  return { discount, rows };
}
