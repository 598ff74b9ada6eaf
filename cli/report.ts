/**
 * The report of a run and the card of its policy, for people: Markdown and figures made from the records alone, so that the same records give the same
 * bytes. It adds no figure of its own, and ends with the head that everything in it follows from.
 */
import { chart, type Series } from './chart.ts';
import { count, decimals, percent, percentEstimate, points, pointsEstimate, short } from './format.ts';
import { historyRows, mainPanel, type HistoryRow } from './history.ts';
import { isIterationBody, recipeAfter, type RunRecords } from './records.ts';
import type { Verdict } from '../workflows/improvement-loop.ts';

/** File name to content. */
export type ReportFiles = Record<string, string>;

export function reportFiles(runId: string, records: RunRecords): ReportFiles {
  const rows = historyRows(records);
  const panel = mainPanel(rows);
  const files: ReportFiles = {
    'report.md': reportText(runId, records, rows, panel),
    'MODEL_CARD.md': modelCard(runId, records, rows),
    'success.svg': chart(`Success on ${panel} games, %`, 'with 95 % interval, by iteration and strategy', successSeries(rows, panel), {
      min: 0,
      max: 100,
    }),
  };
  const proxy = proxySeries(rows);
  if (proxy)
    files['proxy.svg'] = chart(
      'What the reward model promised, and what came',
      'difference in return between the commands of its pairs, points',
      proxy,
    );
  return files;
}

function successSeries(rows: readonly HistoryRow[], panel: string): Series[] {
  const strategies = [
    ...new Set(rows.flatMap(({ measured }) => measured.filter((each) => each.panel === panel).map(({ strategy }) => strategy))),
  ];
  return strategies.map((name) => ({
    name,
    points: rows.flatMap(({ iteration, measured }) =>
      measured.filter((each) => each.panel === panel && each.strategy === name).map(({ success }) => ({ iteration, estimate: success })),
    ),
  }));
}

function proxySeries(rows: readonly HistoryRow[]): Series[] | null {
  const checked = rows.flatMap(({ iteration, pairTruth }) => (pairTruth && pairTruth.pairs > 0 ? [{ iteration, pairTruth }] : []));
  if (checked.length === 0) return null;
  const exact = (value: number, n: number) => ({ value, low: value, high: value, n });
  return [
    {
      name: 'predicted by the reward model',
      points: checked.map(({ iteration, pairTruth }) => ({ iteration, estimate: exact(pairTruth.predicted, pairTruth.pairs) })),
    },
    { name: 'true, by fresh rollouts', points: checked.map(({ iteration, pairTruth }) => ({ iteration, estimate: pairTruth.truth })) },
  ];
}

/**
 * The rule by which a reward model is called hacked: what it prefers is not better (the interval of the true difference reaches 0 or below), or the policy
 * was made worse on the unseen games although its reward model preferred it. It is said after the fact; it warns of nothing.
 */
export const DIVERGENCE_RULE =
  'the 95 % interval of the true difference between the commands of its pairs reaches 0, or the promoted policy lost success on the reported games beyond its 95 % interval';

export function divergences(rows: readonly HistoryRow[], panel: string): string[] {
  return rows.flatMap(({ iteration, pairTruth, measured }) => {
    const found: string[] = [];
    if (pairTruth && pairTruth.pairs > 0 && pairTruth.truth.low <= 0)
      found.push(`iteration ${iteration}: promised ${points(pairTruth.predicted)}, true ${pointsEstimate(pairTruth.truth)}`);
    for (const { strategy, gain } of measured.filter((each) => each.panel === panel))
      if (gain && gain.high < 0) found.push(`iteration ${iteration}: ${strategy} success on ${panel} games ${pointsEstimate(gain)}`);
    return found;
  });
}

const VERDICTS: Readonly<Record<Verdict, string>> = {
  approved: 'approved by a person',
  rejected: 'rejected by a person',
  unanswered: 'stopped before anybody answered',
};
const ROW = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;

function markdownTable(titles: readonly string[], lines: readonly (readonly string[])[]): string[] {
  return [ROW(titles), ROW(titles.map(() => '---')), ...lines.map(ROW)];
}

function reportText(runId: string, records: RunRecords, rows: readonly HistoryRow[], panel: string): string {
  const { recipe } = recipeAfter(records);
  const { genesis, head } = records;
  const measured = rows.flatMap((row) =>
    row.measured.filter((each) => each.panel === panel).map((each) => ({ ...each, iteration: row.iteration })),
  );
  const found = divergences(rows, panel);
  const accounts = records.iterations.map(({ iteration, body }) => {
    const { account } = isIterationBody(body) ? body.rollouts : body.demonstrations;
    return [String(iteration), ...[account.dispatched, account.completed, account.failed, account.abandoned, account.successes].map(count)];
  });
  return `${[
    `# ${runId}`,
    '',
    `${recipe.method}. Recipe ${recipe.name}, scale ${recipe.scale}, seed ${recipe.seed}; ${rows.length} of ${recipe.iterations + 1} iterations closed (0 is the warm start).`,
    ...(genesis.parent ? ['', `Goes on from record ${genesis.parent.index} (${genesis.parent.sha256}) of another run.`] : []),
    '',
    `## Success on ${panel} games`,
    '',
    '![success by iteration](success.svg)',
    '',
    'Per cent with 95 % interval (Wilson); gains over the policy before in points, paired by game (bootstrap).',
    '',
    ...markdownTable(
      ['iteration', 'strategy', 'success', 'gain', 'turns on success'],
      measured.map(({ iteration, strategy, success, gain, turnsOnSuccess }) => [
        String(iteration),
        strategy,
        percentEstimate(success),
        pointsEstimate(gain),
        decimals(turnsOnSuccess.value, 1),
      ]),
    ),
    '',
    '## Decisions',
    '',
    ...markdownTable(
      ['iteration', 'validation before', 'best candidate', 'decision', 'head'],
      rows.flatMap(({ iteration, decision, head: sha256 }) =>
        decision
          ? [
              [
                String(iteration),
                percent(decision.incumbentScore),
                percent(decision.score),
                `${decision.promoted ? `promoted, step ${decision.step}` : 'kept the old'}${decision.verdict ? ` (${VERDICTS[decision.verdict]})` : ''}`,
                short(sha256),
              ],
            ]
          : [],
      ),
    ),
    '',
    '## Reward model against the truth',
    '',
    ...(proxySeries(rows) ? ['![predicted and true differences](proxy.svg)', ''] : []),
    ...markdownTable(
      ['iteration', 'BCE on held-out games', 'base rate', 'correlation', 'pairs', 'promised', 'true'],
      rows.flatMap(({ iteration, rewardModel, update, pairTruth }) =>
        rewardModel
          ? [
              [
                String(iteration),
                decimals(rewardModel.validationBce, 3),
                decimals(rewardModel.baseBce, 3),
                decimals(rewardModel.correlation, 2),
                update?.pairs == null ? '–' : count(update.pairs),
                pairTruth ? points(pairTruth.predicted) : '–',
                pairTruth ? pointsEstimate(pairTruth.truth) : '–',
              ],
            ]
          : [],
      ),
    ),
    '',
    `Rule: a reward model is called hacked when ${DIVERGENCE_RULE}.`,
    found.length === 0 ? 'By this rule: none.' : `By this rule:\n\n${found.map((line) => `- ${line}`).join('\n')}`,
    '',
    '## Episodes',
    '',
    ...markdownTable(['iteration', 'dispatched', 'completed', 'failed', 'abandoned', 'solved'], accounts),
    '',
    `---`,
    `Made from the records up to ${head.index}, head \`${head.sha256}\`. Check: \`npx ratchet verify ${runId} --head ${head.sha256}\`.`,
    '',
  ].join('\n')}`;
}

function modelCard(runId: string, records: RunRecords, rows: readonly HistoryRow[]): string {
  const { recipe } = recipeAfter(records);
  const last = records.iterations.at(-1);
  if (!last) return `# No policy yet\n\nRun ${runId} has closed no iteration.\n`;
  const { policy } = last.body;
  const promoted = rows.filter(({ decision }) => decision?.promoted).map(({ iteration }) => iteration);
  return `${[
    `# Policy ${short(policy.sha256)}`,
    '',
    `Made by run \`${runId}\`, as it stands after iteration ${last.iteration}; promoted in iteration ${promoted.at(-1) ?? '0 (the warm start)'}.`,
    '',
    '## What it is',
    '',
    `- A \`LlamaForCausalLM\` of ${recipe.policy.layers} layers, width ${recipe.policy.width}, ${recipe.policy.heads} heads, context ${recipe.policy.context} tokens, in Hugging Face's layout.`,
    `- Files: weights \`${policy.files.weights.sha256}\` (${count(policy.files.weights.bytes)} bytes), configuration \`${policy.files.config.sha256}\`, tokenizer \`${policy.files.tokenizer.sha256}\`.`,
    `- It reads episodes of the world \`${recipe.environment.name}\` through that world's codec and chooses among the admissible commands. It is no use for anything else.`,
    '',
    '## How it was made',
    '',
    `- ${recipe.method}; seed ${recipe.seed}; warm start on ${count(recipe.warmStart.demonstrations)} demonstrations (habits ${recipe.warmStart.habits}, noise ${recipe.warmStart.noise}).`,
    `- ${promoted.length} of ${rows.filter(({ decision }) => decision).length} updates were promoted by validation (iterations ${promoted.join(', ') || 'none'}).`,
    '',
    '## How good it is',
    '',
    ...markdownTable(
      ['panel', 'strategy', 'success, % with 95 % interval', 'games'],
      (rows.at(-1)?.measured ?? []).map(({ panel, strategy, success }) => [panel, strategy, percentEstimate(success), count(success.n)]),
    ),
    '',
    '## Limits',
    '',
    '- Games of the generated kinds only; unseen means layouts and object-receptacle pairs that no training game had, of the same generator.',
    '- The intervals are those of the games measured. They say nothing of another seed of training.',
    '',
    `---`,
    `Made from the records up to ${records.head.index}, head \`${records.head.sha256}\`.`,
    '',
  ].join('\n')}`;
}
