/** `ratchet compare <a> <b>`: how two runs differ, where they part, and which ended with the better policy. */
import { Command } from 'commander';
import { compareRuns, comparisonText } from '../compare.ts';
import { print, printJson } from '../output.ts';
import { requireRecords } from '../runs.ts';
import { withSession } from '../session.ts';

export function compareCommand(): Command {
  return new Command('compare')
    .description('how two runs differ, where they part, and which is better on equal panels')
    .argument('<a>', 'run id, see `ratchet ls`')
    .argument('<b>', 'another')
    .option('--json', 'as JSON')
    .action(async (a: string, b: string, { json }: { json?: boolean }) => {
      await withSession({ borrow: true }, async ({ store }) => {
        const [ofA, ofB] = await Promise.all([requireRecords(store, a), requireRecords(store, b)]);
        const comparison = await compareRuns(store, { runId: a, records: ofA }, { runId: b, records: ofB });
        if (json) printJson(comparison);
        else print(...comparisonText(comparison));
      });
    });
}
