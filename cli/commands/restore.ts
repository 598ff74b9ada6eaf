/** `ratchet restore <run>`: goes on with a run from the store alone, after its last closed iteration: Temporal's database was lost, or the run was ended. */
import { Command } from 'commander';
import { probe, takeUp } from '../launch.ts';
import { print, printJson } from '../output.ts';
import { recipeOf, requireRun } from '../runs.ts';
import { withSession } from '../session.ts';

const TOLD = {
  started: 'starts',
  resumed: 'goes on from what the store holds',
  attached: 'is under way already',
  finished: 'is finished; there is nothing to restore',
} as const;

export function restoreCommand(): Command {
  return new Command('restore')
    .description('go on with a run from the store alone, after its last closed iteration')
    .argument('<run>', 'run id, see `ratchet ls`')
    .option('--json', 'what was done, as JSON')
    .action(async (runId: string, { json }: { json?: boolean }) => {
      const { how } = await withSession({ borrow: false }, async (session) => {
        const manifest = await requireRun(session.store, runId);
        await probe(session);
        return takeUp(session, runId, await recipeOf(session.store, manifest), null);
      });
      if (json) printJson({ run: runId, how });
      else print(`run ${runId} ${TOLD[how]}`, `npx ratchet watch ${runId}`);
    });
}
