/** Generated games as files, shortest plans, and the search expert and the codec on ALFWorld's own games (RATCHET_ALFWORLD_DIR, as in the parity test). */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { sha256 } from '../../core/digest.ts';
import { HouseholdEnvironment } from '../../environments/household/engine/environment.ts';
import { loadGame } from '../../environments/household/engine/game.ts';
import { readGameFile, type GameFile } from '../../environments/household/game-file.ts';
import { makeGames } from '../../environments/household/game-folder.ts';
import { gamesOfRole, indexGames, rolesOf } from '../../environments/household/game-index.ts';
import { gameFileOf } from '../../environments/household/game-writer.ts';
import { homeOf } from '../../environments/household/generator.ts';
import { planOf } from '../../environments/household/planner.ts';
import { worldNamed } from '../../environments/registry.ts';

const world = worldNamed('household');

describe('games written to a folder', () => {
  test('the same options write the same bytes, where ALFWorld looks for them, and they are the tasks of a run with that seed', () => {
    const folders = ['a', 'b'].map((name) => mkdtempSync(join(tmpdir(), `ratchet-games-${name}-`)));
    try {
      const options = { role: 'unseen', tasks: 6, seed: 1, size: 'small', dials: {} } as const;
      const [one, other] = folders.map((folder) => makeGames(folder, options)) as [
        ReturnType<typeof makeGames>,
        ReturnType<typeof makeGames>,
      ];
      assert.deepEqual(one, other);
      assert.deepEqual(
        one.map(({ id, sha256: digest }) => [id, digest]),
        world.tasks('unseen', 100_000, 6).map((task) => [task.id, task.sha256]),
      );
      for (const { path, sha256: digest } of one) {
        assert.match(path, /^json_2\.1\.1\/valid_unseen\/[a-z_]+-\w+-None-\w+-\d+\/trial_G\d+\/game\.tw-pddl$/);
        assert.equal(sha256(readFileSync(join(folders[0] as string, path))), digest);
      }
      const index = indexGames(folders[0] as string, { cacheFolder: null });
      assert.deepEqual([index.games.length, index.problems, index.splits], [6, [], ['valid_unseen']]);
    } finally {
      for (const folder of folders) rmSync(folder, { recursive: true, force: true });
    }
  });

  test('a folder of all four roles is indexed by them: each role has the games made for it, and training loses none to validation', () => {
    const folder = mkdtempSync(join(tmpdir(), 'ratchet-games-'));
    try {
      const made = (['train', 'validation', 'seen', 'unseen'] as const).map((role) => [
        role,
        makeGames(folder, { role, tasks: 12, seed: 1, size: 'small', dials: {} }),
      ]);
      const index = indexGames(folder, { cacheFolder: null });
      assert.deepEqual(index.splits, ['train', 'validation', 'valid_seen', 'valid_unseen']);
      const digestsOf = (games: readonly { sha256: string }[]) => games.map(({ sha256: digest }) => digest).sort();
      const expected = Object.fromEntries(made.map(([role, games]) => [role, digestsOf(games as { sha256: string }[])]));
      assert.deepEqual(Object.fromEntries(Object.entries(rolesOf(index)).map(([role, games]) => [role, digestsOf(games)])), expected);
      assert.deepEqual(digestsOf(gamesOfRole(index, 'validation')), expected['validation']);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test('dials change what is drawn; those that leave no home are refused by name', () => {
    const folder = mkdtempSync(join(tmpdir(), 'ratchet-games-'));
    try {
      const made = (dials: object) => makeGames(folder, { role: 'train', tasks: 2, seed: 1, size: 'small', dials });
      for (const { path } of made({ receptacles: { least: 9, most: 9 }, objects: { least: 20, most: 20 } })) {
        const problem = readGameFile(readFileSync(join(folder, path), 'utf8'), path).pddl_problem;
        assert.equal(problem.match(/\(stands /g)?.length, 9);
        assert.equal(problem.match(/\(lies \w+ \w+\)\n/g)?.length, 21, 'twenty and the lamp');
      }
      assert.throws(() => made({ noise: 2 }), /noise/);
      assert.throws(() => made({ receptacles: { least: 50, most: 60 } }), /receptacles/);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

/** A shortest plan for the file's game; it is played here, and must solve it. */
function planned(id: string, file: GameFile, turnCap: number): string[] {
  const game = new HouseholdEnvironment(loadGame(file, { id }), { turnCap });
  const plan = planOf(game);
  assert.equal(game.turn, 0, 'the game is left as it was');
  for (const command of plan) game.step(command);
  assert.equal(game.outcome, 1, id);
  return plan;
}

describe('the planner', () => {
  test('solves generated games in as many turns as the walkthrough, which goes through every way of fetching and bringing', () => {
    for (const [collection, turnCap] of [
      ['generated', 30],
      ['generated-large', 50],
    ] as const)
      for (const { id } of world.tasks('unseen', 0, 18, collection)) {
        const file = gameFileOf(homeOf(id));
        assert.equal(planned(id, file, turnCap).length, file.walkthrough.length, id);
      }
  });

  test('says when it may not look further', () => {
    const file = gameFileOf(homeOf('train/two/000000'));
    const game = new HouseholdEnvironment(loadGame(file, { id: 'x' }), { turnCap: 30 });
    assert.throws(() => planOf(game, { mostStates: 3 }), { type: 'OutOfMemory' });
    const short = new HouseholdEnvironment(loadGame(file, { id: 'y' }), { turnCap: 4 });
    assert.throws(() => planOf(short), { type: 'BadInput' });
  });
});

const FOLDER = process.env['RATCHET_ALFWORLD_DIR'] ?? join(import.meta.dirname, '..', '..', '..', 'shared', 'alfworld');
const isThere = existsSync(join(FOLDER, 'games'));

describe("ALFWorld's own games", () => {
  test('the search expert solves at least 95 %, tokens tell commands apart, and plans are never longer than walkthroughs', (context) => {
    if (!isThere) return context.skip(`there are no games in ${FOLDER}`);
    const { games } = indexGames(join(FOLDER, 'games'), { cacheFolder: null });
    const files = new Map(games.map(({ id, file }) => [id, readFileSync(file)]));
    const known = world.withFiles(files);
    const lost: string[] = [];
    for (const { id } of games) {
      const game = known.open(id);
      const agent = known.expert(id);
      assert.ok(!known.codec.start(game.instruction, game.observation).includes('<unk>'), id);
      for (let command = agent.act(game); command !== null && !game.done; command = agent.act(game)) {
        const encoded = game.admissible.map((each) => `${known.codec.command(each).join(' ')} `).sort();
        encoded.forEach((tokens, i) => assert.ok(!tokens.includes('<unk>') && encoded[i + 1]?.startsWith(tokens) !== true, tokens));
        game.step(command);
        assert.ok(!known.codec.feedback(command, game.observation).includes('<unk>'), game.observation);
        if (game.done) break;
      }
      if (game.outcome === 0) lost.push(id);
    }
    assert.ok(lost.length <= games.length / 20, lost.join(', '));
    for (const { id, walkthrough } of games.slice(0, 12)) {
      const file = readGameFile(Buffer.from(files.get(id) as Uint8Array).toString('utf8'), id);
      assert.ok(walkthrough !== null && planned(id, file, 50).length <= walkthrough.length, id);
    }
  });
});
