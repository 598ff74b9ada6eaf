/**
 * Grounds formulas over the entities of one problem: atoms become numbers, states byte arrays. It knows nothing of households; it refuses atoms
 * and entities that the domain does not declare.
 */
import { RatchetError } from '../../core/errors.ts';
import type { Domain, Effect, Formula, Term, Typed } from './pddl.ts';

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

/** Variable -> entity number. */
export type Binding = ReadonlyMap<string, number>;

const NONE: Binding = new Map();
/** More arguments than any predicate of a planning domain for households has (ALFRED's have at most two). */
const MOST_ARGUMENTS = 8;
const IN_ORDER: readonly number[] = Array.from({ length: MOST_ARGUMENTS }, (_, i) => i);

const TRUE: Condition = { all: true, literals: [], parts: [] };
const FALSE: Condition = { all: false, literals: [], parts: [] };
const isConstant = (c: Condition): boolean => c.literals.length === 0 && c.parts.length === 0;

/** Does the condition hold in a state (one byte per fluent)? */
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

/** The predicates that some action changes; all others keep their initial truth for ever. */
export function changingPredicates(domain: Domain): Set<string> {
  return new Set(domain.operators.flatMap((operator) => operator.effects.map((effect) => effect.predicate)));
}

/** Where the atoms of a predicate are: numbered row by row over the positions of its arguments within their types. */
export interface AtomTable {
  base: number;
  /** Entity -> its position within the argument's type, -1 where it is of another type. */
  positions: readonly Int32Array[];
  sizes: readonly number[];
}

export class Grounding {
  readonly ids: readonly string[];
  /** Number of atoms that can change, the fluents; they are numbered 0 .. `fluents - 1`, the others follow. */
  readonly fluents: number;
  /** Truth of every atom at the start, one byte each. */
  readonly initial: Uint8Array;
  readonly #numberOf = new Map<string, number>();
  readonly #members = new Map<string, number[]>();
  readonly #tables = new Map<string, AtomTable>();
  /** The arguments of the atom in hand: most atoms are asked for once, and an array for each would be most of the work. */
  readonly #scratch = new Int32Array(MOST_ARGUMENTS);

  constructor(domain: Domain, changing: ReadonlySet<string>, problem: Problem) {
    this.ids = problem.entities.map((entity) => entity.id);
    problem.entities.forEach(({ id, type }, number) => {
      if (this.#numberOf.has(id)) throw new RatchetError('BadInput', `problem: the entity ${id} is declared twice`);
      if (!domain.types.has(type)) throw new RatchetError('BadInput', `problem: the entity ${id} has the unknown type ${type}`);
      this.#numberOf.set(id, number);
      for (let t: string | null | undefined = type; t; t = domain.types.get(t)) {
        const members = this.#members.get(t);
        if (members === undefined) this.#members.set(t, [number]);
        else members.push(number);
      }
    });
    const predicates = [...domain.predicates.values()];
    const positionsOf = new Map<string, Int32Array>();
    let atoms = 0;
    const number = (predicate: (typeof predicates)[number]): void => {
      if (predicate.parameters.length > MOST_ARGUMENTS)
        throw new RatchetError('BadInput', `domain: predicate "${predicate.name}" has more than ${MOST_ARGUMENTS} parameters`);
      const positions = predicate.parameters.map(({ type }) => {
        let known = positionsOf.get(type);
        if (known === undefined) {
          positionsOf.set(type, (known = new Int32Array(this.ids.length).fill(-1)));
          for (const [position, entity] of this.members(type).entries()) known[entity] = position;
        }
        return known;
      });
      const sizes = predicate.parameters.map(({ type }) => this.members(type).length);
      this.#tables.set(predicate.name, { base: atoms, positions, sizes });
      atoms += sizes.reduce((a, b) => a * b, 1);
    };
    predicates.filter((predicate) => changing.has(predicate.name)).forEach(number);
    this.fluents = atoms;
    predicates.filter((predicate) => !changing.has(predicate.name)).forEach(number);
    this.initial = new Uint8Array(atoms);
    for (const [predicate, ...ids] of problem.initial) {
      const terms = ids.map((id) => ({ constant: id }));
      const fits = ids.length === this.table(predicate as string).sizes.length;
      const atom = fits ? this.#atom(predicate as string, terms, NONE) : -1;
      if (atom < 0) throw new RatchetError('BadInput', `problem: (${predicate} ${ids.join(' ')}) does not fit its declaration`);
      this.initial[atom] = 1;
    }
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

  table(predicate: string): AtomTable {
    const table = this.#tables.get(predicate);
    if (table === undefined) throw new RatchetError('BadInput', `domain: predicate "${predicate}" is not declared`);
    return table;
  }

  /** Is the atom with this number true? -1 stands for an atom that does not exist and is never true. */
  isTrue(atom: number, state: Uint8Array): boolean {
    return atom >= 0 && (atom < this.fluents ? state[atom] : this.initial[atom]) === 1;
  }

  /** The formula under the binding, with everything that cannot change folded away. */
  condition(f: Formula, binding: Binding, positive = true): Condition {
    switch (f.kind) {
      case 'and':
      case 'or':
        return combine(
          (f.kind === 'and') === positive,
          f.parts.map((part) => this.condition(part, binding, positive)),
        );
      case 'not':
        return this.condition(f.part, binding, !positive);
      case 'equal':
        return (this.#value(f.terms[0], binding) === this.#value(f.terms[1], binding)) === positive ? TRUE : FALSE;
      case 'atom': {
        const atom = this.#atom(f.predicate, f.terms, binding);
        if (atom < 0 || atom >= this.fluents) return (atom >= 0 && this.initial[atom] === 1) === positive ? TRUE : FALSE;
        return { all: true, literals: [positive ? atom : ~atom], parts: [] };
      }
      case 'exists':
      case 'forall': {
        const parts: Condition[] = [];
        this.#forEachBinding(f.variables, 0, new Map(binding), (inner) => parts.push(this.condition(f.part, inner, positive)));
        return combine((f.kind === 'forall') === positive, parts);
      }
    }
  }

  /** The effects that can ever happen, those that make atoms false first. */
  effects(effects: readonly Effect[], binding: Binding): GroundEffect[] {
    const out: GroundEffect[] = [];
    for (const { condition, becomes, predicate, terms } of effects) {
      const when = condition && this.condition(condition, binding);
      if (when !== null && isConstant(when) && !when.all) continue;
      const atom = this.#atom(predicate, terms, binding);
      if (atom < 0) throw new RatchetError('BadInput', `domain: an effect on ${predicate} does not fit its declaration`);
      out.push({ condition: when, becomes: becomes ? 1 : 0, atom });
    }
    return out.sort((a, b) => a.becomes - b.becomes);
  }

  #atom(predicate: string, terms: readonly Term[], binding: Binding): number {
    for (let i = 0; i < terms.length; i++) this.#scratch[i] = this.#value(terms[i] as Term, binding);
    return atomNumber(this.table(predicate), this.#scratch, IN_ORDER);
  }

  #value(term: Term, binding: Binding): number {
    if ('constant' in term) return this.entity(term.constant);
    const bound = binding.get(term.variable);
    if (bound === undefined) throw new RatchetError('BadInput', `domain: the variable ?${term.variable} is not bound`);
    return bound;
  }

  #forEachBinding(variables: readonly Typed[], from: number, binding: Map<string, number>, visit: (binding: Binding) => void): void {
    const variable = variables[from];
    if (variable === undefined) return visit(binding);
    for (const entity of this.members(variable.type)) {
      binding.set(variable.name, entity);
      this.#forEachBinding(variables, from + 1, binding, visit);
    }
  }
}

/** The number of the atom whose i-th argument is the entity `values[places[i]]`, or -1 where an argument is of another type. */
export function atomNumber(table: AtomTable, values: ArrayLike<number>, places: readonly number[]): number {
  const { positions, sizes } = table;
  let offset = 0;
  for (let i = 0; i < sizes.length; i++) {
    const position = (positions[i] as Int32Array)[values[places[i] as number] as number] as number;
    if (position < 0) return -1;
    offset = offset * (sizes[i] as number) + position;
  }
  return table.base + offset;
}
