/**
 * The rules and the words of the household, on homes built by hand. Expected texts are written out; the rules behind them are ALFWorld's (one thing is
 * carried at a time, closed doors hide and block, appliances need no open door, both of two things go into the same receptacle).
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Goal } from '../../environments/household/families.ts';
import { openHome } from './homes.ts';

const RECEPTACLES = ['cabinet 1', 'countertop 1', 'desk 1', 'drawer 1', 'fridge 1', 'microwave 1', 'sinkbasin 1'];

const home = (goal: Goal, things: [string, string][]) =>
  openHome('hand-built', { receptacles: RECEPTACLES, things: [...things, ['desklamp 1', 'desk 1']], goal });

/** Plays `command -> expected observation` pairs; the outcome must become 1 with the last one and not before. */
function plays(goal: Goal, things: [string, string][], instruction: string, script: [string, string][]): void {
  const environment = home(goal, things);
  assert.equal(environment.instruction, instruction);
  for (const [index, [command, expected]] of script.entries()) {
    assert.equal(environment.outcome, 0, `solved before "${command}"`);
    assert.ok(environment.admissible.includes(command), `"${command}" is not among ${environment.admissible.join(', ')}`);
    environment.step(command);
    assert.equal(environment.observation, expected);
    assert.equal(environment.turn, index + 1);
  }
  assert.equal(environment.outcome, 1);
  assert.equal(environment.done, true);
  assert.deepEqual(environment.admissible, []);
}

describe('the six families', () => {
  test('pick: a closed door hides, is opened once, and the thing counts when it lies in the target', () => {
    plays(
      { family: 'pick', object: 'mug', target: 'cabinet' },
      [
        ['fork 1', 'drawer 1'],
        ['mug 1', 'drawer 1'],
      ],
      'put a mug in the cabinet.',
      [
        ['go to drawer 1', 'You walk to the drawer 1. It is shut.'],
        ['open drawer 1', 'You pull at the drawer 1. It is open. Inside there is a fork 1, and a mug 1.'],
        ['take mug 1 from drawer 1', 'You take the mug 1 out of the drawer 1.'],
        ['inventory', 'In your hands there is a mug 1.'],
        ['examine mug 1', 'The mug 1 looks as usual.'],
        ['look', 'You stand at the drawer 1. It is open. Inside there is a fork 1.'],
        ['close drawer 1', 'You shut the drawer 1.'],
        ['go to cabinet 1', 'You walk to the cabinet 1. It is shut.'],
        ['open cabinet 1', 'You pull at the cabinet 1. It is open. Inside there is nothing.'],
        ['move mug 1 to cabinet 1', 'You leave the mug 1 at the cabinet 1.'],
      ],
    );
  });

  test('look: the thing must be held where the lit lamp stands; a lamp lit before counts', () => {
    plays({ family: 'look', object: 'book', target: 'desklamp' }, [['book 1', 'countertop 1']], 'examine a book under the desklamp.', [
      ['go to desk 1', 'You walk to the desk 1. On it there is a desklamp 1.'],
      ['use desklamp 1', 'You switch the desklamp 1 on.'],
      ['go to countertop 1', 'You walk to the countertop 1. On it there is a book 1.'],
      ['take book 1 from countertop 1', 'You take the book 1 out of the countertop 1.'],
      ['go to desk 1', 'You walk to the desk 1. On it there is a desklamp 1.'],
    ]);
  });

  test('clean: a dirty one in the target does not count; the sink need not be opened', () => {
    plays(
      { family: 'clean', object: 'plate', target: 'countertop' },
      [['plate 1', 'sinkbasin 1']],
      'put a clean plate on the countertop.',
      [
        ['go to sinkbasin 1', 'You walk to the sinkbasin 1. On it there is a plate 1.'],
        ['take plate 1 from sinkbasin 1', 'You take the plate 1 out of the sinkbasin 1.'],
        ['go to countertop 1', 'You walk to the countertop 1. On it there is nothing.'],
        ['move plate 1 to countertop 1', 'You leave the plate 1 at the countertop 1.'],
        ['take plate 1 from countertop 1', 'You take the plate 1 out of the countertop 1.'],
        ['go to sinkbasin 1', 'You walk to the sinkbasin 1. On it there is nothing.'],
        ['clean plate 1 with sinkbasin 1', 'You wash the plate 1 at the sinkbasin 1.'],
        ['examine plate 1', 'The plate 1 is clean.'],
        ['go to countertop 1', 'You walk to the countertop 1. On it there is nothing.'],
        ['move plate 1 to countertop 1', 'You leave the plate 1 at the countertop 1.'],
      ],
    );
  });

  test('heat: cooling undoes it, and both leave it clean', () => {
    plays({ family: 'heat', object: 'egg', target: 'sinkbasin' }, [['egg 1', 'countertop 1']], 'put a hot egg in the sinkbasin.', [
      ['go to countertop 1', 'You walk to the countertop 1. On it there is a egg 1.'],
      ['take egg 1 from countertop 1', 'You take the egg 1 out of the countertop 1.'],
      ['go to microwave 1', 'You walk to the microwave 1. It is shut.'],
      ['heat egg 1 with microwave 1', 'You warm the egg 1 at the microwave 1.'],
      ['examine egg 1', 'The egg 1 is hot.'],
      ['go to fridge 1', 'You walk to the fridge 1. It is shut.'],
      ['cool egg 1 with fridge 1', 'You chill the egg 1 at the fridge 1.'],
      ['examine egg 1', 'The egg 1 is cool.'],
      ['go to sinkbasin 1', 'You walk to the sinkbasin 1. On it there is nothing.'],
      ['clean egg 1 with sinkbasin 1', 'You wash the egg 1 at the sinkbasin 1.'],
      ['examine egg 1', 'The egg 1 is cool and clean.'],
      ['move egg 1 to sinkbasin 1', 'You leave the egg 1 at the sinkbasin 1.'],
      ['take egg 1 from sinkbasin 1', 'You take the egg 1 out of the sinkbasin 1.'],
      ['go to microwave 1', 'You walk to the microwave 1. It is shut.'],
      ['heat egg 1 with microwave 1', 'You warm the egg 1 at the microwave 1.'],
      ['examine egg 1', 'The egg 1 is hot and clean.'],
      ['go to sinkbasin 1', 'You walk to the sinkbasin 1. On it there is nothing.'],
      ['move egg 1 to sinkbasin 1', 'You leave the egg 1 at the sinkbasin 1.'],
    ]);
  });

  test('cool', () => {
    plays({ family: 'cool', object: 'pan', target: 'countertop' }, [['pan 1', 'fridge 1']], 'put a cool pan on the countertop.', [
      ['go to fridge 1', 'You walk to the fridge 1. It is shut.'],
      ['open fridge 1', 'You pull at the fridge 1. It is open. Inside there is a pan 1.'],
      ['take pan 1 from fridge 1', 'You take the pan 1 out of the fridge 1.'],
      ['cool pan 1 with fridge 1', 'You chill the pan 1 at the fridge 1.'],
      ['go to countertop 1', 'You walk to the countertop 1. On it there is nothing.'],
      ['move pan 1 to countertop 1', 'You leave the pan 1 at the countertop 1.'],
    ]);
  });

  test('two: one is not enough', () => {
    plays(
      { family: 'two', object: 'knife', target: 'countertop' },
      [
        ['knife 1', 'desk 1'],
        ['knife 2', 'desk 1'],
        ['knife 3', 'sinkbasin 1'],
      ],
      'put two knives on the countertop.',
      [
        ['go to desk 1', 'You walk to the desk 1. On it there is a desklamp 1, a knife 2, and a knife 1.'],
        ['take knife 2 from desk 1', 'You take the knife 2 out of the desk 1.'],
        ['go to countertop 1', 'You walk to the countertop 1. On it there is nothing.'],
        ['move knife 2 to countertop 1', 'You leave the knife 2 at the countertop 1.'],
        ['go to desk 1', 'You walk to the desk 1. On it there is a desklamp 1, and a knife 1.'],
        ['take knife 1 from desk 1', 'You take the knife 1 out of the desk 1.'],
        ['go to countertop 1', 'You walk to the countertop 1. On it there is a knife 2.'],
        ['move knife 1 to countertop 1', 'You leave the knife 1 at the countertop 1.'],
      ],
    );
  });

  test('two: one in each of two cabinets does not count, as in ALFWorld', () => {
    const environment = openHome('hand-built', {
      receptacles: ['cabinet 1', 'cabinet 2'],
      things: [
        ['cup 1', 'cabinet 1'],
        ['cup 2', 'cabinet 1'],
        ['desklamp 1', 'cabinet 1'],
      ],
      goal: { family: 'two', object: 'cup', target: 'cabinet' },
    });
    assert.equal(environment.outcome, 1);
    const apart = openHome('hand-built', {
      receptacles: ['cabinet 1', 'cabinet 2'],
      things: [
        ['cup 1', 'cabinet 1'],
        ['cup 2', 'cabinet 2'],
        ['desklamp 1', 'cabinet 1'],
      ],
      goal: { family: 'two', object: 'cup', target: 'cabinet' },
    });
    assert.equal(apart.outcome, 0);
  });
});

describe('what can be done', () => {
  const kitchen = () =>
    home({ family: 'pick', object: 'mug', target: 'cabinet' }, [
      ['apple 1', 'countertop 1'],
      ['mug 1', 'drawer 1'],
    ]);
  const after = (...commands: string[]) => {
    const environment = kitchen();
    for (const command of commands) environment.step(command);
    return environment;
  };
  const goTo = (except?: string) => RECEPTACLES.filter((r) => r !== except).map((r) => `go to ${r}`);

  test('the introduction lists the home and the task', () => {
    assert.equal(
      kitchen().observation,
      'Welcome home.\n\nYou stand in the middle of a room. Around you there is a cabinet 1, a countertop 1, a desk 1, a drawer 1, a fridge 1, a microwave 1, and a sinkbasin 1.\n\n' +
        'Your task is to: put a mug in the cabinet.',
    );
  });

  test('the admissible commands, in full', () => {
    assert.deepEqual(kitchen().admissible, [...goTo(), 'inventory', 'look']);
    // A closed door: what is behind it can neither be taken nor added to; going where one is does not exist.
    assert.deepEqual(after('go to drawer 1').admissible, [...goTo('drawer 1'), 'inventory', 'look', 'open drawer 1']);
    assert.deepEqual(after('go to drawer 1', 'open drawer 1').admissible, [
      'close drawer 1',
      ...goTo('drawer 1'),
      'inventory',
      'look',
      'take mug 1 from drawer 1',
    ]);
    // Full hands: the mug stays where it is; the lamp can be used but never taken.
    assert.deepEqual(after('go to countertop 1', 'take apple 1 from countertop 1', 'go to desk 1').admissible, [
      'examine apple 1',
      ...goTo('desk 1'),
      'inventory',
      'look',
      'move apple 1 to desk 1',
      'use desklamp 1',
    ]);
    // The closed microwave heats, but nothing can be put into it.
    assert.deepEqual(after('go to countertop 1', 'take apple 1 from countertop 1', 'go to microwave 1').admissible, [
      'examine apple 1',
      ...goTo('microwave 1'),
      'heat apple 1 with microwave 1',
      'inventory',
      'look',
      'open microwave 1',
    ]);
  });

  test('an inadmissible command costs a turn and changes nothing else', () => {
    const environment = after('go to countertop 1');
    const { admissible, stateDigest } = environment;
    for (const command of ['go to countertop 1', 'take mug 1 from drawer 1', 'LOOK', '', 'fly to the moon']) {
      const { turn } = environment;
      environment.step(command);
      assert.equal(environment.observation, 'Nothing happens.');
      assert.equal(environment.turn, turn + 1);
      assert.equal(environment.stateDigest, stateDigest);
      assert.deepEqual(environment.admissible, admissible);
    }
  });

  test('after 30 turns the episode is done, unsolved, and takes no more commands', () => {
    const environment = kitchen();
    while (!environment.done) environment.step('look');
    assert.equal(environment.turn, 30);
    assert.equal(environment.outcome, 0);
    assert.deepEqual(environment.admissible, []);
    assert.throws(() => environment.step('look'), { type: 'BadInput' });
  });
});
