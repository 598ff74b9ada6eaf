/**
 * The engine against transcripts recorded from TextWorld 1.7.0 with ALFWorld 0.4.2's wrappers: every observation, every list of commands, score, done and
 * won must be equal. The folder is not part of the project: `RATCHET_ALFWORLD_DIR` names it, `../shared/alfworld` by default.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { Random } from '../../core/random.ts';
import { loadGame } from '../../environments/household/engine/game.ts';
import { Play } from '../../environments/household/engine/play.ts';
import type { Moment } from '../../environments/household/engine/play.ts';
import { readGameFile } from '../../environments/household/game-file.ts';

const FOLDER = process.env['RATCHET_ALFWORLD_DIR'] ?? join(import.meta.dirname, '..', '..', '..', 'shared', 'alfworld');
const MISSING = `${FOLDER} is not there: nothing was compared with TextWorld`;
/** How often a moment is kept, other commands are played, and the moment comes back. */
const BRANCHED = 0.15;

interface Row {
  type: 'reset' | 'step';
  traj: string;
  names?: Record<string, string>;
  command: string;
  observation: string;
  admissible: string[];
  score: number;
  done: boolean;
  won: boolean;
}

const load = (path: string, names?: Record<string, string>) =>
  loadGame(readGameFile(readFileSync(join(FOLDER, path), 'utf8'), path), { id: path, names });

test('recorded episodes are played word for word, through snapshots too', (t) => {
  if (!existsSync(FOLDER)) return t.skip(MISSING);
  const manifest = JSON.parse(readFileSync(join(FOLDER, 'manifest.json'), 'utf8')) as { transcript: string; game: string }[];
  let [rows, branches] = [0, 0];
  for (const { transcript, game: path } of manifest) {
    const random = new Random(['parity', transcript]);
    const game = new Map<string, ReturnType<typeof load>>();
    let play: Play | null = null;
    let where = '';
    for (const line of gunzipSync(readFileSync(join(FOLDER, transcript)))
      .toString()
      .trimEnd()
      .split('\n')) {
      const row = JSON.parse(line) as Row;
      if (row.type === 'reset') {
        const key = JSON.stringify(row.names ?? null);
        const loaded = game.get(key) ?? load(path, row.names);
        game.set(key, loaded);
        play = new Play(loaded);
        where = `${transcript} ${row.traj}`;
      } else {
        assert.ok(play);
        if (random.uniform() < BRANCHED) {
          const { moment }: { moment: Moment } = play;
          for (let n = random.below(4); n >= 0; n--) play.step(random.pick(play.available.commands));
          play.moment = moment;
          branches++;
        }
        play.step(row.command);
        const score: number = play.moment.solved ? 1 : 0;
        assert.deepEqual({ score, done: score === 1 }, { score: row.score, done: row.done }, `${where}: ${row.command}`);
      }
      assert.ok(play);
      const { observation, solved }: { observation: string; solved: boolean } = play.moment;
      assert.equal(observation, row.observation, `${where}: ${row.command}`);
      assert.deepEqual(play.available.commands, row.admissible, `${where}: ${row.command}`);
      assert.equal(solved, row.won, `${where}: ${row.command}`);
      rows++;
    }
  }
  assert.ok(rows > 0 && branches > rows / 20, `${rows} rows compared, ${branches} branches`);
  t.diagnostic(`${rows} rows of ${manifest.length} transcripts are equal, with ${branches} branches`);
});

test('a game whose goal cannot be reached is refused, and why', (t) => {
  if (!existsSync(FOLDER)) return t.skip(MISSING);
  assert.throws(() => load('extra-error/unreachable_goal/game.tw-pddl'), { type: 'BadInput', message: /goal can never be reached/ });
});
