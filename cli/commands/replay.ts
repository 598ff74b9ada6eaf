/** `ratchet replay <run>`: recomputes what a run stored, from the stored inputs, and says how far it came out the same. */
import { Command } from 'commander';
import { requireBulk } from '../../artifacts/retention.ts';
import { replayRun, type ReplayedCall, type ReplayReport } from '../../activities/replay.ts';
import { closeDecoders } from '../../activities/stages/models.ts';
import { stages } from '../../activities/stages/registry.ts';
import { numericFingerprint } from '../../learning/compute/fingerprint.ts';
import { WorkFailed } from '../failures.ts';
import { plural, short } from '../format.ts';
import { wholeNumber } from '../options.ts';
import { inPlace, print, printJson } from '../output.ts';
import { requireRun } from '../runs.ts';
import { withSession } from '../session.ts';

/** The levels, in a sentence about what was computed anew; `MODELS_DIFFER` where models or games were, too, and R1 is all that was reached. */
const MEANING = {
  R2: 'models were trained and games played again from the stored inputs, and every byte came out the same',
  R1: 'plans, labels and metrics were computed again from stored models and episodes and came out the same; nothing was trained or played again',
  R0: 'what was computed again did not come out the same',
} as const;
const MODELS_DIFFER =
  'plans, labels and metrics were computed again and came out the same; models were trained and games played again, and not all did';

export function replayCommand(): Command {
  return new Command('replay')
    .description('recompute stages from their stored inputs and compare, digest by digest')
    .argument('<run>', 'run id, see `ratchet ls`')
    .option('--iteration <k>', 'only this iteration; 0 is the warm start')
    .option('--stage <name>', 'only stages of this name, e.g. evaluate')
    .option('--json', 'the whole report, as JSON')
    .action(async (runId: string, options: { iteration?: string; stage?: string; json?: boolean }) => {
      const iteration = wholeNumber('--iteration', options.iteration);
      const report = await withSession({ borrow: true }, async ({ store }) => {
        await requireRun(store, runId);
        await requireBulk(store, runId);
        const show = inPlace();
        try {
          return await replayRun({
            store,
            runId,
            stages,
            fingerprint: numericFingerprint(),
            ...(iteration !== undefined && { iteration }),
            ...(options.stage !== undefined && { stage: options.stage }),
            onCall: ({ stage, at, of, progress }) => {
              const within = progress ? ` · ${progress.phase} ${progress.done}/${progress.total} ${progress.unit}` : '';
              show(`${at + 1}/${of} ${stage}${within}`, false);
            },
          });
        } finally {
          show('', true);
          await closeDecoders();
        }
      });
      if (options.json) printJson(report);
      else print(...reportText(report));
      const different = report.calls.find(({ equal }) => !equal);
      if (different) throw new WorkFailed(`stage ${different.stage} (${short(different.intent)}) came out differently`);
    });
}

function reportText({ runId, level, fingerprint, calls }: ReplayReport): string[] {
  const byStage = Map.groupBy(calls, ({ stage }) => stage);
  const width = Math.max(...[...byStage.keys()].map((name) => name.length));
  const seconds = (of: ReplayedCall[]) => of.reduce((sum, call) => sum + call.seconds, 0).toFixed(1);
  const lines = [...byStage].map(([stage, of]) => {
    const equal = of.filter((call) => call.equal).length;
    return `${stage.padEnd(width)}  ${equal === of.length ? 'equal    ' : 'DIFFERENT'}  ${equal} of ${plural(of.length, 'call')}, ${seconds(of)} s`;
  });
  const other = calls.find((call) => call.fingerprint !== fingerprint);
  const first = calls.find((call) => call.difference);
  return [
    `${runId}: level ${level}: ${level === 'R1' && first ? MODELS_DIFFER : MEANING[level]}`,
    '',
    ...lines,
    ...(other ? ['', `computed under ${other.fingerprint}`, `replayed under ${fingerprint}: bytes of models and episodes may differ`] : []),
    ...(first?.difference
      ? [
          '',
          `first difference: stage ${first.stage} (${short(first.intent)}) at ${first.difference.path}`,
          `  stored    ${first.difference.a}`,
          `  replayed  ${first.difference.b}`,
        ]
      : []),
  ];
}
