/** A run at one moment as text: a block of lines for a terminal, or one line for a log. Pure; what is shown is all in the view. */
import { historyRows, mainPanel, successTable } from '../history.ts';
import { bar, clip, count, duration, percent, plural } from '../format.ts';
import type { LiveView } from './view.ts';

const BAR_WIDTH = 28;
/** In a narrow terminal the bars shrink before the counts go. */
const NARROW_COLUMNS = 100;
const NARROW_BAR_WIDTH = 12;
/** Finished iterations shown while the run goes on; `history` shows all. */
const SHOWN_ROWS = 6;

export interface DisplayOptions {
  columns: number;
  /** Block characters for bars, else plain ones. */
  unicode: boolean;
}

/** `iteration 1 of 2 · collect`. */
export function whereText({ iteration, phase, recipe, control, outcome }: LiveView): string {
  if (outcome) return outcomeText(outcome);
  if (iteration === null) return 'starting';
  const at = iteration === 0 ? 'warm start' : `iteration ${iteration} of ${recipe?.iterations ?? '?'}`;
  const steer = control.paused ? ' · paused' : control.stopping ? ' · stopping after this iteration' : '';
  return `${at}${phase === 'warm start' ? '' : ` · ${phase ?? 'starting'}`}${steer}`;
}

export function outcomeText(outcome: NonNullable<LiveView['outcome']>): string {
  switch (outcome.kind) {
    case 'completed':
      return 'finished';
    case 'stopped':
      return 'stopped after an iteration, as asked';
    case 'cancelled':
      return 'cancelled';
    case 'unknown':
      return 'not under way: Temporal does not know this run';
    default:
      return `${outcome.kind}: ${outcome.message}`;
  }
}

/** The block for a terminal. No line is longer than `columns`. */
export function displayLines(view: LiveView, { columns, unicode }: DisplayOptions): string[] {
  const { recipe, elapsedMs, leftMs, work, waiting, records } = view;
  const title = recipe ? `${view.runId}   ${recipe.method} · scale ${recipe.scale} · seed ${recipe.seed}` : view.runId;
  const times = [
    ...(elapsedMs === null ? [] : [duration(elapsedMs)]),
    ...(tellable(leftMs) ? [`this step about ${duration(leftMs)} more`] : []),
  ];
  const lines = [title, `${whereText(view)}${times.length > 0 ? `   ${times.join(', ')}` : ''}`];
  if (work.length > 0 && !view.outcome) {
    const labels = Math.max(...work.map(({ label }) => label.length));
    const counts = Math.max(...work.map((each) => countText(each).length));
    const width = columns < NARROW_COLUMNS ? NARROW_BAR_WIDTH : BAR_WIDTH;
    lines.push('');
    for (const each of work) {
      const share = each.total > 0 ? each.done / each.total : 0;
      const drawn = bar(each.finished ? 1 : share, width, unicode);
      lines.push(`  ${each.label.padEnd(labels)}  ${drawn}  ${countText(each).padStart(counts)}  ${metricsText(each.metrics)}`.trimEnd());
    }
  }
  if (waiting.length > 0) lines.push('', ...waiting.map((reason) => `  waiting: ${reason.split('\n')[0]}`));
  const rows = records ? historyRows(records).slice(-SHOWN_ROWS) : [];
  if (rows.length > 0) {
    const panel = mainPanel(rows);
    lines.push('', `  success on ${panel} games, % with 95 % interval`);
    lines.push(...successTable(rows, panel, { gains: false, width: columns - 2 }).map((line) => `  ${line}`));
  }
  return lines.map((line) => clip(line, columns));
}

/** The same in one line, for a log. Work of several kinds that is counted alike is added up. */
export function displayLine(view: LiveView): string {
  const parts = [whereText(view)];
  const open = view.work.filter(({ finished }) => !finished);
  const [first] = open.length > 0 ? open : view.work.slice(-1);
  if (first && !view.outcome) {
    const alike = view.work.filter(({ unit }) => unit === first.unit);
    const sum = (field: 'done' | 'total') => alike.reduce((total, each) => total + each[field], 0);
    const [label, metrics] = alike.length === 1 ? [`${first.label} `, metricsText(first.metrics)] : ['', ''];
    parts.push(`${label}${countText({ ...first, done: sum('done'), total: sum('total') })}${metrics ? ` (${metrics})` : ''}`);
  }
  if (tellable(view.leftMs)) parts.push(`about ${duration(view.leftMs)} more`);
  for (const reason of view.waiting) parts.push(`waiting: ${reason.split('\n')[0]}`);
  return `[${view.elapsedMs === null ? '0:00' : duration(view.elapsedMs)}] ${parts.join(' · ')}`;
}

/** Less than a second is no time to speak of. */
function tellable(leftMs: number | null): leftMs is number {
  return leftMs !== null && leftMs >= 1_000;
}

function countText({ done, total, unit, finished }: LiveView['work'][number]): string {
  // A single piece of work that has not told how far it is.
  if (unit === '' && total <= 1) return finished ? 'done' : 'under way';
  const shown = `${count(done)}/${total > 0 ? count(total) : '?'}`;
  return unit ? `${shown} ${unit}` : shown;
}

function metricsText(metrics: Record<string, number>): string {
  return Object.entries(metrics)
    .map(([name, value]) => (name === 'success' ? `success ${percent(value)} %` : `${name} ${Number(value.toPrecision(3))}`))
    .join('  ');
}

/** What was measured when an iteration closed, for a log: `iteration 1: greedy 76.0 [72.4, 79.2], ...; promoted`. */
export function closedLine(view: LiveView, iteration: number): string | null {
  const row = view.records ? historyRows(view.records).find((each) => each.iteration === iteration) : undefined;
  if (!row) return null;
  const panel = mainPanel([row]);
  const measured = row.measured
    .filter((each) => each.panel === panel)
    .map(({ strategy, success }) => `${strategy} ${percent(success.value)} % [${percent(success.low)}, ${percent(success.high)}]`);
  const verdict = row.decision === null ? '' : row.decision.promoted ? ' · new policy promoted' : ' · old policy kept';
  const name = iteration === 0 ? 'warm start' : `iteration ${iteration}`;
  return `${name} done: success on ${panel} games: ${measured.join(', ')}${verdict}`;
}

/** Shown when a live display ends before the run does. */
export function laterText(runId: string): string {
  return `The run goes on without this display: npx ratchet watch ${runId}`;
}

export function workersText(n: number): string {
  return n === 0 ? 'no workers on this machine' : plural(n, 'worker');
}
