/** `ratchet play`, driven through standard input on real games. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
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
