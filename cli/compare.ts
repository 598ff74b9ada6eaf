/**
 * Two runs held against each other, from their records alone: how their recipes differ, at which record and field they first part, and which of their
 * policies is better on equal panels, paired by task. Evaluations of different panels are never compared.
 */
import { gain, type Evaluation } from '../agents/evaluation.ts';
import type { ArtifactStore } from '../artifacts/store.ts';
import { differences, type Difference } from '../core/difference.ts';
import { badInput } from '../core/errors.ts';
import type { Estimate } from '../core/nouns.ts';
import { percentEstimate, pointsEstimate, short } from './format.ts';
import type { RunRecords } from './records.ts';
import { table } from './table.ts';

export interface ComparedReport {
  /** e.g. `unseen greedy`. */
  report: string;
  a: Estimate;
  b: Estimate;
  /** Success of `b` over `a`, paired by task, with its 95 % bootstrap interval; null where the panels differ. */
  gain: Estimate | null;
  /** Panel digests. */
  panels: { a: string; b: string };
}

export interface Comparison {
  runs: { a: string; b: string };
  /** By field of the resolved recipe. */
  recipe: Difference[];
  /** The first record in which the chains differ, and where in it; null when one continues or equals the other. */
  parting: ({ index: number; kind: string; iteration: number } & Difference) | null;
  equalRecords: number;
  /** Of the last closed iteration of each run. */
  iterations: { a: number; b: number };
  reports: ComparedReport[];
}

/** Throws BadInput when a run has no closed iteration, or when the runs have no report on an equal panel in common. */
export async function compareRuns(
  store: ArtifactStore,
  a: { runId: string; records: RunRecords },
  b: { runId: string; records: RunRecords },
): Promise<Comparison> {
  const lastOf = ({ runId, records }: typeof a) => {
    const last = records.iterations.at(-1);
    if (!last) throw badInput('run', runId, 'a run with a closed iteration; `npx ratchet status` tells how far it is');
    return last;
  };
  const [lastA, lastB] = [lastOf(a), lastOf(b)];
  const reports: ComparedReport[] = [];
  for (const [report, ofA] of Object.entries(lastA.body.reports)) {
    const ofB = lastB.body.reports[report];
    if (!ofB) continue;
    const equal = ofA.panel === ofB.panel;
    const [before, after] = await Promise.all([ofA, ofB].map(({ evaluation }) => store.getJson<Evaluation>(evaluation)));
    reports.push({
      report,
      a: ofA.success,
      b: ofB.success,
      gain: equal ? gain(before as Evaluation, after as Evaluation, ['compare', report]) : null,
      panels: { a: ofA.panel, b: ofB.panel },
    });
  }
  if (reports.length > 0 && reports.every(({ gain: paired }) => paired === null)) {
    const { panels } = reports[0] as ComparedReport;
    throw badInput(
      'runs',
      [a.runId, b.runId],
      `runs measured on equal panels; these have panels ${short(panels.a)} and ${short(panels.b)} (another seed or number of tasks plays other games)`,
    );
  }
  const { parting, equalRecords } = partingOf(a.records, b.records);
  return {
    runs: { a: a.runId, b: b.runId },
    recipe: [...differences(a.records.genesis.recipe, b.records.genesis.recipe, '')],
    parting,
    equalRecords,
    iterations: { a: lastA.iteration, b: lastB.iteration },
    reports,
  };
}

function partingOf(a: RunRecords, b: RunRecords): Pick<Comparison, 'parting' | 'equalRecords'> {
  const length = Math.min(a.entries.length, b.entries.length);
  for (let index = 0; index < length; index++) {
    const [one, other] = [a.entries[index]?.entry, b.entries[index]?.entry];
    if (!one || !other || a.entries[index]?.ref.sha256 === b.entries[index]?.ref.sha256) continue;
    // The bodies: that the links to the record before differ, too, says nothing new.
    const where = differences(one.body, other.body, 'body').next().value ?? differences(one, other, '').next().value;
    if (where) return { parting: { index, kind: one.kind, iteration: one.iteration, ...where }, equalRecords: index };
  }
  return { parting: null, equalRecords: length };
}

export function comparisonText({ runs, recipe, parting, equalRecords, iterations, reports }: Comparison): string[] {
  const lines = [`a  ${runs.a}, iteration ${iterations.a}`, `b  ${runs.b}, iteration ${iterations.b}`, ''];
  if (recipe.length === 0) lines.push('equal recipes');
  else {
    lines.push(
      ...table(
        [
          { title: 'recipe', cell: ({ path }: Difference) => path },
          { title: 'a', cell: (difference: Difference) => difference.a },
          { title: 'b', cell: (difference: Difference) => difference.b },
        ],
        recipe,
      ),
    );
  }
  lines.push('');
  if (parting === null) lines.push(`equal records: all ${equalRecords} that both have`);
  else
    lines.push(
      `equal up to record ${equalRecords - 1}; they part in record ${parting.index} (${parting.kind} of iteration ${parting.iteration}) at ${parting.path}`,
      `  a  ${parting.a}`,
      `  b  ${parting.b}`,
    );
  lines.push(
    '',
    'Success, % with 95 % interval (b over a: points, paired by task)',
    ...table(
      [
        { title: 'report', cell: ({ report }: ComparedReport) => report },
        { title: 'a', cell: (each: ComparedReport) => percentEstimate(each.a) },
        { title: 'b', cell: (each: ComparedReport) => percentEstimate(each.b) },
        { title: 'b over a', cell: (each: ComparedReport) => (each.gain ? pointsEstimate(each.gain) : 'other panel') },
      ],
      reports,
    ),
  );
  return lines;
}
