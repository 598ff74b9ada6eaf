/** Follows a run on the screen until it ends, and says how it ended; Ctrl-C ends the watching and nothing else. */
import { RatchetError } from '../../core/errors.ts';
import { WorkFailed } from '../failures.ts';
import { historyText } from '../history.ts';
import { columns, note, print } from '../output.ts';
import type { Session } from '../session.ts';
import { laterText, outcomeText } from './display.ts';
import { showLive } from './screen.ts';
import type { LiveView } from './view.ts';
import { RunWatcher } from './watcher.ts';

/** Throws when the run failed. Prints the history of a run that finished. */
export async function watchToEnd(session: Session, runId: string): Promise<void> {
  const watcher = new RunWatcher(session, runId);
  const onInterrupt = () => void watcher.stop();
  process.once('SIGINT', onInterrupt);
  process.once('SIGTERM', onInterrupt);
  try {
    const outcome = await showToEnd(watcher);
    if (outcome === null) note(laterText(runId));
    else finish(runId, outcome, watcher);
  } finally {
    process.off('SIGINT', onInterrupt);
    process.off('SIGTERM', onInterrupt);
  }
}

/** The outcome of the run, or null when the watcher was stopped before. `onScreen` is given a way to say a line beside the display. */
export async function showToEnd(
  watcher: RunWatcher,
  onScreen: (say: (line: string) => void) => void = () => undefined,
): Promise<LiveView['outcome']> {
  await watcher.look();
  const screen = showLive(() => watcher.view());
  onScreen(screen.say);
  try {
    return await watcher.follow();
  } finally {
    screen.end();
  }
}

/** Prints what the run reached; throws what it failed of. */
export function finish(runId: string, outcome: NonNullable<LiveView['outcome']>, { records }: RunWatcher): void {
  if (outcome.kind === 'unknown')
    throw new RatchetError(
      'BadInput',
      `run ${runId} is not under way: Temporal does not know it; \`npx ratchet run <recipe> --id ${runId}\` takes it up from the store`,
    );
  if (records && records.iterations.length > 0) print('', ...historyText(runId, records, columns()));
  if (outcome.kind === 'completed' || outcome.kind === 'stopped') return;
  if (outcome.kind === 'cancelled') return note(`run ${runId} was cancelled`);
  throw new WorkFailed(`run ${runId} ${outcomeText(outcome)}`);
}
