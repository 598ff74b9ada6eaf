/** What a campaign came to: a table by kind of hurt and the two distributions. Text only. */
import { table } from '../../cli/table.ts';
import { quantile } from './measure.ts';
import { ALL_KINDS, type Kind } from './plan.ts';
import type { HurtResult, RunResult } from './run.ts';

export interface Campaign {
  /** The command. */
  repeat: string;
  /** Head of the undisturbed run. */
  head: string;
  results: RunResult[];
  /** Hurts that this machine does not permit. */
  skipped: number;
}

/** Aims, in seconds (docs/results.md): of work lost per kill, and of time to be working again after a worker's death; at the 95th percentile. */
export const AIMS = { lostS: 5, againS: 10 };

export interface Spread {
  kind: string;
  lost: number[];
  again: number[];
  failed: number;
  count: number;
}

const isNumber = (value: number | null): value is number => value !== null;

/** One row per kind that was done. */
export function spreads({ results }: Campaign): Spread[] {
  const of = (kind: Kind) =>
    results.flatMap((run) => run.hurts.filter((hurt) => hurt.kind === kind && hurt.struck).map((hurt) => ({ run, hurt })));
  return ALL_KINDS.flatMap((kind) => {
    const done = of(kind);
    if (done.length === 0) return [];
    const numbers = (field: 'lostS' | 'againS') => done.map(({ hurt }) => hurt[field]).filter(isNumber);
    const failed = done.filter(({ run }) => run.problems.length > 0).length;
    return [{ kind, lost: numbers('lostS'), again: numbers('againS'), failed, count: done.length }];
  });
}

const isKill = ({ kind }: HurtResult) => kind.startsWith('kill-');

/** Over all kills: seconds of compute repeated, seconds until work went on. */
export function overKills({ results }: Campaign): { lost: number[]; again: number[]; againWorker: number[] } {
  const kills = results.flatMap(({ hurts }) => hurts).filter((hurt) => hurt.struck && isKill(hurt));
  return {
    lost: kills.map(({ lostS }) => lostS).filter(isNumber),
    again: kills.map(({ againS }) => againS).filter(isNumber),
    againWorker: kills
      .filter(({ kind }) => kind === 'kill-worker')
      .map(({ againS }) => againS)
      .filter(isNumber),
  };
}

export function summary(campaign: Campaign): string[] {
  const { results, skipped } = campaign;
  const rows = spreads(campaign);
  const three = (values: number[]) => [0.5, 0.95, 1].map((q) => seconds(quantile(values, q))).join(' / ');
  const { lost, again, againWorker } = overKills(campaign);
  const sum = (pick: (run: RunResult) => number) => results.reduce((total, run) => total + pick(run), 0);
  const bad = results.filter(({ problems }) => problems.length > 0).length;
  const found = (what: RegExp) => results.flatMap(({ problems }) => problems).filter((problem) => what.test(problem)).length;
  const left = found(/^left behind/);
  const redone = found(/after its result was stored$|was written twice$|though a checkpoint held/);
  return [
    ...table(
      [
        { title: 'hurt', cell: ({ kind }: Spread) => kind },
        { title: 'times', cell: ({ count }) => String(count), align: 'right' },
        { title: 'in failed runs', cell: ({ failed }) => String(failed), align: 'right' },
        { title: 'work lost, s: p50 / p95 / max', cell: (row) => three(row.lost), align: 'right' },
        { title: 'working again after, s', cell: (row) => three(row.again), align: 'right' },
      ],
      rows,
    ),
    '',
    `${results.length} runs, ${sum(({ hurts }) => hurts.filter(({ struck }) => struck).length)} hurts, ${skipped} skipped; ${results.length - bad} runs as undisturbed (head ${campaign.head.slice(0, 12)}), ${bad} failed, ${left} processes left behind`,
    `${sum((run) => run.counts.calls)} stage calls in ${sum((run) => run.counts.attempts)} attempts, ${sum((run) => run.counts.stepsAgain)} steps or episodes counted again, ${sum((run) => run.counts.twinned)} calls done by two at once; ${redone} finished steps or results done again`,
    `work lost per kill, p50 / p95 / max: ${three(lost)} s over ${lost.length} kills (aim: ${AIMS.lostS} s at p95)`,
    `working again, p50 / p95 / max: ${three(again)} s over all kills; ${three(againWorker)} s over ${againWorker.length} deaths of a worker (aim: ${AIMS.againS} s)`,
  ];
}

function seconds(value: number | null): string {
  return value === null ? '–' : value.toFixed(value < 10 ? 2 : 1);
}
