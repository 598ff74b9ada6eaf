/**
 * A ground game: what can be done in a state, what that leads to, and the words for it. States are byte arrays that nobody changes, so everything
 * may share them. It knows rules and words only from the domain and the grammar it is given.
 */
import { RatchetError } from '../../core/errors.ts';
import { Texts } from './grammar.ts';
import type { Grammar, Slots } from './grammar.ts';
import { Grounding, holds } from './ground.ts';
import type { GroundAction, Problem } from './ground.ts';
import type { Domain } from './pddl.ts';

export interface Rules {
  domain: Domain;
  /** Predicates that some action changes. */
  changing: ReadonlySet<string>;
  grammar: Grammar;
}

export interface Action extends GroundAction {
  command: string;
}

export class Game {
  readonly id: string;
  readonly instruction: string;
  readonly introduction: string;
  /** The state at the start: one byte, 0 or 1, for every atom that can change. */
  readonly start: Uint8Array;
  readonly #rules: Rules;
  readonly #grounding: Grounding;
  readonly #texts: Texts;
  /** Sorted by command. */
  readonly #actions: Action[];
  /** Atom -> numbers of the actions that need it and are only looked at where it holds; the last list holds those that need none. */
  readonly #byAtom: Int32Array[];
  readonly #slotsOf: ReadonlyMap<string, number[]>;

  constructor(rules: Rules, id: string, problem: Problem, nameOf: (entityId: string) => string, instruction: string) {
    this.id = id;
    this.instruction = instruction;
    this.#rules = rules;
    this.#grounding = new Grounding(rules.domain, rules.changing, problem);
    this.start = this.#grounding.initial.slice(0, this.#grounding.fluents);
    this.#texts = new Texts(this.#grounding, this.#grounding.ids.map(nameOf));
    this.#slotsOf = new Map(rules.domain.operators.map((o) => [o.name, o.parameters.map((p) => rules.grammar.slot(p.name))]));
    this.#actions = this.#grounding.actions
      .map((action) => ({ ...action, command: rules.grammar.command(action.operator.name, this.#texts, this.#bound(action)) }))
      .sort((a, b) => (a.command < b.command ? -1 : a.command > b.command ? 1 : 0));
    const byAtom: number[][] = Array.from({ length: this.start.length + 1 }, () => []);
    this.#actions.forEach((action, number) => byAtom.at(this.#rarestNeed(action))?.push(number));
    this.#byAtom = byAtom.map((list) => Int32Array.from(list));
    const look = this.applicable(this.start).find((action) => action.command === 'look');
    if (look === undefined) throw new RatchetError('BadInput', `game ${id}: one cannot look at the start`);
    const task = instruction.charAt(0).toLowerCase() + instruction.slice(1);
    this.introduction = `${this.feedback(look, this.start)}\n\nYour task is to: ${task}`;
  }

  /** The actions that can be taken, sorted by command; where several have one command, the first. */
  applicable(state: Uint8Array): Action[] {
    const found: number[] = [];
    const collect = (numbers: Int32Array): void => {
      for (const number of numbers) if (holds((this.#actions[number] as Action).condition, state)) found.push(number);
    };
    for (let atom = 0; atom < state.length; atom++) if (state[atom] === 1) collect(this.#byAtom[atom] as Int32Array);
    collect(this.#byAtom[state.length] as Int32Array);
    found.sort((a, b) => a - b);
    const out: Action[] = [];
    for (const number of found) {
      const action = this.#actions[number] as Action;
      if (out.at(-1)?.command !== action.command) out.push(action);
    }
    return out;
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
    return this.#rules.grammar.feedback(action.operator.name, this.#texts, state, this.#bound(action));
  }

  solved(state: Uint8Array): boolean {
    return holds(this.#grounding.goal, state);
  }

  #bound(action: GroundAction): Slots {
    const slots = this.#rules.grammar.unbound();
    const slotsOf = this.#slotsOf.get(action.operator.name) as number[];
    action.arguments.forEach((entity, index) => (slots[slotsOf[index] as number] = entity));
    return slots;
  }

  /** The atom that the action needs and that is true most rarely, -1 if it needs none. */
  #rarestNeed({ condition }: Action): number {
    const needs = condition.all ? condition.literals.filter((literal) => literal >= 0) : [];
    const frequency = (atom: number): number => this.#grounding.frequency[atom] as number;
    return needs.reduce((best, atom) => (best < 0 || frequency(atom) < frequency(best) ? atom : best), -1);
  }
}
