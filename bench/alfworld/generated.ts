/**
 * Generated games in the real ALFWorld and TextWorld, word for word: `node bench/alfworld/generated.ts [games] [steps]`. Each game is played twice, once with
 * commands that our engine's player draws and once with those that Python draws, and every text, list of commands, score and end must be equal.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Random } from '../../core/random.ts';
import { loadGame } from '../../environments/household/engine/game.ts';
import { Play } from '../../environments/household/engine/play.ts';
import { readGameFile } from '../../environments/household/game-file.ts';
import { bytesOf, gameFileOf } from '../../environments/household/game-writer.ts';
import { homeOf } from '../../environments/household/generator.ts';
import { worldNamed } from '../../environments/registry.ts';
import { alfworldPython } from './games.ts';

const GAMES = Number(process.argv[2] ?? 100);
const STEPS = Number(process.argv[3] ?? 15);

interface Row {
  type: 'reset' | 'step';
  command?: string;
  observation: string;
  admissible: string[];
  score?: number;
  done?: boolean;
  won: boolean;
}

const python = alfworldPython();
const folder = mkdtempSync(join(tmpdir(), 'ratchet-bench-generated-'));
let [episodes, rows, different] = [0, 0, 0];
try {
  const world = worldNamed('household');
  // Seen and unseen games in turn; the task list gives every family its share.
  const tasks = (['seen', 'unseen'] as const).flatMap((role) => world.tasks(role, 0, Math.ceil(GAMES / 2))).slice(0, GAMES);
  for (const [at, { id }] of tasks.entries()) {
    const bytes = bytesOf(gameFileOf(homeOf(id)));
    const path = join(folder, 'game.tw-pddl');
    writeFileSync(path, bytes);
    const game = loadGame(readGameFile(Buffer.from(bytes).toString(), id), { id });

    const random = new Random(['bench', 'generated', id]);
    const ours = new Play(game);
    const script: string[] = [];
    for (let step = 0; step < STEPS; step++) {
      script.push(random.pick(ours.available.commands));
      ours.step(script.at(-1) as string);
    }
    writeFileSync(join(folder, 'script'), script.join('\n'));

    const recorder = join(import.meta.dirname, 'record.py');
    const args = [recorder, path, '--script', join(folder, 'script'), '--episodes', '2', '--steps', String(STEPS), '--seed', String(at)];
    const { status, stdout, stderr } = spawnSync(python, args, { encoding: 'utf8', maxBuffer: 64 * 2 ** 20 });
    if (status !== 0) throw new Error(`${id}: ${stderr.slice(-2000)}`);
    let play: Play | null = null;
    for (const line of stdout.trimEnd().split('\n')) {
      const row = JSON.parse(line) as Row;
      if (row.type === 'reset') {
        play = new Play(game);
        episodes++;
      } else play?.step(row.command as string);
      if (!play) throw new Error(`${id}: no reset came first`);
      const { observation, solved } = play.moment;
      const same =
        observation === row.observation &&
        solved === row.won &&
        JSON.stringify(play.available.commands) === JSON.stringify(row.admissible) &&
        (row.type === 'reset' || (row.score === (solved ? 1 : 0) && row.done === solved));
      rows++;
      if (same) continue;
      different++;
      if (different <= 3)
        console.log(
          `${id}: ${row.command ?? 'reset'}\n  theirs  ${JSON.stringify(row.observation)}\n  ours    ${JSON.stringify(observation)}`,
        );
    }
    if (process.stderr.isTTY) process.stderr.write(`\r${at + 1}/${tasks.length} games, ${different} rows differ`);
  }
} finally {
  rmSync(folder, { recursive: true });
}
console.log(
  `${GAMES} generated games, ${episodes} episodes, ${rows} rows compared with TextWorld 1.7.0 and ALFWorld 0.4.2's names: ${different} differ`,
);
process.exitCode = different === 0 && episodes > 0 ? 0 : 1;
