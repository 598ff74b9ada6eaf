/**
 * The history of a run as figures and as tables: per iteration the success on the reported panels, the gain over the policy before, turns, the fit of
 * the reward model, the check of its pairs, and what was decided. From the records alone.
 */
import type { Evaluated } from '../activities/stages/measuring.ts';
import type { Estimate } from '../core/nouns.ts';
import { decimals, NONE, percent, percentEstimate, plural, points, pointsEstimate, short, count } from './format.ts';
import { isIterationBody, type Decision, type RunRecords } from './records.ts';
import { table, type Column } from './table.ts';

/** One evaluation of a report. `gain` is over the policy before, paired by task, null where there was none. */
export interface Measured {
  panel: string;
  strategy: string;
  success: Estimate;
  gain: Estimate | null;
  turnsOnSuccess: Estimate;
}

/** One closed iteration in figures. Shares and probabilities in [0, 1], cross-entropies in nats. */
export interface HistoryRow {
  iteration: number;
  policy: string;
  measured: Measured[];
  /** Null for the warm start. */
  decision: Decision | null;
  rewardModel: { validationBce: number; baseBce: number; correlation: number; episodes: number } | null;
  update: { pairs: number | null; meanMargin: number | null; kl: number | null; loss: number; steps: number } | null;
  pairTruth: { pairs: number; predicted: number; truth: Estimate; standardErrors: number; signAccuracy: number; decided: number } | null;
  /** Digest of the record that closes the iteration. */
  head: string;
}

export function historyRows(records: RunRecords): HistoryRow[] {
  const { panels, strategies } = records.genesis.recipe.report;
  // The keys of a record are in the order of its canonical form; people expect the order of the recipe.
  const names = panels.flatMap((panel) => strategies.map(({ kind }) => `${panel} ${kind}`));
  return records.iterations.map(({ iteration, head, body }) => {
    const row: HistoryRow = {
      iteration,
      policy: body.policy.sha256,
      measured: names.flatMap((name) => (body.reports[name] ? [measured(name, body.reports[name])] : [])),
      decision: null,
      rewardModel: null,
      update: null,
      pairTruth: null,
      head: head.sha256,
    };
    if (!isIterationBody(body)) return row;
    const { report } = body.rewardModel;
    const update = body.update?.report;
    const dpo = update && 'pairs' in update ? update : null;
    return {
      ...row,
      decision: body.decision,
      rewardModel: {
        validationBce: report.validationBce,
        baseBce: report.baseBce,
        correlation: report.correlation,
        episodes: report.trainEpisodes + report.validationEpisodes,
      },
      update: update
        ? {
            pairs: dpo?.pairs ?? null,
            meanMargin: dpo?.meanMargin ?? null,
            kl: dpo?.kl ?? null,
            loss: update.loss,
            steps: update.steps,
          }
        : null,
      pairTruth: body.pairTruth,
    };
  });
}

function measured(name: string, evaluated: Evaluated): Measured {
  const { strategy, success, gain, turnsOnSuccess } = evaluated;
  return { panel: name.split(' ')[0] as string, strategy, success, gain, turnsOnSuccess };
}

/** The panel that stands for the run in short tables: unseen where it was reported. */
export function mainPanel(rows: readonly HistoryRow[]): string {
  const panels = panelsOf(rows);
  return panels.includes('unseen') ? 'unseen' : (panels[0] ?? 'unseen');
}

function panelsOf(rows: readonly HistoryRow[]): string[] {
  return [...new Set(rows.flatMap((row) => row.measured.map(({ panel }) => panel)))];
}

/** The strategies reported on a panel, in the order of the recipe. */
function strategiesOf(rows: readonly HistoryRow[], panel: string): string[] {
  return [...new Set(rows.flatMap((row) => row.measured.filter((each) => each.panel === panel).map(({ strategy }) => strategy)))];
}

const ITERATION: Column<HistoryRow> = { title: 'iteration', cell: ({ iteration }) => String(iteration), align: 'right' };
const POLICY: Column<HistoryRow> = { title: 'policy', cell: ({ policy }) => short(policy), optional: true };

/** Success by iteration and strategy on one panel; with `gains` also the gain over the policy before, and the turns of the first strategy's successes. */
export function successTable(rows: readonly HistoryRow[], panel: string, options: { gains: boolean; width?: number }): string[] {
  const of = (row: HistoryRow, strategy: string) => row.measured.find((each) => each.panel === panel && each.strategy === strategy);
  const strategies = strategiesOf(rows, panel);
  const [first] = strategies;
  const columns: Column<HistoryRow>[] = [ITERATION, POLICY];
  for (const strategy of strategies) {
    columns.push({ title: strategy, cell: (row) => percentEstimate(of(row, strategy)?.success) });
    const gained = rows.some((row) => of(row, strategy)?.gain);
    // A search over a policy is compared with the policy alone, in the same row; its own gain is in the JSON.
    if (options.gains && gained && !strategy.startsWith('best-of'))
      columns.push({ title: 'gain', cell: (row) => pointsEstimate(of(row, strategy)?.gain) });
  }
  if (options.gains && first) columns.push({ title: 'turns', cell: (row) => turns(of(row, first)), align: 'right' });
  return table(columns, rows, options.width);
}

function turns(one: Measured | undefined): string {
  return one && one.turnsOnSuccess.n > 0 ? decimals(one.turnsOnSuccess.value, 1) : NONE;
}

const LEARNING: Column<HistoryRow>[] = [
  ITERATION,
  { title: 'PRM BCE', cell: ({ rewardModel }) => decimals(rewardModel?.validationBce, 3), align: 'right' },
  { title: 'base', cell: ({ rewardModel }) => decimals(rewardModel?.baseBce, 3), align: 'right' },
  { title: 'corr.', cell: ({ rewardModel }) => decimals(rewardModel?.correlation, 2), align: 'right' },
  { title: 'pairs', cell: ({ update }) => (update?.pairs == null ? NONE : count(update.pairs)), align: 'right' },
  {
    title: 'pair truth (predicted)',
    cell: ({ pairTruth }) =>
      pairTruth && pairTruth.pairs > 0
        ? `${pointsEstimate(pairTruth.truth)} (${points(pairTruth.predicted)}), ${decimals(pairTruth.standardErrors, 1)} s.e.`
        : NONE,
  },
  {
    title: 'decision (validation)',
    cell: ({ decision, update }) => (update ? decisionText(decision) : 'no update: the PRM predicts too little'),
  },
  { title: 'head', cell: ({ head }) => short(head), optional: true },
];

function decisionText(decision: Decision | null): string {
  if (!decision) return NONE;
  const kept = decision.verdict === 'unanswered' ? 'stopped unanswered, kept the old' : 'kept the old';
  const verdict = decision.promoted ? `promoted, step ${decision.step}` : kept;
  return `${verdict}: ${percent(decision.incumbentScore)} -> ${percent(decision.score)}`;
}

/** Everything, for `history` and for the end of `start`. `width` in characters. */
export function historyText(runId: string, records: RunRecords, width?: number): string[] {
  const rows = historyRows(records);
  const { recipe, panels } = records.genesis;
  const lines = [
    `${runId}   ${recipe.method}`,
    `recipe ${recipe.name}, scale ${recipe.scale}, seed ${recipe.seed}; ${closed(rows, recipe.iterations)}; head ${short(records.head.sha256)}`,
  ];
  const limit = width === undefined ? {} : { width };
  const ordered = [...new Set([mainPanel(rows), ...panelsOf(rows)])];
  for (const panel of rows.length > 0 ? ordered : []) {
    const games = panels[panel as keyof typeof panels]?.tasks;
    lines.push(
      '',
      `Success on ${games === undefined ? '' : `${count(games)} `}${panel} games, % with 95 % interval (gain: points over the policy before, paired)`,
    );
    lines.push(...successTable(rows, panel, { gains: true, ...limit }));
  }
  if (rows.some(({ rewardModel }) => rewardModel)) {
    lines.push('', 'Reward model on held-out games (BCE in nats), its pairs (true difference in return, points), the gate');
    lines.push(
      ...table(
        LEARNING,
        rows.filter(({ rewardModel }) => rewardModel),
        width,
      ),
    );
  }
  return lines;
}

function closed(rows: readonly HistoryRow[], iterations: number): string {
  if (rows.length === 0) return 'nothing finished yet';
  const last = rows.at(-1)?.iteration ?? 0;
  return last === 0 ? `warm start done, ${plural(iterations, 'iteration')} to come` : `iteration ${last} of ${iterations} done`;
}
