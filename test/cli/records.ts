/** A run of two iterations as its records would say it, with figures that are easy to recognise in a table. */
import type { Evaluated } from '../../activities/stages/measuring.ts';
import type { RecordEntry } from '../../artifacts/record.ts';
import { digestJson } from '../../core/digest.ts';
import type { ArtifactRef, Estimate, ModelRef } from '../../core/nouns.ts';
import { joinRecords, type RunRecords } from '../../cli/records.ts';
import { loadRecipe } from '../../recipes/load.ts';
import type { Recipe } from '../../recipes/schema.ts';

/** The shipped recipe, measured on one panel only. */
export const recipe: Recipe = {
  ...loadRecipe('agentprm-household', { scale: 'tiny', seed: 1, overrides: ['report.panels=[unseen]', 'iterations=2'] }),
  method: 'AgentPRM',
};

const ref = (name: string): ArtifactRef => ({ key: `objects/${digestJson(name)}`, sha256: digestJson(name), bytes: 10 });
const model = (name: string): ModelRef => ({
  sha256: digestJson(name),
  files: { config: ref('c'), weights: ref('w'), tokenizer: ref('t') },
});
const estimate = (value: number, low: number, high: number, n = 600): Estimate => ({ value, low, high, n });

function evaluated(strategy: string, success: Estimate, gain: Estimate | null, turns: number): Evaluated {
  const turnsOnSuccess = estimate(turns, turns - 1, turns + 1, 300);
  return { evaluation: ref('e'), panel: 'p', episodes: 'x', policy: 'y', strategy, success, turnsOnSuccess, gain };
}

function iteration(policy: string, success: number, promoted: boolean) {
  const gain = estimate(0.108, 0.07, 0.146);
  return {
    policy: model(policy),
    rollouts: {
      set: ref('rollouts'),
      account: { dispatched: 1200, completed: 1200, failed: 0, abandoned: 0, successes: 600, turnCount: 9000 },
    },
    labels: { labels: ref('labels'), report: { labels: 9000, distinct: 8000, revisited: 500, mean: 0.5 } },
    rewardModel: {
      rewardModel: model('prm'),
      report: {
        trainEpisodes: 1080,
        validationEpisodes: 120,
        steps: 270,
        trainBce: 0.39,
        validationBce: 0.401,
        baseBce: 0.512,
        correlation: 0.614,
      },
    },
    update: {
      candidates: [],
      pairs: ref('pairs'),
      report: { steps: 80, pairs: 3412, scoredPerState: 4, meanMargin: 0.11, kl: 0.05, loss: 0.6 },
    },
    pairTruth: {
      pairs: 100,
      continuations: 5,
      predicted: 0.113,
      truth: estimate(0.092, 0.049, 0.135, 100),
      standardErrors: 4.21,
      signAccuracy: 0.7,
      decided: 60,
    },
    validation: { incumbent: { score: 0.641, evaluations: [] }, candidates: [] },
    decision: { promoted, step: promoted ? 80 : 0, score: promoted ? 0.723 : 0.64, incumbentScore: 0.641, minGain: 0.01 },
    reports: {
      // In canonical order, as they are stored.
      'unseen best-of-n': evaluated('best-of-4', estimate(success + 0.05, success + 0.01, success + 0.08), null, 12),
      'unseen greedy': evaluated('greedy', estimate(success, success - 0.036, success + 0.032), gain, 12.9),
      'unseen sample': evaluated('sample T=1', estimate(success - 0.1, success - 0.14, success - 0.06), gain, 14.1),
    },
  };
}

/** The entries of the chain, each with the digest of the one before. */
export function sampleEntries(): RecordEntry[] {
  const panel = { ref: ref('panel'), tasks: 600 };
  const bodies: [RecordEntry['kind'], number, object][] = [
    ['genesis', 0, { recipe, initial: null, panels: { train: panel, validation: panel, seen: panel, unseen: panel } }],
    ['intent', 0, { from: null }],
    [
      'outcome',
      0,
      {
        policy: model('policy 0'),
        demonstrations: {
          set: ref('demonstrations'),
          account: { dispatched: 4000, completed: 4000, failed: 0, abandoned: 0, successes: 2000, turnCount: 50000 },
        },
        warmStart: { episodes: 4000, steps: 1500, tokens: 1, loss: 0.5 },
        reports: {
          'unseen greedy': evaluated('greedy', estimate(0.652, 0.613, 0.689), null, 14.2),
          'unseen sample': evaluated('sample T=1', estimate(0.52, 0.48, 0.56), null, 15),
        },
      },
    ],
    ['intent', 1, { from: model('policy 0') }],
    ['outcome', 1, iteration('policy 1', 0.76, true)],
    ['intent', 2, { from: model('policy 1') }],
    ['outcome', 2, iteration('policy 1', 0.76, false)],
  ];
  const entries: RecordEntry[] = [];
  for (const [index, [kind, of, body]] of bodies.entries()) {
    const before = entries.at(-1);
    entries.push({
      index,
      kind,
      previous: before ? digestJson(before) : null,
      iteration: of,
      body: JSON.parse(JSON.stringify(body)) as object,
    });
  }
  return entries;
}

export function sampleRecords(): RunRecords {
  const records = joinRecords(sampleEntries().map((entry) => ({ entry, ref: { index: entry.index, sha256: digestJson(entry) } })));
  if (!records) throw new Error('the sample has records');
  return records;
}
