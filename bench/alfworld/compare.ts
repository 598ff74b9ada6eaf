/**
 * Our engine beside TextWorld 1.7.0 with ALFWorld 0.4.2's names, on the same game files in one run: random admissible play with text produced and commands
 * listed at each step, and load + reset. `node bench/alfworld/compare.ts [rounds] [games]`. The three contestants take turns, and ratios are of CPU seconds,
 * so that a busy machine slows all of them. TextWorld as shipped, and with three pure functions that keep their results (`anchor.py`).
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Random } from '../../core/random.ts';
import { loadGame } from '../../environments/household/engine/game.ts';
import type { Game } from '../../environments/household/engine/game.ts';
import { Play } from '../../environments/household/engine/play.ts';
import { readGameFile } from '../../environments/household/game-file.ts';
import { cpuSeconds } from '../cpu-time.ts';
import { alfworldPython, gameFiles } from './games.ts';

const ROUNDS = Number(process.argv[2] ?? 3);
const GAMES = Number(process.argv[3] ?? 6);
/** An episode of ALFWorld, as `base_config.yaml` caps it. */
const EPISODE = 50;

interface Found {
  /** Steps per CPU second. */
  speed: number;
  /** CPU seconds of load + reset, one a game. */
  loads: number[];
  commands: number;
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] as number;

function theirs(python: string, files: readonly string[], steps: number, cached: boolean): Found {
  const args = [join(import.meta.dirname, 'anchor.py'), '--steps', String(steps), ...(cached ? ['--cached'] : []), ...files];
  const { status, stdout, stderr } = spawnSync(python, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`anchor.py: ${stderr.slice(-2000)}`);
  const found = JSON.parse(stdout) as { steps: number; commands: number; play_cpu: number; load_cpu: number[] };
  return { speed: found.steps / found.play_cpu, loads: found.load_cpu, commands: found.commands / found.steps };
}

/** Every game is loaded, reset, and played for the given number of episodes. */
function ours(texts: readonly string[], episodes: number, random: Random): Found {
  const loads: number[] = [];
  const games: Game[] = [];
  for (const text of texts) {
    const start = cpuSeconds();
    const game = loadGame(readGameFile(text, 'bench'), { id: 'bench' });
    if (new Play(game).available.commands.length === 0) throw new Error('nothing can be done');
    loads.push(cpuSeconds() - start);
    games.push(game);
  }
  let [steps, commands] = [0, 0];
  const start = cpuSeconds();
  for (let episode = 0; episode < episodes; episode++)
    for (const game of games) {
      const play = new Play(game);
      for (let i = 0; i < EPISODE; i++, steps++) {
        const { commands: listed } = play.available;
        commands += listed.length;
        play.step(random.pick(listed));
      }
    }
  return { speed: steps / (cpuSeconds() - start), loads, commands: commands / steps };
}

const python = alfworldPython();
const { kind, files } = gameFiles(GAMES);
const texts = files.map((file) => readFileSync(file, 'utf8'));
const random = new Random(['bench', 'alfworld']);
ours(texts, 20, random);
const rounds = Array.from({ length: ROUNDS }, () => ({
  shipped: theirs(python, files, 4, false),
  fresh: ours(texts, 1, random),
  ours: ours(texts, 200, random),
  cached: theirs(python, files, 40, true),
}));
const speed = (name: keyof (typeof rounds)[number]): number => median(rounds.map((round) => round[name].speed));
const load = (name: keyof (typeof rounds)[number]): number => median(rounds.flatMap((round) => round[name].loads));
const ratio = (name: 'ours' | 'fresh', to: 'shipped' | 'cached'): string =>
  Math.round(median(rounds.map((round) => round[name].speed / round[to].speed))).toLocaleString('en');
console.log(`${files.length} ${kind} games, ${ROUNDS} rounds, ${rounds[0]?.ours.commands.toFixed(1)} commands a state; medians, CPU time`);
console.log(`TextWorld as shipped        ${speed('shipped').toFixed(1)} steps/s`);
console.log(`TextWorld, results kept     ${speed('cached').toFixed(1)} steps/s`);
console.log(
  `ours                        ${Math.round(speed('ours')).toLocaleString('en')} steps/s: ${ratio('ours', 'shipped')} times as shipped, ${ratio('ours', 'cached')} times with results kept`,
);
console.log(
  `ours, first episode         ${Math.round(speed('fresh')).toLocaleString('en')} steps/s: ${ratio('fresh', 'shipped')} times as shipped, ${ratio('fresh', 'cached')} times with results kept`,
);
console.log(
  `load + reset                ${(1000 * load('shipped')).toFixed(0)} ms, ours ${(1000 * load('ours')).toFixed(1)} ms: ${Math.round(load('shipped') / load('ours'))} times`,
);
