/**
 * `ratchet gc`: what the store holds that nothing needs any more, and its removal with `--apply`. Without `--drop` or `--older-than` every run keeps all
 * that it refers to; with them runs give up their bulk (episodes, labels, weights), never their history, and never where they are pinned or under way.
 */
import { Command, Option } from 'commander';
import { signingKey } from '../../artifacts/attestation.ts';
import { readEnding } from '../../artifacts/ending.ts';
import { collectGarbage, DEFAULT_GRACE_MS, lastWrittenAt, type GcReport, type Why } from '../../artifacts/gc.ts';
import { readGivenUp, readPin } from '../../artifacts/retention.ts';
import { listRuns } from '../../artifacts/run-log.ts';
import { LEAST_GRACE_MS } from '../../artifacts/sweep.ts';
import { badInput } from '../../core/errors.ts';
import { count, plural, size } from '../format.ts';
import { executionState } from '../launch.ts';
import { operatorName, wholeNumber } from '../options.ts';
import { columns, inPlace, print, printJson } from '../output.ts';
import { isFinished } from '../records.ts';
import { recordsOf, requireRun } from '../runs.ts';
import { signingKeyFile, withSession, type Session } from '../session.ts';
import { table } from '../table.ts';

const DAY_MS = 24 * 3600_000;

const WHY: Record<Why, string> = {
  attempt: 'stored by attempts that were killed or failed before they committed',
  checkpoint: 'checkpoints of stages that are over, or of killed attempts',
  'given up': 'episodes, labels and weights of runs that give them up',
  probe: 'checks at launch that were killed',
};

interface Options {
  drop: string[];
  olderThan?: string;
  grace: string;
  apply?: boolean;
  json?: boolean;
}

export function gcCommand(): Command {
  return new Command('gc')
    .description('what the store holds that nothing needs; removes it with --apply')
    .addOption(
      new Option('--drop <run>', 'also episodes, labels and weights of this run; its history stays. May be given again')
        .default([] as string[], 'none')
        .argParser((run, earlier: string[]) => [...earlier, run]),
    )
    .option('--older-than <days>', 'the same for every finished run that is not pinned and ended so long ago')
    .option('--grace <days>', 'nothing younger is removed: it may be in flight', String(DEFAULT_GRACE_MS / DAY_MS))
    .option('--apply', 'remove it; without this nothing is changed')
    .option('--json', 'every object, as JSON')
    .action(async ({ drop, olderThan, grace, apply, json }: Options) => {
      const graceMs = (wholeNumber('--grace', grace) as number) * DAY_MS;
      if (graceMs < LEAST_GRACE_MS) throw badInput('--grace', grace, `a whole number of at least ${LEAST_GRACE_MS / DAY_MS}`);
      const age = wholeNumber('--older-than', olderThan);
      const report = await withSession({ borrow: true }, async (session) => {
        // At once, to say so before the store is looked through.
        for (const run of drop) await checkDrop(session, run);
        const aged = age === undefined ? [] : await finishedBefore(session, Date.now() - Math.max(age * DAY_MS, graceMs));
        const all = [...new Set([...drop, ...aged])];
        const show = inPlace();
        const made = await collectGarbage(session.store, {
          graceMs,
          drop: all,
          mayDrop: (run) => checkDrop(session, run),
          apply: apply ? { by: operatorName(), key: signingKey(signingKeyFile()) } : null,
          onProgress: ({ what, done, total }) => show(`${count(done)}/${count(total)} ${what}`, false),
        });
        show('', true);
        return made;
      });
      if (json) printJson(report);
      else print(...text(report, Number(grace)));
    });
}

/**
 * Throws BadInput for a run that is unknown, pinned or under way, or of which nobody knows that it has ended; Unavailable where Temporal does not answer. It
 * is asked about finished runs too: more iterations may have been asked for since. One without a record has nothing to lose; the store's own check is its age.
 */
async function checkDrop(session: Session, run: string): Promise<void> {
  const { store, endpoints } = session;
  await requireRun(store, run);
  if (await readPin(store, run)) throw badInput('--drop', run, `a run that is not pinned; \`npx ratchet unpin ${run}\` first`);
  const state = await executionState(await session.temporal(), run);
  if (isUnderWay(state))
    throw badInput('--drop', run, `a run that has ended; \`npx ratchet cancel ${run}\` or \`npx ratchet stop ${run}\` first`);
  if (state !== null) return;
  const records = await recordsOf(store, run);
  if (records === null || isFinished(records) || (await readEnding(store, run))) return;
  throw badInput(
    '--drop',
    run,
    `a run that is known to have ended; it has iterations to come, and Temporal at ${endpoints.temporal.address} does not know it: another one may be at work on it. Stop it there; or, if there is none, go on with it here (\`npx ratchet run\` with \`--id ${run}\`) and \`npx ratchet cancel ${run}\``,
  );
}

function isUnderWay(state: string | null): boolean {
  return state === 'RUNNING' || state === 'PAUSED';
}

/** Runs that wrote nothing since, are finished, not under way again, not pinned, and still have what they could give up. */
async function finishedBefore({ store, temporal }: Session, beforeMs: number): Promise<string[]> {
  const found: string[] = [];
  for (const run of await listRuns(store)) {
    const records = await recordsOf(store, run);
    if (!records || !isFinished(records) || (await readPin(store, run)) || (await readGivenUp(store, run))) continue;
    if ((await lastWrittenAt(store, run)) < beforeMs && !isUnderWay(await executionState(await temporal(), run))) found.push(run);
  }
  return found;
}

function text({ runs, unbegun, kept, young, removed, applied }: GcReport, graceDays: number): string[] {
  const pinned = runs.filter((run) => run.pinned).length;
  const lines = [
    `${plural(runs.length, 'run')}${pinned > 0 ? ` (${pinned} pinned)` : ''}; kept: ${plural(kept.objects, 'object')}, ${size(kept.bytes)}`,
  ];
  if (young.objects > 0)
    lines.push(`not referred to, but younger than ${plural(graceDays, 'day')}: ${plural(young.objects, 'object')}, ${size(young.bytes)}`);
  for (const run of unbegun)
    lines.push(`run ${run} was launched and has no record: what was stored since, and what runs gave up, is kept. Start it, or --drop it`);
  const rows = (Object.keys(WHY) as Why[])
    .map((why) => ({ why, of: removed.filter((each) => each.why === why) }))
    .filter(({ of }) => of.length > 0);
  if (rows.length === 0) return [...lines, applied ? 'nothing to remove' : 'nothing could be removed'];
  const given = runs.filter((run) => run.givenUp).map(({ run }) => run);
  const shown = table(
    [
      { title: applied ? 'removed' : 'could be removed', cell: ({ why }) => WHY[why] },
      { title: 'objects', cell: ({ of }) => count(of.length), align: 'right' },
      { title: 'size', cell: ({ of }) => size(of.reduce((sum, { bytes }) => sum + bytes, 0)), align: 'right' },
    ],
    rows,
    columns(),
  );
  lines.push('', ...shown, '');
  if (given.length > 0) lines.push(`without their bulk, verified as before: ${given.join(', ')}`);
  if (!applied) lines.push('nothing was changed; --apply removes it, --json names every object');
  return lines;
}
