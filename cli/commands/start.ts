/**
 * `ratchet start` (`npm start`): everything in one command. Brings up servers and workers, starts a run or goes on with the unfinished one, shows it,
 * prints what it reached and what to do next, and leaves nothing running.
 */
import { Command } from 'commander';
import { RatchetError } from '../../core/errors.ts';
import { becomeHost, runningHost, type Host } from '../host.ts';
import { launch, prepare, probe, takeUp, type Launched, type Prepared } from '../launch.ts';
import { laterText } from '../live/display.ts';
import { eventText, preparing } from '../live/preparing.ts';
import { RunWatcher } from '../live/watcher.ts';
import { finish, showToEnd } from '../live/watch.ts';
import { idOption, scaleOption, seedOption, setOption, wholeNumber } from '../options.ts';
import { note, print } from '../output.ts';
import { home, openSession, sessionOf, type Session } from '../session.ts';
import { ENDING_SIGNALS } from '../signals.ts';
import { unfinishedRun } from '../unfinished.ts';
import { launchText } from './run.ts';

const DEFAULT_RECIPE = 'agentprm-household';
/** What shells make of a program that ended by Ctrl-C (128 + SIGINT). */
const INTERRUPTED = 130;

interface StartOptions {
  recipe: string;
  scale: string;
  seed?: string;
  set: string[];
  id?: string;
}

export function startCommand(): Command {
  const command = new Command('start')
    .description('servers, workers and a run in one command; goes on with an unfinished run')
    .option('--recipe <recipe>', 'name of a recipe or path to a YAML file', DEFAULT_RECIPE)
    .addOption(scaleOption())
    .addOption(seedOption())
    .addOption(setOption())
    .addOption(idOption())
    .action(async (options: StartOptions) => {
      const seed = wholeNumber('--seed', options.seed);
      const prepared = prepare(options.recipe, { scale: options.scale, set: options.set, ...(seed !== undefined && { seed }) });
      const chosen = ['recipe', 'scale', 'seed', 'set', 'id'].some((name) => command.getOptionValueSource(name) === 'cli');
      await start(prepared, options.id, chosen);
    });
  return command;
}

/** The first Ctrl-C ends in order, the second one quickly, the third one at once. */
class Interruption {
  readonly asked: Promise<null>;
  times = 0;
  #host: Host | null = null;
  readonly #onSignal: () => void;

  constructor() {
    const { promise, resolve } = Promise.withResolvers<null>();
    this.asked = promise;
    this.#onSignal = () => {
      this.times++;
      if (this.times === 1) resolve(null);
      else if (this.times === 2) {
        note('ending quickly: work since the last checkpoint will be done again');
        void this.#host?.hurry();
      } else process.exit(INTERRUPTED);
    };
    for (const name of ENDING_SIGNALS) process.on(name, this.#onSignal);
  }

  watchOver(host: Host): void {
    this.#host = host;
    if (this.times > 1) void host.hurry();
  }

  end(): void {
    for (const name of ENDING_SIGNALS) process.off(name, this.#onSignal);
  }
}

async function start(prepared: Prepared, id: string | undefined, chosen: boolean): Promise<void> {
  const interruption = new Interruption();
  let say: (line: string) => void = note;
  const display = preparing();
  const other = await runningHost(home());
  let host: Host | null = null;
  let session: Session | null = null;
  try {
    if (other) note(`Servers and workers are up already (\`ratchet ${other.command}\`, pid ${other.process.pid}).`);
    else {
      host = await becomeHost(home(), 'start', {
        onProgress: display.onProgress,
        onEvent: (event) => {
          const text = eventText(event);
          if (text) say(text);
        },
      }).catch((error: unknown) => {
        if (interruption.times === 0) throw error;
        // Ctrl-C reaches what is being started, too.
        return null;
      });
      if (!host) return stoppedBefore();
      interruption.watchOver(host);
    }
    display.end();
    session = host ? sessionOf(host.endpoints) : await openSession({ borrow: false });
    await probe(session);
    if (interruption.times > 0) return stoppedBefore();
    const launched = await choose(session, prepared, id, chosen);
    // Whoever brings up the workers makes a run under way go on.
    const text = launched.how === 'attached' && host ? `run ${launched.runId} goes on` : launchText(launched);
    print(text, ...linksOf(session));
    if (launched.how === 'finished') return;
    const finished = await show(session, launched.runId, host, interruption, (to) => (say = to));
    say = note;
    if (finished) print('', ...nextCommands(launched.runId, session, host === null));
    else {
      if (host) note('', 'Stopping: the workers finish with a checkpoint. The run is safe; go on with: npm start');
      else note('', laterText(launched.runId));
      process.exitCode = INTERRUPTED;
    }
  } finally {
    display.end();
    await session?.close();
    await host?.stop();
    interruption.end();
  }
}

function stoppedBefore(): void {
  note('Stopped before a run was launched.');
  process.exitCode = INTERRUPTED;
}

/** The run of the given id; the unfinished one; or a new one. */
async function choose(session: Session, prepared: Prepared, id: string | undefined, chosen: boolean): Promise<Launched> {
  if (id !== undefined) return launch(session, prepared, id);
  const unfinished = await unfinishedRun(session, chosen ? prepared : null);
  if (!unfinished) return launch(session, prepared);
  return takeUp(session, unfinished.runId, unfinished.recipe, null);
}

/** Shows the run until it ends (true) or somebody interrupts (false). Throws what the run or the workers failed of. */
async function show(
  session: Session,
  runId: string,
  host: Host | null,
  interruption: Interruption,
  onScreen: (say: (line: string) => void) => void,
): Promise<boolean> {
  const watcher = new RunWatcher(session, runId);
  const shown = showToEnd(watcher, onScreen);
  const first = await Promise.race([shown, interruption.asked, ...(host ? [host.failed] : [])]);
  await watcher.stop();
  await shown;
  if (first instanceof RatchetError) throw first;
  if (first === null) return false;
  finish(runId, first, watcher);
  return true;
}

function linksOf({ endpoints }: Session): string[] {
  const { uiUrl } = endpoints.temporal;
  return uiUrl ? [`Temporal's dashboard: ${uiUrl}`, ''] : [''];
}

function nextCommands(runId: string, { endpoints }: Session, staysUp: boolean): string[] {
  const ui = endpoints.temporal.uiUrl ?? 'its address is that of your Temporal';
  const next: [string, string][] = [
    [`npx ratchet history ${runId}`, 'the table above, at any time'],
    [`npx ratchet episodes ${runId}`, "what the agent did, with the reward model's score of every step"],
    [`npx ratchet show ${runId} 1`, 'the records of an iteration'],
    [`npx ratchet verify ${runId}`, 're-hash everything that it says'],
    ['npm start', 'another run; an interrupted one goes on'],
    staysUp ? [ui, "Temporal's dashboard"] : ['npx ratchet up', "servers and workers in the background, with Temporal's dashboard"],
  ];
  const width = Math.max(...next.map(([command]) => command.length));
  return ['Next:', ...next.map(([command, purpose]) => `  ${command.padEnd(width)}   ${purpose}`)];
}
