/**
 * The engine on a game of our own that steps into every trap of the format (`fixtures/workshop`: the rules say which). What it must say was recorded from
 * TextWorld 1.7.0 with `bench/alfworld/record.py`. Then what must be refused, and laws: a moment comes back whole, and a damaged file never crashes.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { RatchetError } from '../../core/errors.ts';
import { loadGame } from '../../environments/household/engine/game.ts';
import { HouseholdEnvironment } from '../../environments/household/engine/environment.ts';
import { Play } from '../../environments/household/engine/play.ts';
import { readGameFile } from '../../environments/household/game-file.ts';
import type { GameFile } from '../../environments/household/game-file.ts';

const FOLDER = join(import.meta.dirname, 'fixtures', 'workshop');
const textOf = (name: string): string => readFileSync(join(FOLDER, name), 'utf8');
const FILE: GameFile = {
  pddl_domain: textOf('domain.pddl'),
  grammar: textOf('words.twl2'),
  pddl_problem: textOf('problem.pddl'),
  walkthrough: null,
  solvable: null,
};
const load = (changes: Partial<GameFile> = {}, names?: Record<string, string>) =>
  loadGame({ ...FILE, ...changes }, { id: 'workshop', names });
/** The fixture with one text of one part replaced; the text must be there. */
function edited(part: 'pddl_domain' | 'grammar' | 'pddl_problem', from: string, to: string): Partial<GameFile> {
  assert.ok(FILE[part].includes(from), from);
  return { [part]: FILE[part].replace(from, to) };
}
const said = (play: Play) => ({ observation: play.moment.observation, admissible: play.available.commands, won: play.moment.solved });

describe('the workshop', () => {
  test('is played as TextWorld plays it', () => {
    const game = load();
    let play = new Play(game);
    const rows = textOf('transcript.jsonl')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.ok(rows.length > 200 && rows.some((row) => row['won']));
    for (const { type, command, observation, admissible, won } of rows) {
      if (type === 'reset') play = new Play(game);
      else play.step(command as string);
      assert.deepEqual(said(play), { observation, admissible, won }, String(command));
    }
  });

  test('has the task as its instruction, and everything that a fact names as an entity', () => {
    const game = load();
    assert.equal(game.instruction, 'put a sharp tool away');
    assert.deepEqual(
      game.entities.filter(({ id }) => /^(ann|sink|saw|nobody|bolt_bar_10|rusty)/.test(id)),
      [
        { id: 'ann', type: 'person', name: 'ann ' },
        { id: 'bolt_bar_10', type: 'part', name: 'bolt 1' },
        { id: 'rusty', type: 'label', name: 'rusty ' },
        { id: 'saw_bar_1', type: 'blade', name: 'saw 2' },
        { id: 'saw_bar_2', type: 'blade', name: 'saw 1' },
        { id: 'sink_bar_1_bar_sinkbasin', type: 'box', name: 'sinkbasin 1' },
      ],
    );
  });

  test('takes a table of names, which must name every entity', () => {
    const names = Object.fromEntries(load().entities.map(({ id, name }) => [id, name]));
    names['saw_bar_1'] = 'saw 7';
    const play = new Play(load({}, names));
    play.step('go to shelf 1');
    assert.ok(play.available.commands.includes('take saw 7 from shelf 1'));
    delete names['saw_bar_2'];
    assert.throws(() => load({}, names), { type: 'BadInput', message: /names have none for "saw_bar_2"/ });
  });

  test('a command whose words depend on the state is said as the state is', () => {
    const changes = edited(
      'grammar',
      'action peek { template :: "examine {b}"',
      'action peek { template :: "examine {#state# | stands(b:box, s:spot)}"',
    );
    changes.grammar = changes.grammar?.replace(
      '"item":',
      '"state": [{ "condition": "up(b:box)", "rhs": "open {b.name}" }, { "rhs": "{b.name}" }], "item":',
    ) as string;
    const play = new Play(load(changes));
    for (const [command, wanted] of [
      ['go to crate 2', 'examine crate 2'],
      ['open crate 2', 'examine open crate 2'],
      ['sweep', 'examine open crate 2'],
    ] as const) {
      play.step(command);
      assert.ok(play.available.commands.includes(wanted), `${command}: ${play.available.commands.join(', ')}`);
    }
  });
});

describe('what is refused, by name', () => {
  for (const [what, changes, message] of [
    ['a goal that cannot be reached', edited('pddl_problem', '(sharp ?t)', '(tag ?t nowhere)'), /goal can never be reached/],
    [
      'a goal that nothing can change',
      { pddl_problem: FILE.pddl_problem.replace(/\(:goal[^]*$/, '(:goal (lidded Crate_bar__plus_01)))') },
      /true whatever is done/,
    ],
    [
      'forall in a condition',
      edited('pddl_domain', ':precondition (not (busy ?p))', ':precondition (forall (?b - box) (up ?b))'),
      /"\(forall \.\.\.\)" is not known/,
    ],
    [
      'numbers that change',
      edited('pddl_domain', '(increase (total-cost) 1)', '(increase (distance) 1)'),
      /"increase" is known for \(total-cost\) only/,
    ],
    [
      'derived predicates',
      edited('pddl_domain', '(:action survey', '(:derived (up ?b) (dusty ?b)) (:action survey'),
      /":derived" is not known/,
    ],
    ['an unknown predicate', edited('pddl_domain', '(oiled ?t) (not (sharp ?t))', '(greased ?t)'), /"greased" is not declared/],
    ['a wrong number of terms', edited('pddl_domain', '(oiled ?t) (not', '(oiled ?t ?p) (not'), /"oiled" takes 1 terms, not 2/],
    ['a variable that nothing binds', edited('pddl_domain', '(oiled ?t) (not', '(oiled ?x) (not'), /\?x is not bound/],
    ['an object declared twice', edited('pddl_problem', 'nobody - thing', 'nobody ann - thing'), /"ann" is declared twice/],
    ['a fact about nobody', edited('pddl_problem', '(at ann', '(at anna'), /undeclared object "anna"/],
    ['an object of an unknown type', edited('pddl_problem', 'nobody - thing', 'nobody - thingy'), /unknown type "thingy"/],
    [
      'a fact that is true and false',
      edited('pddl_problem', '(not (up Crate_bar__plus_01))', '(not (at ann spot_bar_0))'),
      /true and false/,
    ],
    ['a character outside ASCII', edited('pddl_problem', 'nobody', 'nöbody'), /not ASCII/],
    ['a problem of another domain', edited('pddl_problem', '(:domain workshop)', '(:domain kitchen)'), /for the domain "kitchen"/],
    ['an action without words', edited('grammar', 'action oil {', 'action oils {'), /no words for the action "oil"/],
    ['a rule that is missing', edited('grammar', '"done":', '"finished":'), /no rule "done"/],
    ['a rule that needs itself', edited('grammar', 'Done: {t.name}.', 'Done: #done#'), /"done" needs itself/],
    ['a variable that is not bound in a text', edited('grammar', 'Done: {t.name}.', 'Done: {x.name}.'), /"x" is not bound/],
    ['an expression beyond names and texts', edited('grammar', 'Done: {t.name}.', 'Done: {t.name.upper()}.'), /expression .* is not known/],
    ['a condition that is none', edited('grammar', '"condition": "oiled(t:thing)"', '"condition": "oiled t"'), /is not a condition/],
    ['a type that no domain has, in a text', edited('grammar', 'oiled(t:thing)', 'oiled(t:thingy)'), /type is not declared/],
    ['words that are no grammar', edited('grammar', 'action oil {', 'verb oil {'), /an action or a grammar is expected/],
    ['a block that is not JSON', edited('grammar', '"replaced": [{ "rhs": "never said" }],', '"replaced": [,],'), /not JSON/],
  ] as const)
    test(what, () =>
      assert.throws(
        () => load(changes),
        (error: Error) => error.name === 'BadInput' && message.test(error.message),
      ),
    );

  test('files that are not game files', () => {
    for (const [text, message] of [
      ['{', /not JSON/],
      ['[]', /must be a JSON object/],
      ['{"pddl_domain": ""}', /"grammar" must be a text/],
      [JSON.stringify({ ...FILE, walkthrough: 'look' }), /"walkthrough" must be a list/],
      [JSON.stringify({ ...FILE, solvable: 1 }), /"solvable" must be true, false or null/],
    ] as const)
      assert.throws(() => readGameFile(text, 'x/game.tw-pddl'), { type: 'BadInput', message });
  });

  test('a domain that explodes, within a bounded time', () => {
    const objects = Array.from({ length: 300 }, (_, i) => `o${i}`).join(' ');
    const domain = `(define (domain d) (:predicates (p ?a ?b ?c) (q ?a)) (:action a :parameters (?a ?b ?c) :precondition (q ?a) :effect (p ?a ?b ?c)))`;
    const problem = `(define (problem p) (:domain d) (:objects ${objects}) (:init (q o1) (q o2) (q o3) (q o4) (q o5)) (:goal (p o1 o2 o3)))`;
    assert.throws(() => load({ pddl_domain: domain, pddl_problem: problem }), {
      type: 'BadInput',
      message: /more than 100000 atoms|explodes/,
    });
  });
});

const choices = fc.array(fc.nat(9999), { maxLength: 30 });
const view = (e: HouseholdEnvironment) => ({
  observation: e.observation,
  admissible: e.admissible,
  digest: e.stateDigest,
  turn: e.turn,
  done: e.done,
});

function follow(environment: HouseholdEnvironment, path: readonly number[]): ReturnType<typeof view>[] {
  const out = [view(environment)];
  for (const choice of path) {
    if (environment.done) break;
    environment.step(choice % 12 === 0 ? 'fly' : (environment.admissible[choice % environment.admissible.length] as string));
    out.push(view(environment));
  }
  return out;
}

describe('laws', () => {
  test('a snapshot brings back text, commands, digest and the whole future, into any environment of the game', () => {
    const game = load();
    fc.assert(
      fc.property(choices, choices, choices, (before, elsewhere, after) => {
        const environment = new HouseholdEnvironment(game, { turnCap: 60 });
        follow(environment, before);
        const then = view(environment);
        const snapshot = environment.snapshot();
        follow(environment, elsewhere);
        environment.restore(snapshot);
        assert.deepEqual(view(environment), then);
        const future = follow(environment, after);
        // The same game loaded again lays out its states in another order.
        const other = new HouseholdEnvironment(load(), { turnCap: 60 });
        follow(other, elsewhere);
        other.restore(snapshot);
        assert.deepEqual(follow(other, after), future);
      }),
      { numRuns: 60 },
    );
  });

  test('what can be done is the same, searched anew or only where the last action can have changed it', () => {
    const game = load();
    fc.assert(
      fc.property(choices, (path) => {
        const play = new Play(game);
        for (const choice of path) {
          play.step(play.available.commands[choice % play.available.commands.length] as string);
          assert.deepEqual(play.available.commands, game.available(play.moment.state).commands);
          assert.equal(play.moment.solved, game.solved(play.moment.state));
          const description = game.describe(play.moment.state);
          assert.deepEqual(game.describe(game.stateOf(description)), description);
        }
      }),
      { numRuns: 60 },
    );
  });

  test('equal states have equal digests however reached; what only texts see is part of a state', () => {
    const digestAfter = (...commands: string[]) => {
      const environment = new HouseholdEnvironment(load(), { turnCap: 60 });
      for (const command of commands) environment.step(command);
      return environment.stateDigest;
    };
    assert.equal(digestAfter('go to crate 3', 'open crate 1'), digestAfter('fly', 'go to crate 3', 'open crate 1', 'go to crate 1'));
    assert.equal(digestAfter('inventory', 'go to crate 3', 'look'), digestAfter('help', 'go to crate 3', 'look', 'look'));
    // The bolt is back where it was, but has been taken: looking around tells.
    assert.notEqual(digestAfter('go to crate 3'), digestAfter('go to crate 3', 'take bolt 1 from crate 3', 'move bolt 1 to crate 3'));
  });

  test('a damaged file gives a typed error or a game that can be played, never a crash and never a hang', () => {
    const whole = JSON.stringify(FILE);
    const change = fc.tuple(fc.nat(whole.length - 1), fc.nat(3), fc.constantFrom(...'()?-;:"#{}[]|&,.\\ \nax0é'));
    let [played, refused] = [0, 0];
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 3 }), choices, (changes, path) => {
        let text = whole;
        for (const [at, cut, put] of changes) text = text.slice(0, at) + put + text.slice(at + cut);
        try {
          const play = new Play(loadGame(readGameFile(text, 'damaged'), { id: 'damaged' }));
          for (const choice of path) play.step(play.available.commands[choice % play.available.commands.length] ?? 'look');
          played++;
        } catch (error) {
          assert.ok(error instanceof RatchetError && error.type === 'BadInput', String((error as Error).stack));
          refused++;
        }
      }),
      { numRuns: 300 },
    );
    assert.ok(played > 0 && refused > 0, `${played} played, ${refused} refused`);
  });
});
