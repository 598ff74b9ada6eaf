/** `ratchet games check`: loads every game of a folder, plays it through or searches for a plan, and names those that are no good. */
import { Command } from 'commander';
import { badInput } from '../../core/errors.ts';
import { nearest } from '../../core/nearest.ts';
import { checkGame, type GameVerdict, type Verdict } from '../../environments/household/game-check.ts';
import type { GameIndex, ProblemKind } from '../../environments/household/game-index.ts';
import { WorkFailed } from '../failures.ts';
import { indexWithProgress, problemLines, progressLine } from '../game-folders.ts';
import { count, plural } from '../format.ts';
import { print, printJson } from '../output.ts';
import { gamesMakeCommand } from './games-make.ts';

/** Games that were put there to be played and cannot be. The other problems are decisions: what ALFWorld leaves out, and second copies. */
const BAD: readonly ProblemKind[] = ['broken', 'unsolvable'];
/** In the order of the report. What nobody could show to be solvable is no good either. */
const VERDICTS: readonly Verdict[] = ['solved', 'solvable', 'unsolvable', 'undecided', 'broken'];
const isGood = ({ verdict }: GameVerdict): boolean => verdict === 'solved' || verdict === 'solvable';
/** Games shown of each verdict in text; `--json` has all. */
const SHOWN = 20;

export function gamesCommand(): Command {
  const check = new Command('check')
    .description(
      'load every game of a folder of ALFWorld data and play it by its walkthrough, or search for a plan; exit code 1 if one is no good',
    )
    .argument('<folder>', 'for example json_2.1.1, or one of its splits')
    .option('--split <split>', 'only the games of this split')
    .option('--json', 'every game and every problem, as JSON')
    .action(checkFolder);
  return new Command('games').description('game files in the format of ALFWorld').addCommand(check).addCommand(gamesMakeCommand());
}

function checkFolder(folder: string, { split, json }: { split?: string; json?: boolean }): void {
  const index = indexWithProgress(folder);
  const verdicts = checkAll(index, split);
  const failed = verdicts.filter((verdict) => !isGood(verdict));
  const bad = index.problems.filter(({ kind }) => BAD.includes(kind));
  if (json) printJson({ folder: index.folder, sha256: index.sha256, games: verdicts, problems: index.problems });
  else print(...report(index, verdicts));
  if (failed.length + bad.length > 0) {
    const [first] = [...failed.map(({ id, detail }) => `${id}: ${detail}`), ...bad.map(({ path, detail }) => `${path}: ${detail}`)];
    throw new WorkFailed(`${plural(failed.length + bad.length, 'game')} of ${folder} no good; the first is ${first}`);
  }
}

function checkAll(index: GameIndex, split: string | undefined): GameVerdict[] {
  if (split !== undefined && !index.splits.includes(split))
    throw badInput(
      '--split',
      split,
      index.splits.length > 0
        ? `did you mean ${nearest(split, index.splits)}? The folder has ${index.splits.join(', ')}`
        : 'none: the folder has no games',
    );
  const games = index.games.filter((game) => split === undefined || game.split === split);
  const progress = progressLine('playing games');
  let failed = 0;
  return games.map((game, i) => {
    const verdict = checkGame(game);
    if (!isGood(verdict)) failed++;
    progress(i + 1, games.length, failed > 0 ? `, ${failed} no good` : '');
    return verdict;
  });
}

function report(index: GameIndex, verdicts: readonly GameVerdict[]): string[] {
  const turns = verdicts.flatMap(({ turns }) => turns ?? []).sort((a, b) => a - b);
  const of = (kind: Verdict) => verdicts.filter(({ verdict }) => verdict === kind);
  const lines = [`${plural(verdicts.length, 'game')}: ${VERDICTS.map((kind) => `${count(of(kind).length)} ${kind}`).join(', ')}`];
  if (turns.length > 0) lines.push(`turns to solve: ${turns[0]} to ${turns.at(-1)}, median ${turns[turns.length >> 1]}`);
  lines.push(`index ${index.sha256}`);
  for (const kind of VERDICTS.filter((each) => each !== 'solved')) {
    const games = of(kind);
    lines.push(...games.slice(0, SHOWN).map(({ id, detail }) => `${kind}: ${id}: ${detail}`));
    if (games.length > SHOWN) lines.push(`and ${games.length - SHOWN} more ${kind}; --json lists all`);
  }
  return [...lines, ...problemLines(index)];
}
