/**
 * `ratchet play`: a person plays a household game in the terminal, with the same text and the same commands that an agent gets. Lines can be edited and
 * recalled, the Tab key completes commands, `undo` takes turns back and `hint` asks the planner.
 */
import { Command } from 'commander';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { badInput } from '../../core/errors.ts';
import { nearest } from '../../core/nearest.ts';
import type { TaskPanel } from '../../core/nouns.ts';
import type { Environment, Snapshot } from '../../environments/environment.ts';
import { HouseholdEnvironment } from '../../environments/household/engine/environment.ts';
import { loadGame } from '../../environments/household/engine/game.ts';
import { readGameFile } from '../../environments/household/game-file.ts';
import { parseTaskId } from '../../environments/household/generator.ts';
import { planOf } from '../../environments/household/planner.ts';
import { ALFWORLD_TURN_CAP } from '../../environments/household/world.ts';
import { worldNamed } from '../../environments/registry.ts';
import { plural } from '../format.ts';
import { print } from '../output.ts';
import { playJsonl } from '../play-jsonl.ts';

/** Every family is among so many games in a row. */
const FIRST_GAMES = 24;
/** What ALFWorld calls every game. */
const GAME_FILE = 'game.tw-pddl';
const ROLES: readonly TaskPanel['role'][] = ['train', 'validation', 'seen', 'unseen'];
const HELP = [
  'Type a command or its number; `look`-like commands cost a turn as they do for an agent. Tab completes, the arrow keys recall.',
  '`?` shows the commands again, `undo` takes the last turn back, `hint` says what a shortest plan does next, `history` what was done, `quit` ends.',
];
/** Words that are for the player's table, not for the game. */
const TABLE = ['?', 'undo', 'hint', 'history', 'quit', 'exit'] as const;

interface Options {
  family?: string;
  task?: string;
  game?: string;
  role: string;
  number: string;
  jsonl?: boolean;
}

export function playCommand(): Command {
  return new Command('play')
    .description('play a household game yourself')
    .option('--family <family>', 'task family, for example clean')
    .option('--task <id>', 'a task id, as `ratchet episodes` shows it')
    .option('--game <file|id>', 'a game file of ALFWorld (game.tw-pddl), or a task id')
    .option('--role <role>', `where the game comes from: ${ROLES.join(', ')}`, 'unseen')
    .option('--number <n>', 'which game of the role and family, from 0', '0')
    .option('--jsonl', 'for programs: one JSON object a line in and out, any game file')
    .action(async (options: Options) => {
      if (options.jsonl) return playJsonl();
      const { game, turnCap } = open(options);
      await play(game, turnCap);
    });
}

function open(options: Options): { game: Environment; turnCap: number } {
  if (options.game !== undefined && parseTaskId(options.game) === null) {
    let text: string;
    try {
      text = readFileSync(options.game, 'utf8');
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      throw badInput(
        '--game',
        options.game,
        code === 'EISDIR'
          ? `it is a folder; name a game file in it (${existsSync(join(options.game, GAME_FILE)) ? join(options.game, GAME_FILE) : `.../${GAME_FILE}`})`
          : `no task has this id, and the file cannot be read (${code})`,
      );
    }
    const game = loadGame(readGameFile(text, options.game), { id: options.game });
    return { game: new HouseholdEnvironment(game, { turnCap: ALFWORLD_TURN_CAP }), turnCap: ALFWORLD_TURN_CAP };
  }
  const world = worldNamed('household');
  const task = options.game ?? options.task ?? chooseTask(options);
  return { game: world.open(task), turnCap: world.turnCapOf(task) };
}

function chooseTask({ family, role, number }: Options): string {
  if (!(ROLES as readonly string[]).includes(role))
    throw badInput('--role', role, `did you mean ${nearest(role, ROLES)}? The roles are ${ROLES.join(', ')}`);
  if (!/^\d{1,3}$/.test(number)) throw badInput('--number', number, 'a whole number from 0 to 999');
  const world = worldNamed('household');
  if (family === undefined) return (world.tasks(role as TaskPanel['role'], Number(number), 1)[0] as { id: string }).id;
  const panel = role as TaskPanel['role'];
  const families = [...new Set(world.tasks(panel, 0, FIRST_GAMES).map((task) => task.family))].sort();
  if (!families.includes(family))
    throw badInput('--family', family, `did you mean ${nearest(family, families)}? The families are ${families.join(', ')}`);
  for (let from = 0, left = Number(number); ; from += FIRST_GAMES) {
    const of = world.tasks(panel, from, FIRST_GAMES).filter((task) => task.family === family);
    if (left < of.length) return (of[left] as { id: string }).id;
    left -= of.length;
  }
}

/** A turn that was taken, and the way back. */
interface Turn {
  command: string;
  before: Snapshot;
}

/** Reads lines until the game is over or the input ends. */
async function play(game: Environment, turnCap: number): Promise<void> {
  print(`Task: ${game.instruction}`, ...HELP, '', game.observation);
  const turns: Turn[] = [];
  const showCommands = () => print('', ...menu(game.admissible), `turn ${game.turn + 1} of ${turnCap}`);
  showCommands();
  const input = createInterface({
    input: process.stdin,
    output: process.stdout,
    prompt: '> ',
    terminal: process.stdin.isTTY === true,
    completer: (line: string): [string[], string] => [[...game.admissible, ...TABLE].filter((each) => each.startsWith(line)), line],
  });
  try {
    input.prompt();
    for await (const line of input) {
      const typed = line.trim();
      if (typed === 'quit' || typed === 'exit') break;
      if (typed === '?') showCommands();
      else if (typed === 'hint') print(hint(game));
      else if (typed === 'history')
        print(
          ...(turns.length === 0 ? ['Nothing was done yet.'] : turns.map(({ command }, i) => `${String(i + 1).padStart(3)}  ${command}`)),
        );
      else if (typed === 'undo') {
        const last = turns.pop();
        if (last === undefined) print('There is no turn to take back.');
        else {
          game.restore(last.before);
          print(`Taken back: ${last.command}`, game.observation);
          showCommands();
        }
      } else if (typed !== '') {
        take(game, typed, turns);
        if (game.done) break;
        showCommands();
      }
      input.prompt();
    }
  } finally {
    input.close();
  }
  if (!game.done) print('', `You left after ${plural(game.turn, 'turn')}; the task was: ${game.instruction}`);
  else if (game.outcome === 1) print('', `Solved in ${plural(game.turn, 'turn')}.`);
  else print('', `Not solved within ${plural(turnCap, 'turn')}.`);
}

/** What a shortest plan does next: it knows what lies behind closed doors. */
function hint(game: Environment): string {
  if (!(game instanceof HouseholdEnvironment)) return 'There is no planner for this game.';
  try {
    const plan = planOf(game);
    return `Hint: ${plan[0]} (then ${plural(plan.length - 1, 'more turn')})`;
  } catch (error) {
    return `No hint: ${(error as Error).message}`;
  }
}

function take(game: Environment, typed: string, turns: Turn[]): void {
  const command = /^\d+$/.test(typed) ? game.admissible[Number(typed) - 1] : typed.toLowerCase();
  if (command === undefined) return print(`There is no command number ${typed}; they go from 1 to ${game.admissible.length}.`);
  if (!game.admissible.includes(command))
    return print(`Not possible now: ${command}. Did you mean: ${nearest(command, game.admissible)}? (no turn was used)`);
  turns.push({ command, before: game.snapshot() });
  game.step(command);
  print('', `> ${command}`, game.observation);
}

function menu(commands: readonly string[]): string[] {
  return commands.map((command, i) => `${String(i + 1).padStart(3)}  ${command}`);
}
