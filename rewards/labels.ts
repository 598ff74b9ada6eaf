/** Labels: what a PRM is taught about every turn of every completed episode, as a function of the outcome table. */
import type { Episode, Label } from '../core/nouns.ts';
import { Random, type RandomKey } from '../core/random.ts';
import { outcomeKeys, outcomeTable } from './outcome-table.ts';

export interface LabelSpec {
  /** `monte-carlo`: the mean discounted return-to-go over all visits of the same (state, action) (arXiv 2502.10325, Eq. 1). */
  kind: 'monte-carlo';
  discount: number;
  /** `shuffled` deals the labels out at random: a control that must teach nothing. */
  control: 'none' | 'shuffled';
}

export interface LabelReport {
  labels: number;
  /** Distinct (state, action) pairs, and how many of them were visited more than once. */
  distinct: number;
  revisited: number;
  mean: number;
}

export function makeLabels(episodes: readonly Episode[], spec: LabelSpec, key: RandomKey): { labels: Label[]; report: LabelReport } {
  const table = outcomeTable(episodes, spec.discount);
  let labels: Label[] = [];
  for (const episode of episodes) {
    if (episode.ending.kind !== 'completed') continue;
    outcomeKeys(episode).forEach((outcomeKey, turn) => {
      const row = table.rows.get(outcomeKey);
      if (row) labels.push({ episode: episode.id, turn, value: row.returnSum / row.visits, visits: row.visits });
    });
  }
  if (spec.control === 'shuffled') {
    const values = new Random([...key, 'shuffled']).shuffled(labels.map((label) => label.value));
    labels = labels.map((label, i) => ({ ...label, value: values[i] as number }));
  }
  let revisited = 0;
  for (const row of table.rows.values()) if (row.visits > 1) revisited++;
  const mean = labels.reduce((sum, label) => sum + label.value, 0) / Math.max(1, labels.length);
  return { labels, report: { labels: labels.length, distinct: table.rows.size, revisited, mean } };
}
