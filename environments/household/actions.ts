/**
 * Finds the actions that a state allows. Actions are grounded when they are first met: most of what a domain could do in a home is never
 * possible in the states that an episode visits.
 */
import { atomNumber, holds } from './ground.ts';
import type { AtomTable, Condition, Grounding, GroundEffect } from './ground.ts';
import type { Domain, Formula, Operator } from './pddl.ts';

/** An operator with its arguments. */
export interface Action {
  operator: Operator;
  /** Entity numbers, one per parameter of the operator. */
  arguments: Int32Array;
  /** What is typed to take it. */
  command: string;
  condition: Condition;
  /** Effects that make atoms false come first. */
  effects: GroundEffect[];
}

/** An atom that the precondition asks for outright, and the parameters that its arguments are. */
interface Need {
  predicate: string;
  parameters: number[];
}

/** In which order an operator's parameters are tried, and what can be asked as soon as each is chosen. Made once per domain. */
export interface OperatorPlan {
  operator: Operator;
  order: number[];
  /** needs[i]: decided by the first i + 1 parameters of `order`. */
  needs: Need[][];
}

export function planOperators(domain: Domain): OperatorPlan[] {
  return domain.operators.map((operator) => {
    const numberOf = new Map(operator.parameters.map((parameter, index) => [parameter.name, index]));
    // Atoms with few arguments leave few choices: asked first, they cut the search short.
    const needs = outright(operator.precondition, numberOf).sort((a, b) => a.parameters.length - b.parameters.length);
    const order = [...new Set([...needs.flatMap((need) => need.parameters), ...numberOf.values()])];
    const decidedAt = (need: Need): number => Math.max(...need.parameters.map((parameter) => order.indexOf(parameter)));
    return { operator, order, needs: order.map((_, depth) => needs.filter((need) => decidedAt(need) === depth)) };
  });
}

function outright(f: Formula, numberOf: ReadonlyMap<string, number>): Need[] {
  if (f.kind === 'and') return f.parts.flatMap((part) => outright(part, numberOf));
  if (f.kind !== 'atom' || f.terms.length === 0) return [];
  const parameters = f.terms.map((term) => ('variable' in term ? numberOf.get(term.variable) : undefined));
  return parameters.every((parameter) => parameter !== undefined) ? [{ predicate: f.predicate, parameters }] : [];
}

/** The actions of one game. */
export class ActionFinder {
  readonly #grounding: Grounding;
  readonly #commandOf: (operator: Operator, values: Int32Array) => string;
  readonly #searches: {
    plan: OperatorPlan;
    candidates: (readonly number[])[];
    needs: { table: AtomTable; parameters: number[] }[][];
    met: Map<number, Action>;
  }[];

  constructor(grounding: Grounding, plans: readonly OperatorPlan[], commandOf: (operator: Operator, values: Int32Array) => string) {
    this.#grounding = grounding;
    this.#commandOf = commandOf;
    this.#searches = plans.map((plan) => ({
      plan,
      candidates: plan.order.map((parameter) => grounding.members(plan.operator.parameters[parameter]?.type as string)),
      needs: plan.needs.map((needs) => needs.map(({ predicate, parameters }) => ({ table: grounding.table(predicate), parameters }))),
      met: new Map(),
    }));
  }

  /** Every action whose precondition holds, in the order of the operators. */
  find(state: Uint8Array): Action[] {
    const found: Action[] = [];
    const grounding = this.#grounding;
    for (const search of this.#searches) {
      const { order } = search.plan;
      const values = new Int32Array(order.length);
      const visit = (depth: number, key: number): void => {
        if (depth === order.length) {
          let action = search.met.get(key);
          if (action === undefined) search.met.set(key, (action = this.#ground(search.plan.operator, values.slice())));
          if (holds(action.condition, state)) found.push(action);
          return;
        }
        const parameter = order[depth] as number;
        const needs = search.needs[depth] as (typeof search.needs)[number];
        candidates: for (const entity of search.candidates[depth] as readonly number[]) {
          values[parameter] = entity;
          for (const need of needs) if (!grounding.isTrue(atomNumber(need.table, values, need.parameters), state)) continue candidates;
          visit(depth + 1, key * grounding.ids.length + entity);
        }
      };
      visit(0, 0);
    }
    return found;
  }

  #ground(operator: Operator, values: Int32Array): Action {
    const binding = new Map(operator.parameters.map((parameter, index) => [parameter.name, values[index] as number]));
    return {
      operator,
      arguments: values,
      command: this.#commandOf(operator, values),
      condition: this.#grounding.condition(operator.precondition, binding),
      effects: this.#grounding.effects(operator.effects, binding),
    };
  }
}
