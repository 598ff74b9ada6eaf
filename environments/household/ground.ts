/**
 * Grounds a domain over the entities of one problem: atoms become numbers, actions become lists of numbers. It knows nothing of households; it
 * refuses atoms and entities that the domain does not declare.
 */
import { RatchetError } from '../../core/errors.ts';
import type { Domain, Effect, Formula, Operator, Term, Typed } from './pddl.ts';

/** What the domain is played over: the entities, what is true at the start, and what is to be reached. Ids contain no white space. */
export interface Problem {
  entities: readonly { id: string; type: string }[];
  /** Atoms true at the start: predicate, then entity ids. */
  initial: readonly (readonly string[])[];
  goal: Formula;
}

/** A ground condition. A literal is the atom's number, or its bitwise complement where the atom must be false. */
export interface Condition {
  /** true: every literal and part must hold; false: one of them suffices. */
  all: boolean;
  literals: number[];
  parts: Condition[];
}

export interface GroundEffect {
  condition: Condition | null;
  becomes: 0 | 1;
  atom: number;
}

export interface GroundAction {
  operator: Operator;
  /** Entity numbers, one per parameter of the operator. */
  arguments: readonly number[];
  condition: Condition;
  /** Effects that make atoms false come first. */
  effects: GroundEffect[];
}

const TRUE: Condition = { all: true, literals: [], parts: [] };
const FALSE: Condition = { all: false, literals: [], parts: [] };
const isConstant = (c: Condition): boolean => c.literals.length === 0 && c.parts.length === 0;
const isFalse = (c: Condition): boolean => isConstant(c) && !c.all;

/** Does the condition hold in a state (one byte per atom)? */
export function holds(c: Condition, state: Uint8Array): boolean {
  for (const literal of c.literals) {
    const value = literal >= 0 ? state[literal] === 1 : state[~literal] === 0;
    if (value !== c.all) return !c.all;
  }
  for (const part of c.parts) if (holds(part, state) !== c.all) return !c.all;
  return c.all;
}

/** `all` or any of the conditions, simplified. */
function combine(all: boolean, conditions: Condition[]): Condition {
  const out: Condition = { all, literals: [], parts: [] };
  for (const c of conditions) {
    if (isConstant(c)) {
      if (c.all !== all) return all ? FALSE : TRUE;
    } else if (c.all === all || (c.literals.length === 1 && c.parts.length === 0)) {
      out.literals.push(...c.literals);
      out.parts.push(...c.parts);
    } else out.parts.push(c);
  }
  return out;
}

type Binding = Map<string, number>;

/** The predicates that some action changes; all others keep their initial truth for ever. */
export function changingPredicates(domain: Domain): Set<string> {
  return new Set(domain.operators.flatMap((operator) => operator.effects.map((effect) => effect.predicate)));
}

export class Grounding {
  readonly domain: Domain;
  readonly ids: readonly string[];
  /** Number of atoms that can change; they are numbered 0 .. `fluents - 1`, the others follow. */
  readonly fluents: number;
  /** Truth of every atom at the start, one byte each. */
  readonly initial: Uint8Array;
  /** For every fluent: how many atoms of its predicate are true at the start. */
  readonly frequency: Int32Array;
  readonly goal: Condition;
  readonly actions: GroundAction[];
  readonly #numberOf = new Map<string, number>();
  readonly #members = new Map<string, number[]>();
  readonly #layout = new Map<string, { base: number; positions: Int32Array[]; sizes: number[] }>();

  constructor(domain: Domain, changing: ReadonlySet<string>, problem: Problem) {
    this.domain = domain;
    this.ids = problem.entities.map((entity) => entity.id);
    for (const type of domain.types.keys()) this.#members.set(type, []);
    problem.entities.forEach(({ id, type }, number) => {
      if (this.#numberOf.has(id)) throw new RatchetError('BadInput', `problem: the entity ${id} is declared twice`);
      if (!domain.types.has(type)) throw new RatchetError('BadInput', `problem: the entity ${id} has the unknown type ${type}`);
      this.#numberOf.set(id, number);
      for (let t: string | null | undefined = type; t; t = domain.types.get(t)) this.#members.get(t)?.push(number);
    });
    let atoms = 0;
    let fluents = 0;
    const positionsOf = new Map<string, Int32Array>();
    for (const wanted of [true, false]) {
      for (const predicate of domain.predicates.values()) {
        if (changing.has(predicate.name) !== wanted) continue;
        const positions = predicate.parameters.map(({ type }) => {
          let known = positionsOf.get(type);
          if (known === undefined) {
            known = new Int32Array(this.ids.length).fill(-1);
            this.members(type).forEach((entity, position) => ((known as Int32Array)[entity] = position));
            positionsOf.set(type, known);
          }
          return known;
        });
        const sizes = predicate.parameters.map(({ type }) => this.members(type).length);
        this.#layout.set(predicate.name, { base: atoms, positions, sizes });
        atoms += sizes.reduce((a, b) => a * b, 1);
      }
      if (wanted) fluents = atoms;
    }
    this.fluents = fluents;
    this.initial = new Uint8Array(atoms);
    for (const [predicate, ...args] of problem.initial) {
      const atom = this.atom(
        predicate as string,
        args.map((id) => this.entity(id)),
      );
      if (atom < 0)
        throw new RatchetError('BadInput', `problem: (${predicate} ${args.join(' ')}) does not fit the declaration of ${predicate}`);
      this.initial[atom] = 1;
    }
    this.frequency = new Int32Array(fluents);
    for (const { base, sizes } of this.#layout.values()) {
      const end = base + sizes.reduce((a, b) => a * b, 1);
      if (end <= fluents)
        this.frequency.fill(
          this.initial.subarray(base, end).reduce((a, b) => a + b, 0),
          base,
          end,
        );
    }
    this.goal = this.#condition(problem.goal, new Map(), true);
    this.actions = domain.operators.flatMap((operator) => this.#actionsOf(operator));
  }

  /** The entity's number. */
  entity(id: string): number {
    const number = this.#numberOf.get(id);
    if (number === undefined) throw new RatchetError('BadInput', `problem: there is no entity ${id}`);
    return number;
  }

  /** The numbers of all entities of a type and its subtypes, in the order of declaration. */
  members(type: string): readonly number[] {
    return this.#members.get(type) ?? [];
  }

  /** The number of an atom, or -1 where the arguments do not fit the predicate's types: such an atom is never true. */
  atom(predicate: string, args: readonly number[]): number {
    const layout = this.#layout.get(predicate);
    if (layout === undefined) throw new RatchetError('BadInput', `problem: predicate "${predicate}" is not declared`);
    let offset = 0;
    for (let i = 0; i < layout.sizes.length; i++) {
      const position = (layout.positions[i] as Int32Array)[args[i] as number] as number;
      if (position < 0) return -1;
      offset = offset * (layout.sizes[i] as number) + position;
    }
    return layout.base + offset;
  }

  #value(term: Term, binding: Binding): number {
    if ('constant' in term) return this.entity(term.constant);
    const bound = binding.get(term.variable);
    if (bound === undefined) throw new RatchetError('BadInput', `domain: the variable ?${term.variable} is not bound`);
    return bound;
  }

  /** The formula (or its negation) under the binding, with everything that cannot change folded away. */
  #condition(f: Formula, binding: Binding, positive: boolean): Condition {
    switch (f.kind) {
      case 'and':
      case 'or':
        return combine(
          (f.kind === 'and') === positive,
          f.parts.map((part) => this.#condition(part, binding, positive)),
        );
      case 'not':
        return this.#condition(f.part, binding, !positive);
      case 'equal':
        return (this.#value(f.terms[0], binding) === this.#value(f.terms[1], binding)) === positive ? TRUE : FALSE;
      case 'atom': {
        const atom = this.atom(
          f.predicate,
          f.terms.map((term) => this.#value(term, binding)),
        );
        if (atom < 0 || atom >= this.fluents) return (atom >= 0 && this.initial[atom] === 1) === positive ? TRUE : FALSE;
        return { all: true, literals: [positive ? atom : ~atom], parts: [] };
      }
      case 'exists':
      case 'forall': {
        const parts: Condition[] = [];
        this.#bindings(f.variables, 0, binding, () => parts.push(this.#condition(f.part, binding, positive)));
        return combine((f.kind === 'forall') === positive, parts);
      }
    }
  }

  #bindings(variables: readonly Typed[], from: number, binding: Binding, visit: () => void): void {
    const variable = variables[from];
    if (variable === undefined) return visit();
    for (const entity of this.members(variable.type)) {
      binding.set(variable.name, entity);
      this.#bindings(variables, from + 1, binding, visit);
    }
    binding.delete(variable.name);
  }

  #actionsOf(operator: Operator): GroundAction[] {
    const out: GroundAction[] = [];
    // A part of the precondition that cannot change is checked as soon as its variables are bound: whole branches are never visited.
    const early = earlyChecks(operator, (predicate) => (this.#layout.get(predicate)?.base ?? 0) >= this.fluents);
    const binding: Binding = new Map();
    const visit = (depth: number): void => {
      for (const check of early[depth] ?? []) if (isFalse(this.#condition(check, binding, true))) return;
      const parameter = operator.parameters[depth];
      if (parameter !== undefined) {
        for (const entity of this.members(parameter.type)) {
          binding.set(parameter.name, entity);
          visit(depth + 1);
        }
        binding.delete(parameter.name);
        return;
      }
      const condition = this.#condition(operator.precondition, binding, true);
      if (isFalse(condition)) return;
      const effects = operator.effects.map((effect) => this.#effect(effect, binding)).sort((a, b) => a.becomes - b.becomes);
      out.push({ operator, arguments: operator.parameters.map((p) => binding.get(p.name) as number), condition, effects });
    };
    visit(0);
    return out;
  }

  #effect(effect: Effect, binding: Binding): GroundEffect {
    const atom = this.atom(
      effect.predicate,
      effect.terms.map((term) => this.#value(term, binding)),
    );
    if (atom < 0) throw new RatchetError('BadInput', `domain: an effect on ${effect.predicate} does not fit its declaration`);
    const condition = effect.condition === null ? null : this.#condition(effect.condition, binding, true);
    return { condition, becomes: effect.becomes ? 1 : 0, atom };
  }
}

/** For each number of bound parameters: the unchanging parts of the precondition that can be decided from then on. */
function earlyChecks(operator: Operator, unchanging: (predicate: string) => boolean): Formula[][] {
  const checks: Formula[][] = operator.parameters.map(() => []);
  checks.push([]);
  const depthOf = new Map(operator.parameters.map((parameter, index) => [parameter.name, index + 1]));
  const parts = operator.precondition.kind === 'and' ? operator.precondition.parts : [operator.precondition];
  for (const part of parts) {
    const inner = part.kind === 'not' ? part.part : part;
    if (inner.kind !== 'equal' && !(inner.kind === 'atom' && unchanging(inner.predicate))) continue;
    const depth = Math.max(0, ...inner.terms.map((term) => ('variable' in term ? (depthOf.get(term.variable) ?? 0) : 0)));
    checks[depth]?.push(part);
  }
  return checks;
}
