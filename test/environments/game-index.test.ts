/** The index of a folder of ALFWorld data, on folders laid out as ALFWorld lays out its data (alfworld/agents/environment/alfred_tw_env.py reads the same). */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { RatchetError } from '../../core/errors.ts';
import { gamesOfRole, indexGames, readGame } from '../../environments/household/game-index.ts';

const home = mkdtempSync(join(tmpdir(), 'ratchet-test-games-'));
after(() => rmSync(home, { recursive: true, force: true }));
let folders = 0;

const PARTS = { pddl_domain: '(define (domain d))', pddl_problem: '(define (problem p))', grammar: 'grammar :: """{}""";' };
const content = (more: object): string => JSON.stringify({ ...PARTS, ...more });

/** Writes files in the given order below a new folder. */
function folderOf(files: readonly (readonly [path: string, text: string])[]): string {
  const folder = join(home, String(folders++));
  mkdirSync(folder);
  for (const [path, text] of files) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  return folder;
}

const MUG = 'pick_and_place_simple-Mug-None-Shelf-20';
const LAMP = 'look_at_obj_in_light-Book-None-DeskLamp-301';
const DATA: readonly (readonly [string, string])[] = [
  [`json_2.1.1/train/${MUG}/trial_2/game.tw-pddl`, content({ n: 1, walkthrough: ['look'], solvable: true })],
  [`json_2.1.1/train/${MUG}/trial_10/game.tw-pddl`, content({ n: 2 })],
  [`json_2.1.1/valid_seen/${LAMP}/trial_1/game.tw-pddl`, content({ n: 3, walkthrough: null, solvable: null })],
  [`json_2.1.1/valid_unseen/${MUG}/trial_1/game.tw-pddl`, content({ n: 4, solvable: true })],
];
const IDS = [`train/${MUG}/trial_10`, `train/${MUG}/trial_2`, `valid_seen/${LAMP}/trial_1`, `valid_unseen/${MUG}/trial_1`];
const uncached = { cacheFolder: null };

test('games are named by split, task and trial, sorted by code point, wherever the folder is entered', () => {
  const folder = folderOf(DATA);
  const index = indexGames(folder, uncached);
  assert.deepEqual(
    index.games.map(({ id }) => id),
    IDS,
  );
  assert.deepEqual(index.splits, ['train', 'valid_seen', 'valid_unseen']);
  assert.deepEqual(
    index.games.map(({ family }) => family),
    ['pick', 'pick', 'look', 'pick'],
  );
  assert.deepEqual(index.problems, []);
  assert.equal(indexGames(join(folder, 'json_2.1.1'), uncached).sha256, index.sha256);
  const [seen] = indexGames(join(folder, 'json_2.1.1/valid_seen'), uncached).games;
  assert.equal(seen?.id, IDS[2]);
  assert.deepEqual(
    (['seen', 'unseen'] as const).flatMap((role) => gamesOfRole(index, role).map(({ id }) => id)),
    IDS.slice(2),
  );
});

test('the index does not depend on the order in which files were made', () => {
  const expected = indexGames(folderOf(DATA), uncached).sha256;
  fc.assert(
    fc.property(fc.shuffledSubarray([...DATA], { minLength: DATA.length }), (files) => {
      assert.equal(indexGames(folderOf(files), uncached).sha256, expected);
    }),
    { numRuns: 20 },
  );
});

test('whatever is not among the games is reported with its reason', () => {
  const good = content({ n: 0 });
  const folder = folderOf([
    ['a/game.tw-pddl', good],
    ['b/game.tw-pddl', good],
    ['c/game.tw-pddl', content({ solvable: false })],
    ['d/game.tw-pddl', '{"pddl_domain": "half a'],
    ['e/game.tw-pddl', JSON.stringify({ pddl_domain: 'x', grammar: 'y' })],
    ['f/game.tw-pddl', '[]'],
    ['g/game.tw-pddl', content({ walkthrough: [1] })],
    ['pick_and_place_simple-AppleSliced-None-Fridge-1/trial_1/game.tw-pddl', content({ n: 1 })],
    ['pick_and_place_with_movable_recep-Cup-None-Desk-2/trial_1/game.tw-pddl', content({ n: 2 })],
  ]);
  symlinkSync(join(folder, 'nowhere'), join(folder, 'a/other.tw-pddl'));
  symlinkSync(folder, join(folder, 'a/loop'));
  const { games, problems } = indexGames(folder, uncached);
  assert.deepEqual(
    games.map(({ id }) => id),
    ['a'],
  );
  assert.deepEqual(
    problems.map(({ path, kind }) => [path.split('/')[0], kind]),
    [
      ['a', 'broken'],
      ['b', 'duplicate'],
      ['c', 'unsolvable'],
      ['d', 'broken'],
      ['e', 'broken'],
      ['f', 'broken'],
      ['g', 'broken'],
      // alfred_tw_env.py: `if 'movable' in root or 'Sliced' in root: continue`
      ['pick_and_place_simple-AppleSliced-None-Fridge-1', 'left out by ALFWorld'],
      ['pick_and_place_with_movable_recep-Cup-None-Desk-2', 'left out by ALFWorld'],
    ],
  );
  assert.match(problems.find(({ path }) => path.startsWith('e/'))?.detail ?? '', /pddl_problem is not a text/);
});

test('the cache spares reading what has not changed, and nothing else', () => {
  const folder = folderOf(DATA);
  const options = { cacheFolder: join(home, 'cache') };
  const first = indexGames(folder, options);
  assert.equal(first.filesRead, 4);
  const again = indexGames(folder, options);
  assert.equal(again.filesRead, 0);
  assert.deepEqual(again.games, first.games);
  // The same size and the same modification time, but other bytes: the change time tells.
  const [changed] = first.games;
  assert.ok(changed);
  const text = readGame(changed);
  writeFileSync(changed.file, text.replace('"n":2', '"n":7'));
  utimesSync(changed.file, new Date(0), new Date(0));
  const third = indexGames(folder, options);
  assert.equal(third.filesRead, 1);
  assert.notEqual(third.sha256, first.sha256);
  assert.throws(() => readGame(changed), { type: 'Corrupt', message: /has changed/ });
  writeFileSync(join(home, 'cache', 'x'), '');
  rmSync(dirname(changed.file), { recursive: true });
  assert.equal(indexGames(folder, options).games.length, 3);
});

test('roles of one folder share no game, and all trials of a task play the same role', () => {
  const tasks = Array.from({ length: 60 }, (_, i) => `pick_and_place_simple-Mug-None-Shelf-${i}`);
  const folder = folderOf(
    tasks.flatMap((task) => [1, 2].map((trial) => [`train/${task}/trial_${trial}/game.tw-pddl`, content({ task, trial })] as const)),
  );
  const index = indexGames(folder, uncached);
  const [train, validation] = (['train', 'validation'] as const).map((role) => gamesOfRole(index, role).map(({ id }) => id));
  assert.ok(train && validation);
  assert.deepEqual(
    [...train, ...validation].sort(),
    index.games.map(({ id }) => id),
  );
  const tasksOf = (ids: string[]) => new Set(ids.map((id) => id.split('/')[1]));
  assert.ok(![...tasksOf(train)].some((task) => tasksOf(validation).has(task)));
  // A tenth of 60 tasks: 6 expected, standard deviation 2.3.
  assert.ok(validation.length >= 2 && validation.length <= 2 * 15, String(validation.length));
  assert.throws(() => gamesOfRole(index, 'unseen'), {
    type: 'BadInput',
    message: /no unseen games: none of split valid_unseen \(it has train\)/,
  });
});

test('a folder without games is bad input', () => {
  for (const folder of [join(home, 'nowhere'), folderOf([['readme.txt', '']])]) {
    assert.throws(
      () => indexGames(folder, uncached),
      (error) => error instanceof RatchetError && error.type === 'BadInput',
    );
  }
});
