/**
 * The learning study: does AgentPRM improve the policy, and do its controls not? Runs the loop of `bench/inline-loop.ts` for several seeds and variants of
 * one recipe on unseen games, and prints the table with paired intervals. Variants of a seed share its warm start and rollouts through the store.
 *
 *   node bench/learning-study.ts [--seeds 1,2,3] [--scale tiny] [--variants agentprm,permuted,...] [--set field=value ...]
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { PairTruth } from '../agents/pair-truth.ts';
import type { Evaluated } from '../activities/stages/measuring.ts';
import { readChain } from '../artifacts/run-log.ts';
import type { Estimate } from '../core/nouns.ts';
import { mean } from '../core/statistics.ts';
import { loadRecipe } from '../recipes/load.ts';
import { drawGains } from './draw.ts';
import { inlineLoop, openStore } from './inline-loop.ts';

/** Controls are compared on the first iteration, and only on what they are about. */
const ONE_ITERATION = ['iterations=1', 'pairTruth.pairs=0', 'report.strategies=[{kind: greedy}, {kind: sample, temperature: 1}]'];
/** What each variant changes in the recipe. All but the first are controls or comparisons. */
const VARIANTS: Record<string, string[]> = {
  agentprm: [],
  /** Each state's PRM scores dealt out at random among its commands. */
  permuted: [...ONE_ITERATION, 'update.control=permuted'],
  /** The PRM is taught labels dealt out at random. */
  shuffled: [...ONE_ITERATION, 'label.control=shuffled'],
  /** The same, updated although that PRM predicts nothing on held-out games. */
  'shuffled-ungated': [...ONE_ITERATION, 'label.control=shuffled', 'gate.minCorrelation=-1'],
  /** As much more supervised training on the demonstrations. */
  'more-demonstrations': [
    ...ONE_ITERATION,
    'update={kind: more-demonstrations, optimizer: adamw, steps: 160, batchEpisodes: 8, learningRate: 5.0e-4, observationWeight: 0.3, keepEvery: 160}',
  ],
  /** Rejection-sampling SFT on the successes among the same rollouts. */
  'rejection-sft': [
    'iterations=1',
    'update={kind: rejection-sft, optimizer: adamw, steps: 150, batchEpisodes: 8, learningRate: 5.0e-4, observationWeight: 0, keepEvery: 150}',
  ],
};

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1,2,3' },
    scale: { type: 'string', default: 'tiny' },
    variants: { type: 'string', default: Object.keys(VARIANTS).join(',') },
    set: { type: 'string', multiple: true, default: [] },
    /** Where results are remembered; `{seed}` stands for the seed, so that seeds can be run side by side. */
    scope: { type: 'string', default: 'study' },
    /** File to draw the greedy gains into. */
    svg: { type: 'string' },
  },
});

interface Outcome {
  reports: Record<string, Evaluated>;
  decision?: { promoted: boolean; step: number; score: number; incumbentScore: number };
  pairTruth?: PairTruth | null;
  rewardModel?: { report: { validationBce: number; baseBce: number; correlation: number } };
  update?: { report: { pairs?: number; kl?: number }; candidates: { step: number }[] };
}

const { store, close } = await openStore();
const gains = new Map<string, { greedy: Estimate[]; sample: Estimate[] }>();
const percent = (value: number) => (100 * value).toFixed(1).padStart(5);
const interval = (one: Evaluated | undefined) =>
  one ? `${percent(one.success.value)} [${percent(one.success.low)},${percent(one.success.high)}]` : '-';
const gainText = (one: Evaluated | undefined) =>
  one?.gain ? `${percent(one.gain.value)} [${percent(one.gain.low)},${percent(one.gain.high)}]` : '-';

for (const seed of values.seeds.split(',').map(Number)) {
  for (const variant of values.variants.split(',')) {
    const recipe = loadRecipe('agentprm-household', {
      scale: values.scale,
      seed,
      overrides: [...values.set, ...(VARIANTS[variant] as string[])],
    });
    const scope = values.scope.replace('{seed}', String(seed));
    const runId = `${scope}-${variant}-s${seed}`;
    const startedAt = performance.now();
    await inlineLoop({ recipe, store, runId, scope });
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(0);
    for (const { entry: record } of await readChain(store, runId)) {
      if (record.kind !== 'outcome') continue;
      const { reports, decision, pairTruth, rewardModel, update } = record.body as unknown as Outcome;
      const [greedy, sample, best] = ['greedy', 'sample', 'best-of-n'].map((kind) => reports[`unseen ${kind}`]);
      console.log(
        [
          `seed ${seed} ${variant} iteration ${record.iteration} (${seconds} s)`,
          `greedy ${interval(greedy)} gain ${gainText(greedy)}`,
          `T=1 ${interval(sample)} gain ${gainText(sample)}`,
          `best-of-N ${interval(best)}`,
          `turns ${greedy?.turnsOnSuccess.value.toFixed(1)}`,
          decision
            ? `promoted ${decision.promoted} step ${decision.step} validation ${percent(decision.incumbentScore)} -> ${percent(decision.score)}`
            : '',
          rewardModel
            ? `PRM bce ${rewardModel.report.validationBce.toFixed(3)} base ${rewardModel.report.baseBce.toFixed(3)} corr ${rewardModel.report.correlation.toFixed(2)}`
            : '',
          update ? `pairs ${update.report.pairs ?? 0} kl ${(update.report.kl ?? 0).toFixed(3)}` : '',
          pairTruth
            ? `pair truth ${pairTruth.truth.value.toFixed(3)} (${pairTruth.standardErrors.toFixed(1)} SE) predicted ${pairTruth.predicted.toFixed(3)} sign ${pairTruth.signAccuracy.toFixed(2)}`
            : '',
        ]
          .filter((part) => part !== '')
          .join(' | '),
      );
      if (record.iteration === 1) {
        const all = gains.get(variant) ?? { greedy: [], sample: [] };
        if (greedy?.gain) all.greedy.push(greedy.gain);
        if (sample?.gain) all.sample.push(sample.gain);
        gains.set(variant, all);
      }
    }
  }
}
console.log('\nmean gain of the first iteration over the seeds, percentage points on unseen games');
for (const [variant, { greedy, sample }] of gains) {
  console.log(
    `${variant.padEnd(20)} greedy ${percent(mean(greedy.map(({ value }) => value)))}   T=1 ${percent(mean(sample.map(({ value }) => value)))}   (${greedy.length} seeds)`,
  );
}
if (values.svg) {
  const rows = [...gains].map(([name, { greedy }]) => ({ name, gains: greedy }));
  writeFileSync(
    values.svg,
    drawGains(
      'Gain of the first iteration, greedy, in points',
      `${values.scale}: unseen games, one dot per seed with its paired 95 % interval, bar: mean`,
      rows,
    ),
  );
}
await close();
