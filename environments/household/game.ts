/**
 * One game, shared by all who play it: what can be done in a state, what that leads to, and the words for it. States are byte arrays that nobody
 * changes. It knows rules and words only from the domain and the grammar it is given.
 */
import { RatchetError } from '../../core/errors.ts';
import { ActionFinder, planOperators } from './actions.ts';
import type { Action, OperatorPlan } from './actions.ts';
import { Grammar, Texts } from './grammar.ts';
import type { GrammarText, Slots } from './grammar.ts';
import { changingPredicates, Grounding, holds } from './ground.ts';
import type { Condition, Problem } from './ground.ts';
import { readDomain } from './pddl.ts';
import type { Domain, Operator } from './pddl.ts';

/** A domain with its words, ready to be played over many problems. */
export class Rules {
  readonly domain: Domain;
  readonly grammar: Grammar;
  /** Predicates that some action changes. */
  readonly changing: ReadonlySet<string>;
  readonly plans: readonly OperatorPlan[];
  /** Where the grammar expects each operator's arguments. */
  readonly slotsOf: ReadonlyMap<string, number[]>;

  constructor(domainText: string, grammarText: GrammarText) {
    this.domain = readDomain(domainText);
    this.grammar = new Grammar(grammarText);
    this.changing = changingPredicates(this.domain);
    this.plans = planOperators(this.domain);
    this.slotsOf = new Map(this.domain.operators.map((o) => [o.name, o.parameters.map((p) => this.grammar.slot(p.name))]));
  }
}

export class Game {
  readonly id: string;
  readonly instruction: string;
  readonly introduction: string;
  /** The state at the start: one byte, 0 or 1, for every atom that can change. */
  readonly start: Uint8Array;
  readonly #rules: Rules;
  readonly #texts: Texts;
  readonly #goal: Condition;
  readonly #actions: ActionFinder;

  constructor(rules: Rules, id: string, problem: Problem, nameOf: (entityId: string) => string, instruction: string) {
    this.id = id;
    this.instruction = instruction;
    this.#rules = rules;
    const grounding = new Grounding(rules.domain, rules.changing, problem);
    this.start = grounding.initial.slice(0, grounding.fluents);
    this.#goal = grounding.condition(problem.goal, new Map());
    const texts = (this.#texts = new Texts(grounding, grounding.ids.map(nameOf)));
    this.#actions = new ActionFinder(grounding, rules.plans, (operator, values) =>
      rules.grammar.command(operator.name, texts, this.#bound(operator, values)),
    );
    const look = this.applicable(this.start).find((action) => action.command === 'look');
    if (look === undefined) throw new RatchetError('BadInput', `game ${id}: one cannot look at the start`);
    const task = instruction.charAt(0).toLowerCase() + instruction.slice(1);
    this.introduction = `${this.feedback(look, this.start)}\n\nYour task is to: ${task}`;
  }

  /** The actions that can be taken, sorted by command; where several have one command, one of them. */
  applicable(state: Uint8Array): Action[] {
    const found = this.#actions.find(state).sort((a, b) => (a.command < b.command ? -1 : a.command > b.command ? 1 : 0));
    return found.filter((action, i) => action.command !== found[i - 1]?.command);
  }

  /** The state after the action. */
  apply(action: Action, state: Uint8Array): Uint8Array {
    const next = state.slice();
    for (const effect of action.effects)
      if (effect.condition === null || holds(effect.condition, state)) next[effect.atom] = effect.becomes;
    return next;
  }

  /** What is said after the action; `state` is the one that it led to. */
  feedback(action: Action, state: Uint8Array): string {
    return this.#rules.grammar.feedback(action.operator.name, this.#texts, state, this.#bound(action.operator, action.arguments));
  }

  solved(state: Uint8Array): boolean {
    return holds(this.#goal, state);
  }

  #bound(operator: Operator, values: Int32Array): Slots {
    const slots = this.#rules.grammar.unbound();
    const slotsOf = this.#rules.slotsOf.get(operator.name) as number[];
    for (let i = 0; i < values.length; i++) slots[slotsOf[i] as number] = values[i] as number;
    return slots;
  }
}
