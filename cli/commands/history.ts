/** `ratchet history <run>`: what every iteration reached, from the records in the store. */
import { Command } from 'commander';
import { historyRows, historyText } from '../history.ts';
import { columns, print, printJson } from '../output.ts';
import { requireRecords } from '../runs.ts';
import { withSession } from '../session.ts';

export function historyCommand(): Command {
  return new Command('history')
    .description('success, gains, reward model and decision of every iteration')
    .argument('<run>', 'run id, see `ratchet ls`')
    .option('--json', 'as JSON')
    .action(async (runId: string, { json }: { json?: boolean }) => {
      await withSession({ borrow: true }, async ({ store }) => {
        const records = await requireRecords(store, runId);
        if (json) {
          const { recipe, panels } = records.genesis;
          const { name, method, scale, seed, iterations } = recipe;
          printJson({
            run: runId,
            recipe: name,
            method,
            scale,
            seed,
            planned: iterations,
            panels,
            iterations: historyRows(records),
            head: records.head,
          });
        } else print(...historyText(runId, records, columns()));
      });
    });
}
