/** `ratchet ls`: every run in the store, with what its records say and, where Temporal answers, whether it goes on. */
import { Command } from 'commander';
import { readEnding } from '../../artifacts/ending.ts';
import { listRuns, readRun } from '../../artifacts/run-log.ts';
import { RatchetError } from '../../core/errors.ts';
import type { Estimate } from '../../core/nouns.ts';
import { QUEUE_KIND } from '../../workers/pollers.ts';
import { NONE, percentEstimate } from '../format.ts';
import { historyRows, mainPanel } from '../history.ts';
import { runningHost } from '../host.ts';
import { executionState, loopQueue } from '../launch.ts';
import { isServed } from '../live/served.ts';
import { columns, note, print, printJson } from '../output.ts';
import { recipeAfter } from '../records.ts';
import { recipeOf, recordsOf } from '../runs.ts';
import { withSession, type Session } from '../session.ts';
import { table, type Column } from '../table.ts';

interface RunRow {
  run: string;
  recipe: string;
  scale: string;
  seed: number;
  /** Closed iterations; null before the warm start is over. */
  iteration: number | null;
  iterations: number;
  /**
   * `running`, `finished`, `stopped`, `failed`, ...; `interrupted` where Temporal would go on with the run and no worker is up to do it; `unknown` where
   * neither Temporal nor the store can say.
   */
  state: string;
  /** Success of the newest policy on the main panel, under its first strategy. */
  success: Estimate | null;
  head: string | null;
}

/** Runs looked up at a time: each costs a few small reads. */
const AT_ONCE = 8;
const INTERRUPTED = 'interrupted';

const COLUMNS: Column<RunRow>[] = [
  { title: 'run', cell: ({ run }) => run },
  { title: 'state', cell: ({ state }) => state },
  { title: 'iteration', cell: ({ iteration, iterations }) => `${iteration ?? NONE} of ${iterations}`, align: 'right' },
  { title: 'success', cell: ({ success }) => percentEstimate(success) },
  { title: 'head', cell: ({ head }) => head?.slice(0, 12) ?? NONE },
];

export function lsCommand(): Command {
  return new Command('ls')
    .description('list the runs')
    .option('--json', 'as JSON')
    .action(async ({ json }: { json?: boolean }) => {
      await withSession({ borrow: true }, async (session) => {
        const rows = await runRows(session);
        if (json) printJson(rows);
        else if (rows.length === 0) print('No runs yet. `npm start` makes one.');
        else print(...table(COLUMNS, rows, columns()), ...hints(rows));
      });
    });
}

function hints(rows: readonly RunRow[]): string[] {
  const interrupted = rows.some(({ state }) => state === INTERRUPTED);
  return interrupted ? ['', `${INTERRUPTED}: no worker is up; \`npm start\` or \`npx ratchet up\` goes on`] : [];
}

async function runRows(session: Session): Promise<RunRow[]> {
  const ids = await listRuns(session.store);
  const states = await statesOf(session);
  const rows: (RunRow | null)[] = [];
  for (let at = 0; at < ids.length; at += AT_ONCE)
    rows.push(...(await Promise.all(ids.slice(at, at + AT_ONCE).map((id) => rowOf(session, id, states)))));
  return rows.filter((row) => row !== null);
}

async function rowOf({ store }: Session, run: string, stateOf: (run: string) => Promise<string | null>): Promise<RunRow | null> {
  const manifest = await readRun(store, run);
  // A folder without a manifest is no run.
  if (!manifest) return null;
  const [recipe, records, state] = await Promise.all([recipeOf(store, manifest), recordsOf(store, run), stateOf(run)]);
  const rows = records ? historyRows(records) : [];
  const last = rows.at(-1);
  const panel = mainPanel(rows);
  // As amended: an operator may have asked for more, or fewer.
  const { iterations } = records ? recipeAfter(records).recipe : recipe;
  const finished = last !== undefined && last.iteration >= iterations;
  return {
    run,
    recipe: recipe.name,
    scale: recipe.scale,
    seed: recipe.seed,
    iteration: last?.iteration ?? null,
    iterations,
    state: finished ? 'finished' : state === null ? ((await readEnding(store, run))?.state ?? 'unknown') : stateText(state),
    success: last?.measured.find((each) => each.panel === panel)?.success ?? null,
    head: records?.head.sha256 ?? null,
  };
}

function stateText(state: string): string {
  // Completed with iterations to come: somebody asked it to stop.
  return state === 'COMPLETED' ? 'stopped' : state.toLowerCase().replaceAll('_', ' ');
}

/**
 * How to ask Temporal for the state of a run; once it does not answer, nobody asks again and every state is unknown. Temporal calls a run running for as
 * long as it has not ended: whether anybody works on it is known from the workers, which is asked once for all runs.
 */
async function statesOf(session: Session): Promise<(run: string) => Promise<string | null>> {
  try {
    const client = await session.temporal();
    const attended =
      session.borrowed === null &&
      ((await runningHost(session.home)) !== null || (await isServed(client, loopQueue(), QUEUE_KIND.workflow)));
    return async (run) => {
      const state = await executionState(client, run);
      return state === 'RUNNING' && !attended ? INTERRUPTED : state;
    };
  } catch (error) {
    if (!(error instanceof RatchetError) || error.type !== 'Unavailable') throw error;
    note(`ratchet: ${error.message}; shown is what the store knows`);
    return async () => null;
  }
}
