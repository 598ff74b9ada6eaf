/** Folders of ALFWorld data, as commands show them. */
import { indexGames, type GameIndex } from '../environments/household/game-index.ts';
import { count, plural } from './format.ts';

const REDRAW_MS = 250;
/** Problems shown of each kind; `--json` has all. */
const SHOWN = 5;

/** `done` of `total`, in place on a terminal; silent elsewhere. */
export function progressLine(what: string): (done: number, total: number, more?: string) => void {
  let shownAtMs = -Infinity;
  return (done, total, more = '') => {
    if (!process.stderr.isTTY || (performance.now() - shownAtMs < REDRAW_MS && done < total)) return;
    shownAtMs = performance.now();
    process.stderr.write(`\r\u001b[K${done < total ? `${what} ${count(done)}/${count(total)}${more}` : ''}`);
  };
}

/** Throws RatchetError('BadInput') when it is no folder of games. */
export const indexWithProgress = (folder: string): GameIndex => indexGames(folder, { onProgress: progressLine('reading games') });

/** What is no game, by kind. */
export function problemLines({ problems }: Pick<GameIndex, 'problems'>): string[] {
  return Object.entries(Object.groupBy(problems, ({ kind }) => kind)).flatMap(([kind, of]) => [
    `${plural(of.length, 'file')} not among the games: ${kind}`,
    ...of.slice(0, SHOWN).map(({ path, detail }) => `  ${path}: ${detail}`),
    ...(of.length > SHOWN ? [`  and ${of.length - SHOWN} more`] : []),
  ]);
}
