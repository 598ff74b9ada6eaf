/**
 * The rules and the words of the household, on homes built by hand. Expected texts are written out; the rules behind them are ALFWorld's (one thing is
 * carried at a time, closed doors hide and block, appliances need no open door, both of two things go into the same receptacle).
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Goal } from '../../environments/household/families.ts';
import { openHome } from '../../environments/household/world.ts';

const RECEPTACLES = ['cabinet 2', 'countertop 1', 'desk 1', 'drawer 3', 'fridge 1', 'microwave 4', 'sinkbasin 1'];

const home = (goal: Goal, things: [string, string][]) =>
  openHome('hand-built', { receptacles: RECEPTACLES, things: [...things, ['desklamp 2', 'desk 1']], goal });

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
        ['fork 1', 'drawer 3'],
        ['mug 3', 'drawer 3'],
      ],
      'Put a mug in the cabinet.',
      [
        ['go to drawer 3', 'You arrive at drawer 3. The drawer 3 is closed.'],
        ['open drawer 3', 'You open the drawer 3. The drawer 3 is open. In it, you see a fork 1, and a mug 3.'],
        ['take mug 3 from drawer 3', 'You pick up the mug 3 from the drawer 3.'],
        ['inventory', 'You are carrying: a mug 3.'],
        ['examine mug 3', 'There is nothing special about the mug 3.'],
        ['look', 'You are facing the drawer 3. The drawer 3 is open. In it, you see a fork 1.'],
        ['close drawer 3', 'You close the drawer 3.'],
        ['go to cabinet 2', 'You arrive at cabinet 2. The cabinet 2 is closed.'],
        ['open cabinet 2', 'You open the cabinet 2. The cabinet 2 is open. In it, you see nothing.'],
        ['move mug 3 to cabinet 2', 'You move the mug 3 to the cabinet 2.'],
      ],
    );
  });

  test('look: the thing must be held where the lit lamp stands; a lamp lit before counts', () => {
    plays({ family: 'look', object: 'book', target: 'desklamp' }, [['book 1', 'countertop 1']], 'Examine a book under the desklamp.', [
      ['go to desk 1', 'You arrive at desk 1. On the desk 1, you see a desklamp 2.'],
      ['use desklamp 2', 'You turn on the desklamp 2.'],
      ['go to countertop 1', 'You arrive at countertop 1. On the countertop 1, you see a book 1.'],
      ['take book 1 from countertop 1', 'You pick up the book 1 from the countertop 1.'],
      ['go to desk 1', 'You arrive at desk 1. On the desk 1, you see a desklamp 2.'],
    ]);
  });

  test('clean: a dirty one in the target does not count; the sink need not be opened', () => {
    plays(
      { family: 'clean', object: 'plate', target: 'countertop' },
      [['plate 1', 'sinkbasin 1']],
      'Put a clean plate on the countertop.',
      [
        ['go to sinkbasin 1', 'You arrive at sinkbasin 1. On the sinkbasin 1, you see a plate 1.'],
        ['take plate 1 from sinkbasin 1', 'You pick up the plate 1 from the sinkbasin 1.'],
        ['go to countertop 1', 'You arrive at countertop 1. On the countertop 1, you see nothing.'],
        ['move plate 1 to countertop 1', 'You move the plate 1 to the countertop 1.'],
        ['take plate 1 from countertop 1', 'You pick up the plate 1 from the countertop 1.'],
        ['go to sinkbasin 1', 'You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing.'],
        ['clean plate 1 with sinkbasin 1', 'You clean the plate 1 using the sinkbasin 1.'],
        ['examine plate 1', 'This is a clean plate 1.'],
        ['go to countertop 1', 'You arrive at countertop 1. On the countertop 1, you see nothing.'],
        ['move plate 1 to countertop 1', 'You move the plate 1 to the countertop 1.'],
      ],
    );
  });

  test('heat: cooling undoes it, and both leave it clean', () => {
    plays({ family: 'heat', object: 'egg', target: 'sinkbasin' }, [['egg 4', 'countertop 1']], 'Put a hot egg in the sinkbasin.', [
      ['go to countertop 1', 'You arrive at countertop 1. On the countertop 1, you see a egg 4.'],
      ['take egg 4 from countertop 1', 'You pick up the egg 4 from the countertop 1.'],
      ['go to microwave 4', 'You arrive at microwave 4. The microwave 4 is closed.'],
      ['heat egg 4 with microwave 4', 'You heat the egg 4 using the microwave 4.'],
      ['examine egg 4', 'This is a hot egg 4.'],
      ['go to fridge 1', 'You arrive at fridge 1. The fridge 1 is closed.'],
      ['cool egg 4 with fridge 1', 'You cool the egg 4 using the fridge 1.'],
      ['examine egg 4', 'This is a cool egg 4.'],
      ['go to sinkbasin 1', 'You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing.'],
      ['clean egg 4 with sinkbasin 1', 'You clean the egg 4 using the sinkbasin 1.'],
      ['examine egg 4', 'This is a cool and clean egg 4.'],
      ['move egg 4 to sinkbasin 1', 'You move the egg 4 to the sinkbasin 1.'],
      ['take egg 4 from sinkbasin 1', 'You pick up the egg 4 from the sinkbasin 1.'],
      ['go to microwave 4', 'You arrive at microwave 4. The microwave 4 is closed.'],
      ['heat egg 4 with microwave 4', 'You heat the egg 4 using the microwave 4.'],
      ['examine egg 4', 'This is a hot and clean egg 4.'],
      ['go to sinkbasin 1', 'You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing.'],
      ['move egg 4 to sinkbasin 1', 'You move the egg 4 to the sinkbasin 1.'],
    ]);
  });

  test('cool', () => {
    plays({ family: 'cool', object: 'pan', target: 'countertop' }, [['pan 1', 'fridge 1']], 'Put a cool pan on the countertop.', [
      ['go to fridge 1', 'You arrive at fridge 1. The fridge 1 is closed.'],
      ['open fridge 1', 'You open the fridge 1. The fridge 1 is open. In it, you see a pan 1.'],
      ['take pan 1 from fridge 1', 'You pick up the pan 1 from the fridge 1.'],
      ['cool pan 1 with fridge 1', 'You cool the pan 1 using the fridge 1.'],
      ['go to countertop 1', 'You arrive at countertop 1. On the countertop 1, you see nothing.'],
      ['move pan 1 to countertop 1', 'You move the pan 1 to the countertop 1.'],
    ]);
  });

  test('two: one is not enough', () => {
    plays(
      { family: 'two', object: 'knife', target: 'countertop' },
      [
        ['knife 1', 'desk 1'],
        ['knife 3', 'desk 1'],
        ['knife 4', 'sinkbasin 1'],
      ],
      'Put two knives on the countertop.',
      [
        ['go to desk 1', 'You arrive at desk 1. On the desk 1, you see a knife 1, a knife 3, and a desklamp 2.'],
        ['take knife 3 from desk 1', 'You pick up the knife 3 from the desk 1.'],
        ['go to countertop 1', 'You arrive at countertop 1. On the countertop 1, you see nothing.'],
        ['move knife 3 to countertop 1', 'You move the knife 3 to the countertop 1.'],
        ['go to desk 1', 'You arrive at desk 1. On the desk 1, you see a knife 1, and a desklamp 2.'],
        ['take knife 1 from desk 1', 'You pick up the knife 1 from the desk 1.'],
        ['go to countertop 1', 'You arrive at countertop 1. On the countertop 1, you see a knife 3.'],
        ['move knife 1 to countertop 1', 'You move the knife 1 to the countertop 1.'],
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
      ['mug 3', 'drawer 3'],
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
      'You are in the middle of a room. Around you, you see a cabinet 2, a countertop 1, a desk 1, a drawer 3, a fridge 1, a microwave 4, and a sinkbasin 1.\n\n' +
        'Your task is to: put a mug in the cabinet.',
    );
  });

  test('the admissible commands, in full', () => {
    assert.deepEqual(kitchen().admissible, [...goTo(), 'inventory', 'look']);
    // A closed door: what is behind it can neither be taken nor added to; going where one is does not exist.
    assert.deepEqual(after('go to drawer 3').admissible, [...goTo('drawer 3'), 'inventory', 'look', 'open drawer 3']);
    assert.deepEqual(after('go to drawer 3', 'open drawer 3').admissible, [
      'close drawer 3',
      ...goTo('drawer 3'),
      'inventory',
      'look',
      'take mug 3 from drawer 3',
    ]);
    // Full hands: the mug stays where it is; the lamp can be used but never taken.
    assert.deepEqual(after('go to countertop 1', 'take apple 1 from countertop 1', 'go to desk 1').admissible, [
      'examine apple 1',
      ...goTo('desk 1'),
      'inventory',
      'look',
      'move apple 1 to desk 1',
      'use desklamp 2',
    ]);
    // The closed microwave heats, but nothing can be put into it.
    assert.deepEqual(after('go to countertop 1', 'take apple 1 from countertop 1', 'go to microwave 4').admissible, [
      'examine apple 1',
      ...goTo('microwave 4'),
      'heat apple 1 with microwave 4',
      'inventory',
      'look',
      'open microwave 4',
    ]);
  });

  test('an inadmissible command costs a turn and changes nothing else', () => {
    const environment = after('go to countertop 1');
    const { admissible, stateDigest } = environment;
    for (const command of ['go to countertop 1', 'take mug 3 from drawer 3', 'LOOK', '', 'fly to the moon']) {
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
