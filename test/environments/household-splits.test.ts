/** Which games there are: roles share none, `unseen` has layouts and pairs of its own, and a task id decides everything. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NON_RETRYABLE_ERRORS, RatchetError } from '../../core/errors.ts';
import { worldNamed } from '../../environments/registry.ts';
import { gameFileOf } from '../../environments/household/game-writer.ts';
import { homeOf, layoutOf, pairOf } from '../../environments/household/generator.ts';
import type { Home } from '../../environments/household/generator.ts';
import { kindOf, RECEPTACLE_KINDS } from '../../environments/household/kinds.ts';
import { openHome } from './homes.ts';

const world = worldNamed('household');
const ROLES = ['train', 'validation', 'seen', 'unseen'] as const;
const COUNT = 900;
const tasks = Object.fromEntries(ROLES.map((role) => [role, world.tasks(role, 0, COUNT)]));
const homes = Object.fromEntries(ROLES.map((role) => [role, (tasks[role] ?? []).map((task) => homeOf(task.id))]));
const FAMILIES = ['pick', 'look', 'clean', 'heat', 'cool', 'two'];

describe('the task lists', () => {
  test('families take turns, ids are stable, and a part of the list is the same as the whole from there on', () => {
    for (const role of ROLES)
      assert.deepEqual(
        tasks[role]?.slice(0, 12).map((task) => task.family),
        [...FAMILIES, ...FAMILIES],
      );
    assert.deepEqual(
      tasks.train?.slice(0, 8).map((task) => task.id),
      [
        'train/pick/000000',
        'train/look/000000',
        'train/clean/000000',
        'train/heat/000000',
        'train/cool/000000',
        'train/two/000000',
        'train/pick/000001',
        'train/look/000001',
      ],
    );
    assert.deepEqual(world.tasks('seen', 700, 40), tasks.seen?.slice(700, 740));
    assert.deepEqual(world.tasks('train', 0, 0), []);
  });

  test('no two tasks of any roles are the same game', () => {
    const digests = ROLES.flatMap((role) => (tasks[role] ?? []).map((task) => task.sha256));
    const contents = ROLES.flatMap((role) => (homes[role] ?? []).map((home) => JSON.stringify(home)));
    assert.equal(new Set(digests).size, ROLES.length * COUNT);
    assert.equal(new Set(contents).size, ROLES.length * COUNT);
  });

  test('no layout and no object-target pair of unseen occurs in another role', () => {
    for (const trait of [layoutOf, (home: Home) => pairOf(home.goal)]) {
      const unseen = new Set(homes.unseen?.map(trait));
      for (const role of ['train', 'validation', 'seen'] as const)
        for (const home of homes[role] ?? []) assert.ok(!unseen.has(trait(home)), `${role} has ${trait(home)}`);
    }
  });

  test('seen and validation are made of what training is made of', () => {
    const pairs = new Set(homes.train?.map((home) => pairOf(home.goal)));
    for (const role of ['validation', 'seen'] as const) {
      const known = homes[role]?.filter((home) => pairs.has(pairOf(home.goal))).length ?? 0;
      assert.ok(known / COUNT > 0.97, `${role}: ${known} of ${COUNT} pairs occur in ${COUNT} training games`);
    }
  });

  test('every family of unseen has several pairs', () => {
    for (const family of FAMILIES) {
      const pairs = new Set(homes.unseen?.filter((home) => home.goal.family === family).map((home) => pairOf(home.goal)));
      assert.ok(pairs.size >= 2, `${family}: ${[...pairs].join(' ')}`);
    }
  });
});

describe('homes', () => {
  test('have the promised furniture and things, and nothing is solved at the start', () => {
    for (const role of ROLES)
      for (const home of homes[role] ?? []) {
        assert.ok(home.receptacles.length >= 8 && home.receptacles.length <= 11);
        assert.ok(home.things.length >= 9 && home.things.length <= 15, 'eight to fourteen objects and the lamp');
        const kinds = home.receptacles.map(kindOf);
        for (const kind of ['fridge', 'microwave', 'countertop', 'sinkbasin']) assert.equal(kinds.filter((k) => k === kind).length, 1);
        assert.equal(new Set(home.receptacles).size, home.receptacles.length);
        assert.equal(new Set(home.things.map(([thing]) => thing)).size, home.things.length);
        const wanted = home.things.filter(([thing]) => kindOf(thing) === home.goal.object);
        assert.ok(wanted.length >= (home.goal.family === 'two' ? 2 : 1));
        assert.ok(wanted.every(([, place]) => kindOf(place) !== home.goal.target));
        assert.ok(home.goal.family === 'look' || kinds.includes(home.goal.target));
      }
  });

  test('openable receptacles start closed', () => {
    const [home] = homes.train ?? [];
    assert.ok(home);
    for (const receptacle of home.receptacles) {
      const environment = openHome('hand-built', home);
      environment.step(`go to ${receptacle}`);
      assert.equal(environment.observation.endsWith('It is shut.'), RECEPTACLE_KINDS[kindOf(receptacle)]?.openable);
    }
  });

  test('a task id decides the game: these bytes must never change while the codec and the world keep their names', () => {
    // Computed once by this generator: a change invalidates every stored panel and must be deliberate.
    assert.deepEqual(
      ROLES.map((role) => world.tasks(role, 2, 1)[0]?.sha256.slice(0, 16)),
      ['a9e1c6bd4ec22f90', '89962db5e99b6ace', 'b9ae33b80effe3be', '94194cbe1a1b0dfd'],
    );
    assert.deepEqual(homeOf('unseen/clean/000017'), homeOf('unseen/clean/000017'));
  });

  test('held to the digests of a panel, a world opens what they name and refuses to play another game under a task of it', () => {
    const [kept, changed, free] = world.tasks('train', 0, 3);
    assert.ok(kept && changed && free);
    const file = { id: 'a file', sha256: changed.sha256 };
    const other = Buffer.from(JSON.stringify(gameFileOf(homeOf(free.id))));
    const held = world.withFiles(new Map([[file.id, other]])).heldTo([kept, { id: changed.id, sha256: kept.sha256 }, file]);
    assert.equal(held.open(kept.id).observation, world.open(kept.id).observation);
    assert.equal(held.open(free.id).observation, world.open(free.id).observation, 'nobody said what it is');
    for (const [id, expected, found] of [
      [changed.id, kept.sha256, changed.sha256],
      [file.id, changed.sha256, free.sha256],
    ] as const)
      assert.throws(
        () => held.open(id),
        (error) => {
          assert.ok(error instanceof RatchetError && error.type === 'Corrupt' && NON_RETRYABLE_ERRORS.includes(error.type));
          for (const part of [id, expected, found, 'finish the run with the version that began it'])
            assert.ok(error.message.includes(part));
          return true;
        },
      );
    assert.throws(() => held.withFiles(new Map()).open(changed.id), { type: 'Corrupt' }, 'still held with more files');
  });

  test('ids that no task has are refused', () => {
    for (const id of [
      'train/clean/17',
      'train/clean',
      'test/clean/000017',
      'train/fly/000017',
      'train/clean/-00017',
      'train/clean/0000017',
      '',
    ])
      assert.throws(() => world.open(id), { type: 'BadInput' }, id);
    assert.throws(() => world.expert('nowhere'), { type: 'BadInput' });
  });

  test('a world that does not exist is refused with the nearest name', () => {
    assert.throws(() => worldNamed('houshold'), /"houshold".*"household"/);
  });
});
