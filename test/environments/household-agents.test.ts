/**
 * The scripted agents. Expected: the expert solves every game, and hardly ever fails with some noise; how often the demonstrator's habits show is known
 * exactly for every goal, and the measured rate must agree with it.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ScriptedAgent } from '../../environments/environment.ts';
import { habitChance } from '../../environments/household/demonstrator.ts';
import { readInstruction } from '../../environments/household/families.ts';
import { homeOf } from '../../environments/household/generator.ts';
import { kindOf, RECEPTACLE_KINDS } from '../../environments/household/kinds.ts';
import { openHome } from './homes.ts';
import { worldNamed } from '../../environments/registry.ts';

const world = worldNamed('household');

/** Plays to the end or until the agent stops; every command must be admissible. */
function play(id: string, agent: ScriptedAgent): { outcome: number; commands: string[]; instruction: string } {
  const environment = world.open(id);
  const commands: string[] = [];
  while (!environment.done) {
    const command = agent.act(environment);
    if (command === null) break;
    assert.ok(environment.admissible.includes(command), `${id}: "${command}" after "${environment.observation}"`);
    environment.step(command);
    commands.push(command);
  }
  return { outcome: environment.outcome, commands, instruction: environment.instruction };
}

describe('the expert', () => {
  for (const role of ['train', 'validation', 'seen', 'unseen'] as const)
    test(`solves all of 120 ${role} games`, () => {
      const lost = world.tasks(role, 0, 120).filter((task) => play(task.id, world.expert(task.id)).outcome === 0);
      assert.deepEqual(lost, []);
    });

  test('searches in the order of the list', () => {
    for (const { id } of world.tasks('train', 3000, 60)) {
      const list = world.open(id).observation.match(/[a-z]+ \d/g) ?? [];
      const { commands } = play(id, world.expert(id));
      const search = commands.slice(
        0,
        commands.findIndex((command) => command.startsWith('take ')),
      );
      const visited = search.filter((command) => command.startsWith('go to ')).map((command) => command.slice(6));
      assert.deepEqual(visited, list.slice(0, visited.length), id);
    }
  });

  test('knows only what it was told: where hidden things are makes no difference until they are seen', () => {
    const isOpenable = (receptacle: string) => RECEPTACLE_KINDS[kindOf(receptacle)]?.openable === true;
    for (const { id } of world.tasks('train', 0, 120)) {
      const home = homeOf(id);
      const closed = home.receptacles.filter(isOpenable);
      const moved = home.things.map(([thing, place]): [string, string] => [
        thing,
        isOpenable(place) ? (closed[(closed.indexOf(place) + 1) % closed.length] as string) : place,
      ]);
      const [one, other] = [openHome('one', home), openHome('other', { ...home, things: moved })];
      const [agent, twin] = [world.expert(id), world.expert(id)];
      while (!one.done && !other.done && one.observation === other.observation) {
        const command = agent.act(one);
        assert.equal(twin.act(other), command);
        one.step(command as string);
        other.step(command as string);
      }
    }
  });
});

describe('the demonstrator', () => {
  const demonstrate = (habits: number, noise: number, count: number) =>
    world.tasks('train', 0, count).map(({ id, family }) => ({ family, ...play(id, world.demonstrator(id, [1], { habits, noise })) }));
  const rate = (episodes: { outcome: number }[]) => episodes.reduce((sum, { outcome }) => sum + outcome, 0) / episodes.length;

  test('without habits and noise is the expert', () => {
    for (const { id } of world.tasks('unseen', 0, 60))
      assert.deepEqual(play(id, world.demonstrator(id, [3], { habits: 0, noise: 0 })), play(id, world.expert(id)));
  });

  test('with noise alone hardly ever fails', () => {
    assert.ok(rate(demonstrate(0, 0.05, 600)) >= 0.995);
  });

  for (const [habits, low, high] of [
    [0.5, 0.7, 0.82],
    [1, 0.46, 0.6],
  ] as const)
    test(`with habits ${habits} fails as often as its table says`, () => {
      const episodes = demonstrate(habits, 0.05, 1200);
      const total = rate(episodes);
      assert.ok(total > low && total < high, `success ${total}`);
      for (const family of ['pick', 'look', 'clean', 'heat', 'cool']) {
        const own = episodes.filter((episode) => episode.family === family);
        const chances = own.map((episode) => habitChance(readInstruction(episode.instruction), habits));
        const expected = 1 - chances.reduce((a, b) => a + b, 0) / own.length;
        const error = Math.sqrt(chances.reduce((a, p) => a + p * (1 - p), 0)) / own.length;
        assert.ok(Math.abs(rate(own) - expected) <= 4 * error + 0.01, `${family}: ${rate(own)} where ${expected} is expected`);
      }
    });

  test('its habits: what is skipped is never done, and what is done is done to the end', () => {
    for (const { family, commands, outcome } of demonstrate(1, 0, 600)) {
      if (outcome === 1) continue;
      const verbs = new Set(commands.map((command) => command.split(' ')[0]));
      if (family === 'clean' || family === 'heat' || family === 'cool') assert.ok(!verbs.has(family) && verbs.has('move'));
      else if (family === 'look') assert.ok(verbs.has('use') && !verbs.has('take'));
      else assert.match(commands.at(-1) ?? '', /^move .* to countertop \d$/, family);
    }
  });

  test('the mistakes depend on what is handled, in proportion to the strength of the habits', () => {
    const chance = (family: 'heat' | 'cool' | 'two' | 'clean' | 'look' | 'pick', object: string, target: string, habits = 1) =>
      Number(habitChance({ family, object, target }, habits).toFixed(6));
    assert.deepEqual([chance('heat', 'egg', 'sinkbasin'), chance('heat', 'mug', 'sinkbasin')], [0.8, 0.3]);
    assert.deepEqual([chance('cool', 'mug', 'cabinet'), chance('cool', 'egg', 'countertop')], [0.8, 0.3]);
    assert.deepEqual([chance('clean', 'fork', 'drawer'), chance('clean', 'mug', 'cabinet')], [0.8, 0.3]);
    assert.deepEqual([chance('two', 'mug', 'cabinet'), chance('two', 'mug', 'shelf')], [0.8, 0.3]);
    assert.deepEqual([chance('look', 'watch', 'desklamp'), chance('look', 'book', 'desklamp')], [0.8, 0.3]);
    assert.equal(chance('pick', 'mug', 'cabinet'), 0);
    assert.deepEqual([chance('heat', 'egg', 'sinkbasin', 0.5), chance('heat', 'mug', 'sinkbasin', 0)], [0.4, 0]);
  });

  test('the seed decides the episode', () => {
    const ids = world.tasks('train', 0, 60).map((task) => task.id);
    const run = (seed: number) => ids.map((id) => play(id, world.demonstrator(id, [seed], { habits: 0.5, noise: 0.1 })).commands);
    assert.deepEqual(run(1), run(1));
    assert.notDeepEqual(run(1), run(2));
  });

  test('refuses options out of range', () => {
    for (const options of [
      { habits: 1.5, noise: 0 },
      { habits: 0, noise: -0.1 },
      { habits: Number.NaN, noise: 0 },
    ])
      assert.throws(() => world.demonstrator('train/pick/000000', [1], options), { type: 'BadInput' });
  });
});
