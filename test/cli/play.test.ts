/** `ratchet play`, driven through standard input on real games. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { worldNamed } from '../../environments/registry.ts';
import { ratchet } from './cli.ts';

test('the commands of the expert, typed by hand, solve the game', async () => {
  const world = worldNamed('household');
  const [task] = world.tasks('unseen', 2, 1);
  assert.ok(task);
  const game = world.open(task.id);
  const expert = world.expert(task.id);
  const commands: string[] = [];
  while (!game.done) {
    const command = expert.act(game);
    assert.ok(command !== null, 'the expert does not give up on this game');
    // Every other one by its number, as a person would.
    commands.push(commands.length % 2 === 0 ? command : String(game.admissible.indexOf(command) + 1));
    game.step(command);
  }
  assert.equal(game.outcome, 1);
  const { code, out } = await ratchet(['play', '--task', task.id], { input: `${commands.join('\n')}\n` });
  assert.equal(code, 0);
  assert.ok(out.includes(`Task: ${game.instruction}`));
  assert.ok(out.endsWith(`Solved in ${game.turn} turns.\n`), out.slice(-200));
});

test('a wrong command uses no turn and is answered with the nearest possible one; the end of the input ends politely', async () => {
  const { code, out, err } = await ratchet(['play', '--family', 'clean'], { input: 'inventry\n999\n?\n' });
  assert.equal(code, 0);
  assert.equal(err, '');
  assert.match(out, /Not possible now: inventry\. Did you mean: inventory\? \(no turn was used\)/);
  assert.match(out, /There is no command number 999/);
  assert.match(out, /You left after 0 turns; the task was: .*clean/i);
});

test('undo takes turns back, history says what was done, and hints solve the game', async () => {
  const world = worldNamed('household');
  const [task] = world.tasks('unseen', 1, 1);
  assert.ok(task);
  const { out, code } = await ratchet(['play', '--game', task.id], { input: 'undo\nhistory\nlook\nhistory\nundo\nhistory\nhint\n' });
  assert.equal(code, 0);
  assert.match(out, /no turn to take back[^]*Nothing was done yet[^]*1 {2}look[^]*Taken back: look[^]*Nothing was done yet/);
  assert.match(out, /Hint: [a-z]+ .* \(then \d+ more turns?\)/);
  assert.match(out, /You left after 0 turns/);
});

/** The workshop as a game file: a game of our own, which the tests of the engine describe. */
function workshop(): string {
  const text = (name: string) => readFileSync(join(import.meta.dirname, '..', 'environments', 'fixtures', 'workshop', name), 'utf8');
  const path = join(mkdtempSync(join(tmpdir(), 'ratchet-test-play-')), 'game.tw-pddl');
  writeFileSync(
    path,
    JSON.stringify({ pddl_domain: text('domain.pddl'), grammar: text('words.twl2'), pddl_problem: text('problem.pddl') }),
  );
  return path;
}

test('a person plays a game file; one that cannot be loaded says why and ends with code 2', async () => {
  const game = workshop();
  const { out, code } = await ratchet(['play', '--game', game], { input: 'go to shelf 1\nquit\n' });
  assert.equal(code, 0);
  assert.match(out, /Task: put a sharp tool away[^]*You walk up to shelf 1\. On shelf 1: a lamp 1, a saw 2[^]*You left after 1 turn;/);
  for (const [path, why] of [
    ['nowhere.tw-pddl', 'no task has this id, and the file cannot be read (ENOENT)'],
    ['some/folder/trial_1', 'no task has this id, and the file cannot be read (ENOENT)'],
    [import.meta.dirname, 'it is a folder; name a game file in it (.../game.tw-pddl)'],
    [dirname(game), `it is a folder; name a game file in it (${game})`],
  ] as const) {
    const { code, err } = await ratchet(['play', '--game', path]);
    assert.equal(code, 2);
    assert.equal(err, `ratchet: --game: ${JSON.stringify(path)} is not valid; ${why}\n`);
  }
});

test('programs play a game file line by line: snapshots are JSON, and a wrong line is answered and changes nothing', async () => {
  const game = workshop();
  const talk = async (lines: unknown[]) => {
    const input = lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n');
    const { code, out, err } = await ratchet(['play', '--jsonl'], { input: `${input}\n` });
    assert.deepEqual({ code, err }, { code: 0, err: '' });
    return out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  };
  const replies = await talk([
    { command: 'look' },
    { game },
    'go to shelf 1',
    '[1]',
    { game: `${game}.gone` },
    { command: 7 },
    { restore: { game: 'x' } },
    { command: ' go to shelf 1\t' },
    { snapshot: true },
    { command: 'take saw 2 from shelf 1' },
    { command: 'fly' },
  ]);
  assert.equal(replies.length, 11);
  for (const [i, error] of [
    [0, /start one with/],
    [2, /not JSON/],
    [3, /a JSON object/],
    [4, /cannot be read \(ENOENT\)/],
    [5, /a text is expected/],
    [6, /a snapshot of the game/],
  ] as const)
    assert.match(String(replies[i]?.['error']), error);
  assert.match(String(replies[1]?.['observation']), /^~ The workshop ~/);
  assert.equal(replies[1]?.['won'], false);
  assert.match(String(replies[7]?.['observation']), /^You walk up to shelf 1/);
  assert.deepEqual([replies[7]?.['score'], replies[7]?.['done']], [0, false]);
  assert.match(String(replies[9]?.['observation']), /^You take the saw 2/);
  assert.equal(replies[10]?.['observation'], 'Nothing happens.');
  // Another process goes on from the snapshot.
  const [, restored, look] = await talk([{ game }, { restore: replies[8]?.['snapshot'] }, { command: 'take saw 2 from shelf 1' }]);
  assert.deepEqual(restored, { ok: true });
  assert.deepEqual(look, replies[9]);
});
