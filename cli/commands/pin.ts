/** `ratchet pin <run>` and `ratchet unpin <run>`: nothing of a pinned run is ever given up. One file, because they differ in a word. */
import { Command } from 'commander';
import { pin, unpin, requireBulk } from '../../artifacts/retention.ts';
import { operatorName } from '../options.ts';
import { print, printJson } from '../output.ts';
import { requireRun } from '../runs.ts';
import { withSession } from '../session.ts';

export function pinCommands(): Command[] {
  const pinning = command('pin', 'keep everything of a run: `ratchet gc` will not give up its bulk').option('--reason <text>', 'why');
  const unpinning = command('unpin', 'let `ratchet gc` give up the bulk of a run when it is asked to');
  return [
    pinning.action(async (runId: string, { reason, json }: { reason?: string; json?: boolean }) => {
      const made = await withSession({ borrow: true }, async ({ store }) => {
        await requireRun(store, runId);
        await requireBulk(store, runId);
        return pin(store, runId, operatorName(), reason ?? null);
      });
      if (json) printJson({ run: runId, pinned: made });
      else print(`run ${runId} is pinned (by ${made.by}, ${made.at}): nothing of it is given up`);
    }),
    unpinning.action(async (runId: string, { json }: { json?: boolean }) => {
      await withSession({ borrow: true }, async ({ store }) => {
        await requireRun(store, runId);
        await unpin(store, runId);
      });
      if (json) printJson({ run: runId, pinned: null });
      else print(`run ${runId} is not pinned`);
    }),
  ];
}

function command(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .argument('<run>', 'run id, see `ratchet ls`')
    .option('--json', 'what was done, as JSON');
}
