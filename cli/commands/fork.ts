/** `ratchet fork <run> --at-iteration k`: a new run that goes on from a closed iteration of another, with another recipe if wanted. No closed iteration is computed again. */
import { Command } from 'commander';
import { requireBulk } from '../../artifacts/retention.ts';
import { createRun } from '../../artifacts/run-log.ts';
import { digestJson } from '../../core/digest.ts';
import { badInput, RatchetError } from '../../core/errors.ts';
import { amendRecipe } from '../../recipes/amend.ts';
import { parseOverride } from '../../recipes/load.ts';
import { begin, forkedFrom, freeRunId, probe } from '../launch.ts';
import { idOption, setOption, wholeNumber } from '../options.ts';
import { print, printJson } from '../output.ts';
import { recipeAfter } from '../records.ts';
import { withSession } from '../session.ts';

export function forkCommand(): Command {
  return new Command('fork')
    .description('a new run that goes on from a closed iteration of another')
    .argument('<run>', 'run id of the parent, see `ratchet ls`')
    .requiredOption('--at-iteration <k>', 'the closed iteration to go on from; 0 is the warm start')
    .addOption(setOption())
    .addOption(idOption())
    .option('--json', 'the new run, as JSON')
    .action(async (parentId: string, options: { atIteration: string; set: string[]; id?: string; json?: boolean }) => {
      const iteration = wholeNumber('--at-iteration', options.atIteration) as number;
      const forked = await withSession({ borrow: false }, async (session) => {
        const { store } = session;
        const parent = { runId: parentId, iteration };
        const { records, origin } = await forkedFrom(store, parent);
        const recipe = amendRecipe(recipeAfter(records, iteration).recipe, options.set.map(parseOverride));
        if (recipe.iterations <= iteration)
          throw badInput(
            'iterations',
            recipe.iterations,
            `more than ${iteration}, or the fork has nothing to do; --set iterations=${iteration + 1}`,
          );
        await probe(session);
        const runId = options.id ?? (await freeRunId(store, recipe));
        const { created } = await createRun(store, runId, recipe, { parent });
        // From here on `gc` sees the fork; what it was told to give up before is seen here.
        if (created) await requireBulk(store, parentId);
        if (!created) throw new RatchetError('Conflict', `run id: ${JSON.stringify(runId)} exists; a fork needs a new one`);
        return begin(session, { runId, recipe, recipeSha256: digestJson(recipe), ...origin }, 'started');
      });
      if (options.json) printJson({ run: forked.runId, parent: parentId, atIteration: iteration });
      else print(`run ${forked.runId} goes on from iteration ${iteration} of ${parentId}`, `npx ratchet watch ${forked.runId}`);
    });
}
