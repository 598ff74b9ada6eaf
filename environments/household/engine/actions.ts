/**
 * The actions of one game. An action is made when a state first allows it: most of what a domain could do in a home is never possible in the states
 * that an episode visits.
 */
import { RatchetError } from '../../../core/errors.ts';
import { effectsOf } from './effects.ts';
import type { Effects, GroundEffect } from './effects.ts';
import { groundTerms } from './reachability.ts';
import type { Relation, Relations } from './relations.ts';
import type { CompiledEffect, Variant } from './rules.ts';
import { START } from './state.ts';
import type { Cells } from './state.ts';
import type { Slots, Template, Texts } from './texts.ts';

/** Effects of one action, where they range over objects; written domains have some dozens. */
const MOST_EFFECTS = 20_000;

/** What is the same for all actions of one name. */
export interface OperatorInGame {
  /** The action's name in the domain, lower case. */
  readonly name: string;
  /** Number of its declared parameters. */
  readonly parameters: number;
  /** Where texts expect its arguments. */
  readonly slots: Slots;
  readonly template: Template;
  /** The command can depend on facts that change. */
  readonly varies: boolean;
  readonly feedback: Template;
  /** The predicates that it can change. */
  readonly changes: ReadonlySet<string>;
  /** It can change whether the game is solved. */
  decides: boolean;
  /** The variants whose actions it can make possible or impossible. */
  affects: readonly number[];
  /** Arguments -> the action. */
  readonly met: Map<number | string, Action>;
}

/** An action with its arguments; made once for each, so two are the same if and only if they are the same object. */
export interface Action {
  readonly operator: OperatorInGame;
  /** Numbers of objects, one for each declared parameter. */
  readonly arguments: readonly number[];
  readonly effects: Effects;
  /** What is typed to take it; null where that depends on the state. */
  readonly command: string | null;
  /** The last search that found it. */
  mark: number;
}

/** In the order of operator and arguments. */
export function compareActions(a: Action, b: Action): number {
  if (a.operator !== b.operator) return a.operator.name < b.operator.name ? -1 : 1;
  for (let i = 0; i < a.arguments.length; i++) {
    const difference = (a.arguments[i] as number) - (b.arguments[i] as number);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** An effect or a condition of one over this game's relations. */
interface Target {
  negated: boolean;
  relation: Relation;
  terms: Int32Array | null;
}

interface TargetEffect extends Target {
  variables: CompiledEffect['variables'];
  condition: readonly Target[];
}

/** Makes the actions of one variant. */
export class ActionMaker {
  readonly #relations: Relations;
  readonly #cells: Cells;
  readonly #texts: Texts;
  readonly #operator: OperatorInGame;
  readonly #effects: readonly TargetEffect[];
  /** Arguments fit into one number. */
  readonly #isNumbered: boolean;

  constructor(relations: Relations, cells: Cells, texts: Texts, operator: OperatorInGame, variant: Variant) {
    this.#relations = relations;
    this.#cells = cells;
    this.#texts = texts;
    this.#operator = operator;
    this.#isNumbered = relations.objects.ids.length ** operator.parameters <= Number.MAX_SAFE_INTEGER;
    const over = ({ negated, predicate, terms }: Pick<CompiledEffect, 'negated' | 'predicate' | 'terms'>): Target => ({
      negated,
      relation: relations.relation(predicate, terms.length),
      terms: groundTerms(terms, relations),
    });
    this.#effects = variant.effects.map((effect) => ({
      variables: effect.variables,
      condition: effect.condition.map(over),
      ...over(effect),
    }));
  }

  /**
   * The action for these values of all variables, or null where it would change nothing and so does not exist. Of an action that several variants
   * allow, the one made first stays.
   */
  make(values: Int32Array, precondition: () => readonly number[]): Action | null {
    const operator = this.#operator;
    const key = this.#keyOf(values);
    const known = operator.met.get(key);
    if (known !== undefined) return known;
    const ground: GroundEffect[] = [];
    for (const effect of this.#effects) this.#ground(effect, values, ground);
    const effects = effectsOf(precondition(), ground);
    if (effects === null) return null;
    for (let i = 0; i < effects.always.length; i += 2) this.#cells.touch(effects.always[i] as number);
    for (const { atom } of effects.conditional) this.#cells.touch(atom);
    const given = Array.from(values.subarray(0, operator.parameters));
    const command = operator.varies ? null : this.#texts.write(operator.template, this.#texts.bind(operator.slots, given), START);
    const action: Action = { operator, arguments: given, effects, command, mark: 0 };
    operator.met.set(key, action);
    return action;
  }

  #keyOf(values: Int32Array): number | string {
    const { parameters } = this.#operator;
    if (!this.#isNumbered) return values.subarray(0, parameters).join();
    const objects = this.#relations.objects.ids.length;
    let key = 0;
    for (let i = 0; i < parameters; i++) key = key * objects + (values[i] as number);
    return key;
  }

  /** Adds the effect for every value of its own variables, without those that can never happen. */
  #ground({ variables, condition, negated, relation, terms }: TargetEffect, values: Int32Array, out: GroundEffect[]): void {
    const own: number[] = [];
    let visited = 0;
    const objectOf = (term: number): number =>
      term < 0 ? ~term : ((term < values.length ? values[term] : own[term - values.length]) as number);
    const visit = (): void => {
      const variable = variables[own.length];
      if (variable !== undefined) {
        for (const object of this.#relations.objects.members(variable.type)) {
          own.push(object);
          visit();
          own.pop();
        }
        return;
      }
      if (++visited > MOST_EFFECTS)
        throw new RatchetError('BadInput', `action ${this.#operator.name}: its effects range over more than ${MOST_EFFECTS} combinations`);
      const literals: number[] = [];
      for (const literal of condition) {
        const row = literal.terms === null ? -1 : literal.relation.row(literal.terms.map(objectOf));
        const isDecided = row < 0 || !literal.relation.fluent;
        if (isDecided && row >= 0 === literal.negated) return;
        if (!isDecided) literals.push(literal.negated ? ~(literal.relation.atoms[row] as number) : (literal.relation.atoms[row] as number));
      }
      const row = terms === null ? -1 : relation.row(terms.map(objectOf));
      if (row >= 0) out.push({ condition: literals, negated, atom: relation.atoms[row] as number });
    };
    visit();
  }
}
