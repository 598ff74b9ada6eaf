/** `ratchet export <run> <folder>`: the run as a folder that can be checked with nothing but Node or `sha256sum`. */
import { Command } from 'commander';
import { resolve } from 'node:path';
import { exportRun } from '../../artifacts/export.ts';
import { count, plural, size } from '../format.ts';
import { inPlace, print, printJson } from '../output.ts';
import { requireRun } from '../runs.ts';
import { withSession } from '../session.ts';

export function exportCommand(): Command {
  return new Command('export')
    .description('copy a run into a folder, with a verifier that needs only Node')
    .argument('<run>', 'run id, see `ratchet ls`')
    .argument('<folder>', 'a new or empty folder')
    .option('--json', 'what was exported, as JSON')
    .action(async (runId: string, to: string, { json }: { json?: boolean }) => {
      const folder = resolve(to);
      const { head, counts } = await withSession({ borrow: true }, async ({ store }) => {
        await requireRun(store, runId);
        const show = inPlace();
        return exportRun(store, runId, folder, {
          ...(!json && {
            onProgress: ({ what, done, total, bytes }) =>
              show(`${what}: ${count(done)}/${count(total)} files, ${size(bytes)}`, what === 'copied' && done === total),
          }),
        });
      });
      if (json) printJson({ run: runId, folder, head, counts });
      else
        print(
          `${runId}: ${plural(counts.records, 'record')} and ${plural(counts.objects, 'object')} are in ${folder}`,
          `check it anywhere:  node ${folder}/verify.mjs ${folder} --head ${head?.sha256}`,
          `or:                 cd ${folder} && sha256sum -c --quiet SHA256SUMS`,
        );
    });
}
