/** `ratchet run <recipe>`: launches a run on the servers and workers that are up, or goes on with one of the given id. */
import { Command } from 'commander';
import { launch, prepare, probe, type Launched } from '../launch.ts';
import { watchToEnd } from '../live/watch.ts';
import { idOption, scaleOption, seedOption, setOption, wholeNumber } from '../options.ts';
import { print, printJson } from '../output.ts';
import { withSession } from '../session.ts';

interface RunOptions {
  scale: string;
  seed?: string;
  set: string[];
  id?: string;
  watch?: boolean;
  json?: boolean;
}

export function runCommand(): Command {
  return new Command('run')
    .description('launch a run, or go on with the one of this id')
    .argument('<recipe>', 'name of a recipe (`ratchet recipes`) or path to a YAML file')
    .addOption(scaleOption())
    .addOption(seedOption())
    .addOption(setOption())
    .addOption(idOption())
    .option('--watch', 'follow it until it ends')
    .option('--json', 'the run id and how it was launched, as JSON')
    .action(async (nameOrPath: string, { scale, seed: seedText, set, id, watch, json }: RunOptions) => {
      const seed = wholeNumber('--seed', seedText);
      const prepared = prepare(nameOrPath, { scale, set, ...(seed !== undefined && { seed }) });
      await withSession({ borrow: false }, async (session) => {
        await probe(session);
        const launched = await launch(session, prepared, id);
        if (json) printJson({ run: launched.runId, how: launched.how });
        else print(launchText(launched));
        if (watch) await watchToEnd(session, launched.runId);
        else if (!json && launched.how !== 'finished') print(`Follow it: npx ratchet watch ${launched.runId}`);
      });
    });
}

export function launchText({ runId, how }: Launched): string {
  if (how === 'finished') return `run ${runId} is finished already: npx ratchet history ${runId}`;
  const verbs = { started: 'started', resumed: 'goes on from what is stored', attached: 'is under way already' } as const;
  return `run ${runId} ${verbs[how]}`;
}
