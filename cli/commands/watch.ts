/** `ratchet watch <run>`: a run as it goes on, until it ends or Ctrl-C, which leaves it alone. */
import { Command } from 'commander';
import { watchToEnd } from '../live/watch.ts';
import { requireRun } from '../runs.ts';
import { withSession } from '../session.ts';

export function watchCommand(): Command {
  return new Command('watch')
    .description('follow a run until it ends (Ctrl-C only ends the watching)')
    .argument('<run>', 'run id, see `ratchet ls`')
    .action(async (runId: string) => {
      await withSession({ borrow: false }, async (session) => {
        await requireRun(session.store, runId);
        await watchToEnd(session, runId);
      });
    });
}
