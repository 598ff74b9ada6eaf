/** Laws that hold in every game: a snapshot brings back exactly the state, the same commands give the same words, and tokens tell commands apart. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { HouseholdEnvironment } from '../../environments/household/engine/environment.ts';
import { worldNamed } from '../../environments/registry.ts';

const world = worldNamed('household');
const { codec } = world;
const open = (id: string) => world.open(id) as HouseholdEnvironment;

const taskIds = fc
  .tuple(
    fc.constantFrom('train', 'validation', 'seen', 'unseen'),
    fc.constantFrom('pick', 'look', 'clean', 'heat', 'cool', 'two'),
    fc.nat(5000),
  )
  .map(([role, family, number]) => `${role}/${family}/${String(number).padStart(6, '0')}`);
/** Choices among the admissible commands, by rank; about one in twelve is a command that is not admissible. */
const choices = fc.array(fc.nat(11_999), { maxLength: 29 });

function take(environment: HouseholdEnvironment, choice: number): string {
  const command =
    choice % 12 === 0 ? 'open sesame' : (environment.admissible[Math.floor(choice / 12) % environment.admissible.length] as string);
  environment.step(command);
  return command;
}

const seen = (e: HouseholdEnvironment) => ({
  observation: e.observation,
  admissible: e.admissible,
  digest: e.stateDigest,
  turn: e.turn,
  done: e.done,
  outcome: e.outcome,
});

function follow(environment: HouseholdEnvironment, path: readonly number[]): ReturnType<typeof seen>[] {
  const out = [seen(environment)];
  for (const choice of path) {
    if (environment.done) break;
    take(environment, choice);
    out.push(seen(environment));
  }
  return out;
}

describe('snapshots', () => {
  test('restore brings back text, commands, digest and the whole future, in any game of the task, any number of times', () => {
    fc.assert(
      fc.property(taskIds, choices, choices, choices, (id, before, elsewhere, after) => {
        const environment = open(id);
        follow(environment, before);
        const then = seen(environment);
        const snapshot = environment.snapshot();
        follow(environment, elsewhere);
        environment.restore(snapshot);
        assert.deepEqual(seen(environment), then);
        const future = follow(environment, after);
        const other = open(id);
        for (let again = 0; again < 2; again++) {
          other.restore(snapshot);
          assert.deepEqual(follow(other, after), future);
        }
      }),
      { numRuns: 200 },
    );
  });

  test('a snapshot of another task is refused', () => {
    const snapshot = open('train/pick/000000').snapshot();
    assert.throws(() => open('train/pick/000001').restore(snapshot), { type: 'BadInput' });
  });

  test('equal states have equal digests, however they were reached', () => {
    const environment = open('train/pick/000000');
    const [first, second] = environment.admissible as [string, string];
    environment.step(first);
    environment.step(second);
    const there = environment.stateDigest;
    environment.step(first);
    assert.notEqual(environment.stateDigest, there);
    environment.step(second);
    assert.equal(environment.stateDigest, there);
    assert.notEqual(open('train/pick/000001').stateDigest, open('train/pick/000000').stateDigest);
  });
});

describe('the commands and the codec', () => {
  test('commands are sorted and unique; their tokens are known, and none begins with another', () => {
    fc.assert(
      fc.property(taskIds, choices, (id, path) => {
        for (const { admissible } of follow(open(id), path)) {
          assert.deepEqual(admissible, [...new Set(admissible)].sort());
          const encoded = admissible.map((command) => codec.command(command));
          for (const a of encoded) {
            assert.ok(a.length > 0);
            assert.ok(!a.includes('<unk>'), a.join(' '));
            for (const b of encoded) assert.ok(a === b || a.some((token, i) => token !== b[i]), `${a.join(' ')} begins ${b.join(' ')}`);
          }
        }
      }),
      { numRuns: 100 },
    );
  });

  test('everything that is said has tokens of the vocabulary, without white space, and ends with the decision token', () => {
    const vocabulary = new Set(codec.vocabulary);
    assert.equal(vocabulary.size, codec.vocabulary.length);
    assert.equal(codec.vocabulary[0], '<pad>');
    assert.ok(codec.vocabulary.length >= 450 && codec.vocabulary.length <= 600, `${codec.vocabulary.length} tokens`);
    fc.assert(
      fc.property(taskIds, choices, (id, path) => {
        const environment = open(id);
        const all = codec.start(environment.instruction, environment.observation);
        assert.equal(all.at(-1), '>');
        for (const choice of path) {
          if (environment.done) break;
          const command = take(environment, choice);
          const feedback = codec.feedback(command, environment.observation);
          assert.equal(feedback.at(-1), '>');
          assert.ok(!feedback.includes('<unk>'), environment.observation);
          all.push(...feedback);
        }
        for (const token of all) assert.ok(vocabulary.has(token) && !/\s/.test(token), token);
      }),
      { numRuns: 100 },
    );
  });

  test('the tokens of what is seen are the entities of the text, in order', () => {
    fc.assert(
      fc.property(taskIds, choices, (id, path) => {
        const environment = open(id);
        for (const choice of path) {
          if (environment.done) break;
          const command = take(environment, choice);
          const told = /there is (.*)\.$/.exec(environment.observation)?.[1];
          if (told === undefined) continue;
          const entities = (told.match(/[a-z]+ \d+/g) ?? []).map((name) => name.replace(' ', '_'));
          const expected = entities.length === 0 ? ['empty'] : ['see', ...entities];
          assert.deepEqual(codec.feedback(command, environment.observation), [':', ...expected, '>']);
        }
      }),
      { numRuns: 60 },
    );
  });

  test('the worked example', () => {
    const introduction =
      'You are in the middle of a room. Around you, you see a cabinet 2, and a fridge 1.\n\nYour task is to: put a clean mug in the cabinet.';
    const tokens = [
      ...codec.start('Put a clean mug in the cabinet.', introduction),
      ...codec.command('go to cabinet 2'),
      ...codec.feedback('go to cabinet 2', 'You arrive at cabinet 2. The cabinet 2 is closed.'),
      ...codec.command('open cabinet 2'),
      ...codec.feedback('open cabinet 2', 'You open the cabinet 2. The cabinet 2 is open. In it, you see a mug 1.'),
      ...codec.command('take mug 1 from cabinet 2'),
      ...codec.feedback('take mug 1 from cabinet 2', 'You pick up the mug 1 from the cabinet 2.'),
      ...codec.command('examine mug 1'),
      ...codec.feedback('examine mug 1', 'This is a hot and clean mug 1.'),
      ...codec.command('inventory'),
      ...codec.feedback('inventory', 'You are carrying: a mug 1.'),
      ...codec.command('sing'),
      ...codec.feedback('sing', 'Nothing happens.'),
    ];
    assert.equal(
      tokens.join(' '),
      '<task> clean mug cabinet <home> cabinet_2 fridge_1 > goto cabinet_2 : closed > open cabinet_2 : see mug_1 > take mug_1 cabinet_2 : ok > ' +
        'examine mug_1 : hot clean > inventory : see mug_1 > <unk> : fail >',
    );
    // Somebody's own sentence: known words stay, others are not guessed.
    assert.equal(codec.start('Bring me a clean mug!', introduction).slice(0, 7).join(' '), '<task> <unk> <unk> <unk> clean mug <home>');
  });

  test('an episode of the expert costs 85 to 115 tokens on average, about seven a turn, with about 13 commands to choose from', () => {
    let tokens = 0;
    let turns = 0;
    let commands = 0;
    const tasks = world.tasks('train', 0, 300);
    for (const { id } of tasks) {
      const environment = open(id);
      const agent = world.expert(id);
      tokens += codec.start(environment.instruction, environment.observation).length;
      for (let command = agent.act(environment); !environment.done; command = agent.act(environment)) {
        assert.ok(command !== null);
        commands += environment.admissible.length;
        environment.step(command);
        tokens += codec.command(command).length + codec.feedback(command, environment.observation).length;
        turns++;
      }
    }
    assert.ok(tokens / tasks.length > 85 && tokens / tasks.length < 115, `${tokens / tasks.length} tokens an episode`);
    assert.ok(tokens / turns > 6 && tokens / turns < 8, `${tokens / turns} tokens a turn`);
    assert.ok(commands / turns > 11 && commands / turns < 15, `${commands / turns} commands`);
  });
});
