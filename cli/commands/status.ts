/** `ratchet status <run>`: what a run is doing now, how far it is, and what it waits for. */
import { Command } from 'commander';
import { historyRows } from '../history.ts';
import { displayLines } from '../live/display.ts';
import { RunWatcher } from '../live/watcher.ts';
import { MOST_COLUMNS, columns, print, printJson } from '../output.ts';
import { requireRun } from '../runs.ts';
import { withSession } from '../session.ts';

export function statusCommand(): Command {
  return new Command('status')
    .description('what a run is doing now, how far it is, and what it waits for')
    .argument('<run>', 'run id, see `ratchet ls`')
    .option('--json', 'as JSON')
    .action(async (runId: string, { json }: { json?: boolean }) => {
      await withSession({ borrow: true }, async (session) => {
        const { recipeSha256 } = await requireRun(session.store, runId);
        const view = await new RunWatcher(session, runId).look();
        if (!json) return print(...displayLines(view, { columns: columns() ?? MOST_COLUMNS, unicode: true }));
        const { records, ...live } = view;
        printJson({ ...live, recipeSha256, finished: records ? historyRows(records) : [], head: records?.head ?? null });
      });
    });
}
