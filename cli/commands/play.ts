/** `ratchet play`: a person plays a household game in the terminal, with the same text and the same commands that an agent gets. */
import { Command } from 'commander';
import { createInterface } from 'node:readline';
import { badInput } from '../../core/errors.ts';
import { nearest } from '../../core/nearest.ts';
import type { TaskPanel } from '../../core/nouns.ts';
import type { Environment } from '../../environments/environment.ts';
import { worldNamed } from '../../environments/registry.ts';
import { plural } from '../format.ts';
import { print } from '../output.ts';
import { playJsonl } from '../play-jsonl.ts';

/** Every family is among so many games in a row. */
const FIRST_GAMES = 24;
const ROLES: readonly TaskPanel['role'][] = ['train', 'validation', 'seen', 'unseen'];
const HELP =
  'Type a command or its number; `look`-like commands cost a turn as they do for an agent. `?` shows the commands again, `quit` ends.';

export function playCommand(): Command {
  return new Command('play')
    .description('play a household game yourself')
    .option('--family <family>', 'task family, for example clean')
    .option('--task <id>', 'a task id, as `ratchet episodes` shows it')
    .option('--role <role>', `where the game comes from: ${ROLES.join(', ')}`, 'unseen')
    .option('--number <n>', 'which game of the role and family, from 0', '0')
    .option('--jsonl', 'for programs: one JSON object a line in and out, any game file')
    .action(async (options: { family?: string; task?: string; role: string; number: string; jsonl?: boolean }) => {
      if (options.jsonl) return playJsonl();
      const world = worldNamed('household');
      const task = options.task ?? chooseTask(options);
      await play(world.open(task), world.turnCapOf(task));
    });
}

function chooseTask({ family, role, number }: { family?: string; role: string; number: string }): string {
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

/** Reads lines until the game is over or the input ends. */
async function play(game: Environment, turnCap: number): Promise<void> {
  print(`Task: ${game.instruction}`, HELP, '', game.observation);
  const showCommands = () => print('', ...menu(game.admissible), `turn ${game.turn + 1} of ${turnCap}`);
  showCommands();
  const input = createInterface({ input: process.stdin, output: process.stdout, prompt: '> ', terminal: process.stdin.isTTY === true });
  try {
    input.prompt();
    for await (const line of input) {
      const typed = line.trim();
      if (typed === 'quit' || typed === 'exit') break;
      if (typed === '?') showCommands();
      else if (typed !== '') {
        take(game, typed);
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

function take(game: Environment, typed: string): void {
  const command = /^\d+$/.test(typed) ? game.admissible[Number(typed) - 1] : typed.toLowerCase();
  if (command === undefined) return print(`There is no command number ${typed}; they go from 1 to ${game.admissible.length}.`);
  if (!game.admissible.includes(command))
    return print(`Not possible now: ${command}. Did you mean: ${nearest(command, game.admissible)}? (no turn was used)`);
  game.step(command);
  print('', `> ${command}`, game.observation);
}

function menu(commands: readonly string[]): string[] {
  return commands.map((command, i) => `${String(i + 1).padStart(3)}  ${command}`);
}
