/** The interpreter on domains that are no household: what PDDL says must happen, and what is refused. Semantics: PDDL 1.2 (McDermott et al., 1998). */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ActionFinder, planOperators } from '../../environments/household/actions.ts';
import { Grammar } from '../../environments/household/grammar.ts';
import { changingPredicates, Grounding, holds } from '../../environments/household/ground.ts';
import { readDomain, readExpressions, readFormula } from '../../environments/household/pddl.ts';

const domainOf = (actions: string) => `(define (domain d) ; a comment (ignored
  (:requirements :typing)
  (:types block table - thing)
  (:predicates (on ?a - block ?b - thing) (clear ?a - thing) (marked ?b - block) (fixed ?b - block) (happened))
  ${actions})`;

function game(actions: string, initial: string[][]) {
  const domain = readDomain(domainOf(actions));
  const entities = [
    { id: 'a', type: 'block' },
    { id: 'b', type: 'block' },
    { id: 't', type: 'table' },
  ];
  const grounding = new Grounding(domain, changingPredicates(domain), { entities, initial, goal: { kind: 'and', parts: [] } });
  const finder = new ActionFinder(grounding, planOperators(domain), (operator, values) =>
    [operator.name, ...[...values].map((v) => grounding.ids[v])].join(' '),
  );
  const start = grounding.initial.slice(0, grounding.fluents);
  const commands = (state: Uint8Array) =>
    finder
      .find(state)
      .map((action) => action.command)
      .sort();
  const after = (state: Uint8Array, command: string) => {
    const action = finder.find(state).find((each) => each.command === command);
    assert.ok(action, `${command} is not possible`);
    const next = state.slice();
    for (const effect of action.effects)
      if (effect.condition === null || holds(effect.condition, state)) next[effect.atom] = effect.becomes;
    return next;
  };
  const isTrue = (formula: string, state: Uint8Array) =>
    holds(grounding.condition(readFormula(readExpressions(formula)[0] ?? []), new Map()), state);
  return { start, commands, after, isTrue };
}

describe('the interpreter', () => {
  const STACK = `(:action stack :parameters (?a - block ?from - thing ?to - thing)
    :precondition (and (on ?a ?from) (clear ?a) (clear ?to) (not (fixed ?a)) (not (= ?a ?to)) (not (= ?from ?to)))
    :effect (and (not (on ?a ?from)) (on ?a ?to) (clear ?from)
      (when (marked ?to) (and (not (marked ?to)) (happened))) (when (on ?a ?to) (marked ?a))))`;
  const initial = [
    ['on', 'a', 't'],
    ['on', 'b', 't'],
    ['clear', 'a'],
    ['clear', 'b'],
    ['clear', 't'],
    ['marked', 'b'],
  ];

  test('preconditions: typed parameters, static and changing atoms, negation, equality', () => {
    assert.deepEqual(game(STACK, initial).commands(game(STACK, initial).start), ['stack a t b', 'stack b t a']);
    const fixed = game(STACK, [...initial, ['fixed', 'a']]);
    assert.deepEqual(fixed.commands(fixed.start), ['stack b t a']);
  });

  test('conditional effects look at the state before the action', () => {
    const { start, after, isTrue } = game(STACK, initial);
    const next = after(start, 'stack a t b');
    assert.ok(isTrue('(and (on a b) (not (on a t)) (happened) (not (marked b)))', next));
    assert.ok(isTrue('(not (marked a))', next), 'a was not on b before');
    assert.ok(isTrue('(on a t)', start), 'the state before is untouched');
  });

  test('an atom that one action both deletes and adds stays true', () => {
    const { start, after, isTrue } = game('(:action blink :parameters () :effect (and (clear a) (not (clear a))))', initial);
    assert.ok(isTrue('(clear a)', after(start, 'blink')));
  });

  test('disjunction, quantifiers, and their negations', () => {
    const { start, isTrue } = game(STACK, initial);
    assert.ok(isTrue('(exists (?x - block) (marked ?x))', start));
    assert.ok(!isTrue('(forall (?x - block) (marked ?x))', start));
    assert.ok(isTrue('(not (forall (?x - block) (marked ?x)))', start));
    assert.ok(isTrue('(forall (?x ?y - block) (or (= ?x ?y) (not (on ?x ?y))))', start));
    assert.ok(!isTrue('(exists (?x - unheard) (= ?x ?x))', start), 'a type without entities');
    assert.ok(!isTrue('(or)', start));
    assert.ok(isTrue('(and)', start));
    assert.ok(!isTrue('(on t a)', start), 'an atom that does not fit its declaration is never true');
  });

  test('a disjunctive precondition', () => {
    const { start, commands } = game(
      '(:action wipe :parameters (?a - block) :precondition (or (marked ?a) (exists (?b - block) (on ?a ?b))) :effect (not (marked ?a)))',
      initial,
    );
    assert.deepEqual(commands(start), ['wipe b']);
  });
});

describe('what is refused, by name', () => {
  for (const [what, actions, message] of [
    ['an unknown predicate', '(:action x :parameters () :precondition (flies) :effect (happened))', /action x: predicate "flies"/],
    ['a wrong number of terms', '(:action x :parameters (?a - block) :effect (on ?a))', /on takes 2 terms, not 1/],
    ['an unknown type of a parameter', '(:action x :parameters (?a - bird) :effect (happened))', /unknown type bird/],
    ['numeric effects', '(:action x :parameters () :effect (increase (cost) 1))', /"increase" is not known in an effect/],
    ['an unknown key of an action', '(:action x :duration 3)', /":duration" is not known/],
    ['an unknown section', '(:functions (cost))', /":functions" is not known/],
    ['an open parenthesis', '(:action x', /never closed/],
    ['a parenthesis too many', ')', /never opened|after the end/],
  ] as const)
    test(what, () =>
      assert.throws(
        () => readDomain(domainOf(actions)),
        (error: Error) => error.name === 'BadInput' && message.test(error.message),
      ),
    );

  test('problems that do not fit the domain', () => {
    for (const initial of [[['on', 'a']], [['on', 't', 'a']], [['on', 'a', 'z']], [['flies', 'a']]])
      assert.throws(() => game('', initial), { type: 'BadInput' }, JSON.stringify(initial));
  });

  test('texts that cannot be read', () => {
    for (const text of ['{o.colour}', '[{o.name}', '{1 + 2}', 'a | b'])
      assert.throws(() => new Grammar({ operators: { x: { command: text, feedback: '' } }, rules: {} }), { type: 'BadInput' }, text);
    assert.throws(() => new Grammar({ operators: {}, rules: { r: [{ condition: 'not a condition', text: '' }] } }), { type: 'BadInput' });
  });
});
