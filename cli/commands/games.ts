/** `ratchet games check`: loads every game of a folder and plays it through, and names those that are no good. */
import { Command } from 'commander';
import { badInput } from '../../core/errors.ts';
import { nearest } from '../../core/nearest.ts';
import { checkGame, type GameVerdict } from '../../environments/household/game-check.ts';
import type { GameIndex, ProblemKind } from '../../environments/household/game-index.ts';
import { WorkFailed } from '../failures.ts';
import { indexWithProgress, problemLines, progressLine } from '../game-folders.ts';
import { count, plural } from '../format.ts';
import { print, printJson } from '../output.ts';
import { gamesMakeCommand } from './games-make.ts';

/** Games that were put there to be played and cannot be. The other problems are decisions: what ALFWorld leaves out, and second copies. */
const BAD: readonly ProblemKind[] = ['broken', 'unsolvable'];
/** Failures shown in text; `--json` has all. */
const SHOWN = 20;

export function gamesCommand(): Command {
  const check = new Command('check')
    .description('load every game of a folder of ALFWorld data and play it through its walkthrough; exit code 1 if one is no good')
    .argument('<folder>', 'for example json_2.1.1, or one of its splits')
    .option('--split <split>', 'only the games of this split')
    .option('--json', 'every game and every problem, as JSON')
    .action(checkFolder);
  return new Command('games').description('game files in the format of ALFWorld').addCommand(check).addCommand(gamesMakeCommand());
}

function checkFolder(folder: string, { split, json }: { split?: string; json?: boolean }): void {
  const index = indexWithProgress(folder);
  const verdicts = checkAll(index, split);
  const failed = verdicts.filter(({ verdict }) => verdict === 'failed');
  const bad = index.problems.filter(({ kind }) => BAD.includes(kind));
  if (json) printJson({ folder: index.folder, sha256: index.sha256, games: verdicts, problems: index.problems });
  else print(...report(index, verdicts, failed));
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
      `did you mean ${nearest(split, index.splits)}? The folder has ${index.splits.join(', ') || 'no games'}`,
    );
  const games = index.games.filter((game) => split === undefined || game.split === split);
  const progress = progressLine('playing games');
  let failed = 0;
  return games.map((game, i) => {
    const verdict = checkGame(game);
    if (verdict.verdict === 'failed') failed++;
    progress(i + 1, games.length, failed > 0 ? `, ${failed} failed` : '');
    return verdict;
  });
}

function report(index: GameIndex, verdicts: readonly GameVerdict[], failed: readonly GameVerdict[]): string[] {
  const turns = verdicts.flatMap(({ turns }) => turns ?? []).sort((a, b) => a - b);
  const loaded = verdicts.filter(({ verdict }) => verdict === 'loaded').length;
  const lines = [
    `${plural(verdicts.length, 'game')}: ${count(turns.length)} solved, ${count(loaded)} loaded (no walkthrough), ${count(failed.length)} failed`,
  ];
  if (turns.length > 0) lines.push(`turns to solve: ${turns[0]} to ${turns.at(-1)}, median ${turns[turns.length >> 1]}`);
  lines.push(`index ${index.sha256}`);
  lines.push(...failed.slice(0, SHOWN).map(({ id, detail }) => `failed: ${id}: ${detail}`));
  if (failed.length > SHOWN) lines.push(`and ${failed.length - SHOWN} more; --json lists all`);
  return [...lines, ...problemLines(index)];
}
