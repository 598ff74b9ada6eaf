/** `ratchet report <run> [folder]`: report, model card and figures of a run as files, from its records alone. */
import { Command } from 'commander';
import { mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { print, printJson } from '../output.ts';
import { reportFiles } from '../report.ts';
import { requireRecords } from '../runs.ts';
import { withSession } from '../session.ts';

export function reportCommand(): Command {
  return new Command('report')
    .description('report, model card and figures of a run, as Markdown and SVG')
    .argument('<run>', 'run id, see `ratchet ls`')
    .argument('[folder]', 'where to write them; files of these names are replaced', 'report')
    .option('--json', 'the files and their paths, as JSON')
    .action(async (runId: string, to: string, { json }: { json?: boolean }) => {
      const folder = resolve(to);
      const files = await withSession({ borrow: true }, async ({ store }) => reportFiles(runId, await requireRecords(store, runId)));
      await mkdir(folder, { recursive: true });
      for (const [name, content] of Object.entries(files)) await writeFile(join(folder, name), content);
      const paths = Object.keys(files).map((name) => join(folder, name));
      if (json) printJson({ run: runId, files: paths });
      else print(...paths);
    });
}
