/** `ratchet games check` on folders with good and bad games, and `ratchet env serve --games` on one. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { checkGame } from '../../environments/household/game-check.ts';
import { indexGames } from '../../environments/household/game-index.ts';
import { gameFileOf } from '../../environments/household/game-writer.ts';
import { homeOf } from '../../environments/household/generator.ts';
import { tasksOfFolder } from '../../environments/serve/tasks.ts';
import { OpenEnvClient, post, serve, servers } from '../environments/serve/client.ts';
import { belfries, bellGame, writeGames } from '../environments/small-games.ts';
import { ratchet } from './cli.ts';

const home = mkdtempSync(join(tmpdir(), 'ratchet-test-games-'));
const env = { RATCHET_CACHE: join(home, 'cache') };
after(async () => {
  await Promise.all(servers.map((server) => server.close()));
  rmSync(home, { recursive: true, force: true });
});

test('a folder of good games: every game is played through; a bad split is bad input', async () => {
  const folder = belfries(join(home, 'good'), { train: 6, valid_unseen: 2 });
  writeGames(folder, { 'json_2.1.1/train/pick_and_place_simple-AppleSliced-None-Tower-1/trial_1/game.tw-pddl': bellGame(99) });
  const [all, split, wrong] = await Promise.all([
    ratchet(['games', 'check', folder], { env }),
    ratchet(['games', 'check', folder, '--split', 'valid_unseen', '--json'], { env }),
    ratchet(['games', 'check', folder, '--split', 'valid_unsen'], { env }),
  ]);
  assert.equal(all.code, 0, all.err);
  assert.match(all.out, /^8 games: 8 solved, 0 solvable, 0 unsolvable, 0 undecided, 0 broken\nturns to solve: 2 to 2, median 2\n/);
  assert.match(all.out, /1 file not among the games: left out by ALFWorld\n  .*AppleSliced/);
  const { games } = JSON.parse(split.out) as { games: { id: string; verdict: string; turns: number }[] };
  assert.deepEqual(
    games.map(({ verdict, turns }) => [verdict, turns]),
    [
      ['solved', 2],
      ['solved', 2],
    ],
  );
  assert.equal(wrong.code, 2);
  assert.match(wrong.err, /did you mean valid_unseen\? The folder has train, valid_unseen/);
});

/** Each bell takes a rope and there is one, which the delete relaxation does not see: only search tells that two bells are never rung. */
const ONE_ROPE = {
  pddl_domain: `(define (domain belfry)
    (:requirements :typing)
    (:types bell rope - object)
    (:predicates (hangs ?b - bell) (rung ?b - bell) (whole ?r - rope))
    (:action Ring :parameters (?b - bell ?r - rope) :precondition (and (hangs ?b) (whole ?r)) :effect (and (rung ?b) (not (whole ?r))))
    (:action Muffle :parameters (?b - bell) :precondition (rung ?b) :effect (not (rung ?b))))`,
  pddl_problem: `(define (problem p) (:domain belfry) (:objects bell_bar_0 bell_bar_1 - bell rope_bar_0 - rope)
    (:init (hangs bell_bar_0) (hangs bell_bar_1) (whole rope_bar_0)) (:goal (and (rung bell_bar_0) (rung bell_bar_1))))`,
  walkthrough: null,
};

const BELLS = Array.from({ length: 28 }, (_, i) => `bell_bar_${i}`);
/** Loads, and explodes as soon as a bell was rung: muffling it would have 28^3 effects. */
const EXPLODES = {
  ...ONE_ROPE,
  pddl_domain: ONE_ROPE.pddl_domain.replace(
    '(not (rung ?b)))',
    '(and (not (rung ?b)) (forall (?x ?y ?z - bell) (when (and (rung ?x) (rung ?y)) (not (rung ?z))))))',
  ),
  pddl_problem: `(define (problem p) (:domain belfry) (:objects ${BELLS.join(' ')} - bell rope_bar_0 - rope)
    (:init ${BELLS.map((bell) => `(hangs ${bell})`).join(' ')} (whole rope_bar_0)) (:goal (and (rung bell_bar_0) (rung bell_bar_1))))`,
};

test('bad games are named, each with its reason, and the exit code is 1', async () => {
  const household = gameFileOf(homeOf('train/heat/000003'));
  const folder = writeGames(join(home, 'bad'), {
    'good/game.tw-pddl': bellGame(0),
    'no-walkthrough/game.tw-pddl': bellGame(1, { walkthrough: null }),
    'idle-turn/game.tw-pddl': bellGame(2, { walkthrough: ['help', 'ring bell 3', 'ring bell 2'] }),
    'one-rope/game.tw-pddl': bellGame(9, ONE_ROPE),
    'explodes/game.tw-pddl': bellGame(10, EXPLODES),
    'household/game.tw-pddl': JSON.stringify({ ...household, walkthrough: ['look'] }),
    'too-short/game.tw-pddl': bellGame(3, { walkthrough: ['ring bell 3'] }),
    'wrong-words/game.tw-pddl': bellGame(4, { walkthrough: ['ring bell 3', 'strike bell 2'] }),
    'no-domain/game.tw-pddl': bellGame(5, { pddl_domain: '(define (domain' }),
    'no-goal/game.tw-pddl': bellGame(6, {
      pddl_problem: '(define (problem p) (:domain belfry) (:objects b - bell) (:init) (:goal (rung b)))',
    }),
    'unsolvable/game.tw-pddl': bellGame(7, { solvable: false }),
    'broken/game.tw-pddl': bellGame(8).slice(0, 500),
  });
  const [text, json] = await Promise.all([
    ratchet(['games', 'check', folder], { env }),
    ratchet(['games', 'check', folder, '--json'], { env }),
  ]);
  assert.deepEqual([text.code, json.code], [1, 1]);
  assert.match(text.err, /^ratchet: 6 games of .* no good; the first is explodes: /);
  assert.doesNotMatch(text.err, /\n\s+at /);
  const { games, problems } = JSON.parse(json.out) as {
    games: { id: string; verdict: string; turns: number | null; detail: string | null }[];
    problems: { path: string; kind: string }[];
  };
  assert.deepEqual(Object.fromEntries(games.map(({ id, verdict }) => [id, verdict])), {
    good: 'solved',
    'no-walkthrough': 'solvable',
    'idle-turn': 'solved',
    'too-short': 'solvable',
    'wrong-words': 'solvable',
    household: 'solvable',
    'one-rope': 'unsolvable',
    explodes: 'broken',
    'no-domain': 'broken',
    'no-goal': 'broken',
  });
  const turnsOf = Object.fromEntries(games.map(({ id, turns }) => [id, turns]));
  assert.deepEqual([turnsOf['no-walkthrough'], turnsOf['too-short'], turnsOf['one-rope']], [2, 2, null], 'two bells are to be rung');
  assert.equal(turnsOf['household'], household.walkthrough.length, "the generator's walkthroughs are shortest solutions");
  assert.match(text.out, /\nsolvable: household: its walkthrough of 1 turns does not solve it\n/);
  assert.match(text.out, /\nunsolvable: one-rope: it has no walkthrough, and no commands of at most 50 turns solve it\n/);
  const detailOf = (id: string): string => games.find((game) => game.id === id)?.detail ?? '';
  assert.match(detailOf('too-short'), /its walkthrough of 1 turns does not solve it/);
  assert.match(detailOf('wrong-words'), /turn 2 of its walkthrough, "strike bell 2", is not admissible/);
  assert.match(detailOf('explodes'), /effects range over more than/);
  assert.match(detailOf('no-goal'), /goal/);
  assert.deepEqual(
    problems.map(({ path, kind }) => [path.split('/')[0], kind]),
    [
      ['broken', 'broken'],
      ['unsolvable', 'unsolvable'],
    ],
  );
  const none = await ratchet(['games', 'check', join(home, 'nowhere')], { env });
  assert.equal(none.code, 2);
});

test('a game that outgrows the bound of the search is undecided, and says so', () => {
  const folder = writeGames(join(home, 'large'), { 'game.tw-pddl': bellGame(0, { bells: 8, wanted: 8, walkthrough: null }) });
  const [game] = indexGames(folder, { cacheFolder: null }).games;
  assert.ok(game);
  // Eight bells have 256 states; the last one solves the game.
  assert.deepEqual([checkGame(game).verdict, checkGame(game).turns], ['solvable', 8]);
  const { verdict, detail } = checkGame(game, { mostStates: 100 });
  assert.equal(verdict, 'undecided');
  assert.match(detail ?? '', /no plan among 100 states/);
});

test("a served folder has the folder's splits, and each game plays as its file says", async () => {
  const folder = belfries(join(home, 'served'), { train: 4, valid_seen: 2 });
  const index = indexGames(folder, { cacheFolder: null });
  const { url } = await serve({}, tasksOfFolder(index));
  const [first] = index.games.filter(({ split }) => split === 'valid_seen');
  assert.ok(first);
  assert.deepEqual((await post(`${url}/household/num_tasks`, { split: 'train' })).json, { num_tasks: 4 });
  const client = await OpenEnvClient.connect(url);
  const start = await client.reset({ split: 'valid_seen', index: 0 });
  assert.deepEqual(start.data.observation?.['task'], { id: first.id, split: 'valid_seen', index: 0, sha256: first.sha256 });
  assert.equal(start.data.observation?.['text'], '-= A belfry =-\n\nYou see bell 3, bell 2, and bell 1.\n\nYour task is to: ring 2 bells.');
  assert.deepEqual(start.data.observation?.['admissible_commands'], ['ring bell 1', 'ring bell 2', 'ring bell 3']);
  assert.equal((await client.step('ring bell 3')).data.reward, 0);
  const end = await client.step('ring bell 2');
  assert.deepEqual([end.data.reward, end.data.done, end.data.observation?.['won']], [1, true, true]);

  // A file that changed under the server is no longer the task that it names; the session goes on.
  writeGames(folder, { [`json_2.1.1/${index.games[0]?.id}/game.tw-pddl`]: bellGame(50) });
  const changed = await client.reset({ split: 'train', index: 0 });
  assert.equal(changed.data.code, 'EXECUTION_ERROR');
  assert.match(changed.data.message ?? '', /has changed/);
  assert.equal((await client.reset({ split: 'train', index: 1 })).type, 'observation');
  await client.close();
});
