/**
 * Finds what holds in a state: the ways in which a conjunction can be satisfied. Each conjunction is a tree that grows as it is walked: a level binds
 * variables, a branch is one way to bind them and the atoms that must then be true or false. What can never change is decided when a branch is made.
 */
import { RatchetError } from '../../../core/errors.ts';
import { groundTerms } from './reachability.ts';
import type { Relation, Relations } from './relations.ts';
import type { CompiledConjunction, CompiledLiteral } from './rules.ts';
import { TRUE } from './state.ts';
import type { Cells, State } from './state.ts';

/** A literal over one problem: terms are variables (>= 0) or complements of object numbers; null where it names an object that does not exist. */
interface Literal {
  negated: boolean;
  relation: Relation;
  terms: Int32Array | null;
}

/** What one level of the tree does. */
interface Level {
  /** Binds variables by the rows of this literal, or of all objects of the type of `variables[0]`, or none. */
  generator: Literal | null;
  /** The variables that it binds. */
  variables: number[];
  /** Literals whose terms are all bound from here on. */
  filters: Literal[];
}

/** Where a walk has come to. Branches lie side by side in arrays, since most of them are only tested and left. */
interface Node<T> {
  /** Branch -> a literal (atom, or its complement) that must hold; `ALWAYS` where nothing needs to. */
  tests: Int32Array;
  /** Branch -> further literals, where it has more than one. */
  more: (Int32Array | undefined)[];
  /** Branch after branch, the objects that its variables are bound to. */
  objects: Int32Array;
  next: (Node<T> | undefined)[];
  leaves: (T | null | undefined)[];
}

const ALWAYS = 0x7fffffff;

/** Branches of one game; ALFWorld's games have up to some 20,000, however long they are played. A domain that needs so many more is one that explodes. */
const MOST_BRANCHES = 2_000_000;

/** How many branches the trees of one game have together. */
export interface Branches {
  count: number;
}

/** Decided literals: true or false for ever. */
const YES = 'yes';
const NO = 'no';

export class Finder<T> {
  readonly #relations: Relations;
  readonly #cells: Cells;
  readonly #levels: Level[];
  readonly #values: Int32Array;
  readonly #masks: Uint8Array[];
  readonly #members: (readonly number[])[];
  readonly #leafOf: (values: Int32Array, condition: () => number[]) => T | null;
  readonly #literals: Literal[];
  readonly #branches: Branches;
  readonly #root: Node<T> | null = null;
  /** The predicates that decide what is found. */
  readonly fluents: ReadonlySet<string>;

  /** `leafOf`: what a way to satisfy the conjunction is to its user, made once for each; null for a way that does not count. */
  constructor(
    relations: Relations,
    cells: Cells,
    { variables, literals }: CompiledConjunction,
    branches: Branches,
    leafOf: (values: Int32Array, condition: () => number[]) => T | null,
  ) {
    this.#branches = branches;
    this.#relations = relations;
    this.#cells = cells;
    this.#leafOf = leafOf;
    this.#values = new Int32Array(variables.length).fill(-1);
    this.#masks = variables.map(({ type }) => relations.objects.mask(type));
    this.#members = variables.map(({ type }) => relations.objects.members(type));
    this.#literals = literals.map((literal) => this.#over(literal));
    this.fluents = new Set(this.#literals.filter((l) => l.relation.fluent).map((l) => l.relation.name));
    this.#levels = this.#plan(variables.length);
    if (this.#members.every((members) => members.length > 0)) this.#root = this.#expand(this.#levels[0] as Level);
  }

  /** Everything found in the state, in a fixed order. */
  find(state: State): T[] {
    const found: T[] = [];
    if (this.#root !== null) this.#walk(this.#root, 0, state, found);
    return found;
  }

  /** Is anything found in the state? */
  some(state: State): boolean {
    return this.find(state).length > 0;
  }

  #over({ negated, predicate, terms }: CompiledLiteral): Literal {
    const ground = groundTerms(terms, this.#relations);
    return { negated, relation: this.#relations.relation(predicate, terms.length), terms: ground };
  }

  /** At each level the literal that leaves the fewest branches to follow, as far as the start tells. */
  #plan(count: number): Level[] {
    const bound = new Set<number>();
    const isBound = (literal: Literal): boolean => literal.terms === null || literal.terms.every((term) => term < 0 || bound.has(term));
    const left = new Set(this.#literals);
    const take = (): Literal[] => {
      const filters = [...left].filter(isBound);
      for (const filter of filters) left.delete(filter);
      return filters;
    };
    const levels: Level[] = [{ generator: null, variables: [], filters: take() }];
    while (bound.size < count) {
      let best: Level = { generator: null, variables: [], filters: [] };
      let [follow, scan] = [Infinity, Infinity];
      const offer = (level: Level, branches: number, rows: number): void => {
        if (branches > follow || (branches === follow && rows >= scan)) return;
        [best, follow, scan] = [level, branches, rows];
      };
      for (let v = 0; v < count; v++)
        if (!bound.has(v))
          offer({ generator: null, variables: [v], filters: [] }, this.#members[v]?.length ?? 0, this.#members[v]?.length ?? 0);
      for (const literal of left) {
        if (literal.negated || literal.terms === null) continue;
        const { relation, terms } = literal;
        const variables = [...new Set(terms)].filter((term) => term >= 0 && !bound.has(term));
        let rows = relation.size;
        let branches = relation.fluent ? relation.trueAtStart : rows;
        terms.forEach((term, i) => {
          if (variables.includes(term)) return;
          const distinct = Math.max(1, relation.distinct[i] as number);
          rows /= distinct;
          branches /= distinct;
        });
        offer({ generator: literal, variables, filters: [] }, branches, rows);
      }
      if (best.generator !== null) left.delete(best.generator);
      for (const variable of best.variables) bound.add(variable);
      best.filters = take();
      levels.push(best);
    }
    return levels;
  }

  /** The branches of a level under the values that are bound above it. */
  #expand(level: Level): Node<T> {
    const { generator, variables } = level;
    const values = this.#values;
    const tests: number[] = [];
    const more: (Int32Array | undefined)[] = [];
    const objects: number[] = [];
    const branch = (first: number): void => {
      if (++this.#branches.count > MOST_BRANCHES)
        throw new RatchetError('BadInput', `the domain explodes: more than ${MOST_BRANCHES} ways to bind the variables of its actions`);
      const literals: number[] = first === ALWAYS ? [] : [first];
      for (const filter of level.filters) {
        const decided = this.#decide(filter);
        if (decided === NO) return;
        if (decided !== YES) literals.push(decided);
      }
      tests.push(literals[0] ?? ALWAYS);
      more.push(literals.length > 1 ? Int32Array.from(literals.slice(1)) : undefined);
      for (const variable of variables) objects.push(values[variable] as number);
    };
    if (generator !== null) this.#rows(generator, variables, branch);
    else if (variables.length === 0) branch(ALWAYS);
    else
      for (const object of this.#members[variables[0] as number] as readonly number[]) {
        values[variables[0] as number] = object;
        branch(ALWAYS);
      }
    for (const variable of variables) values[variable] = -1;
    return {
      tests: Int32Array.from(tests),
      more,
      objects: Int32Array.from(objects),
      next: new Array<undefined>(tests.length).fill(undefined),
      leaves: new Array<undefined>(tests.length).fill(undefined),
    };
  }

  #rows({ relation, terms }: Literal, variables: readonly number[], branch: (first: number) => void): void {
    const values = this.#values;
    const places = terms as Int32Array;
    let rows: readonly number[] | null = null;
    places.forEach((term, i) => {
      const object = term < 0 ? ~term : (values[term] as number);
      if (object === -1) return;
      const with_ = (relation.rowsWith[i] as number[][])[object] ?? [];
      if (rows === null || with_.length < rows.length) rows = with_;
    });
    const chosen = rows as readonly number[] | null;
    const count = chosen === null ? relation.size : chosen.length;
    for (let n = 0; n < count; n++) {
      const row = chosen === null ? n : (chosen[n] as number);
      for (const variable of variables) values[variable] = -1;
      let fits = true;
      for (let i = 0; fits && i < places.length; i++) {
        const term = places[i] as number;
        const object = relation.values[row * relation.arity + i] as number;
        if (term < 0) fits = ~term === object;
        else if (values[term] !== -1) fits = values[term] === object;
        else if ((this.#masks[term] as Uint8Array)[object] === 0) fits = false;
        else values[term] = object;
      }
      if (fits) branch(relation.fluent ? (relation.atoms[row] as number) : ALWAYS);
    }
  }

  /** A literal under the values bound now. */
  #decide({ negated, relation, terms }: Literal): number | typeof YES | typeof NO {
    const row = terms === null ? -1 : relation.row(terms.map((term) => (term < 0 ? ~term : (this.#values[term] as number))));
    if (row < 0) return negated ? YES : NO;
    if (!relation.fluent) return negated ? NO : YES;
    const atom = relation.atoms[row] as number;
    return negated ? ~atom : atom;
  }

  #walk(node: Node<T>, depth: number, state: State, out: T[]): void {
    const cells = this.#cells;
    const { tests } = node;
    const { variables } = this.#levels[depth] as Level;
    const isLast = depth === this.#levels.length - 1;
    branches: for (let b = 0; b < tests.length; b++) {
      const test = tests[b] as number;
      if (test !== ALWAYS && !isMet(cells, state, test)) continue;
      const more = node.more[b];
      if (more !== undefined) for (const literal of more) if (!isMet(cells, state, literal)) continue branches;
      if (isLast) {
        let leaf = node.leaves[b];
        if (leaf === undefined) {
          this.#bind(node, b, variables);
          leaf = node.leaves[b] = this.#leafOf(this.#values, this.#condition);
        }
        if (leaf !== null) out.push(leaf);
        continue;
      }
      let next = node.next[b];
      this.#bind(node, b, variables);
      if (next === undefined) next = node.next[b] = this.#expand(this.#levels[depth + 1] as Level);
      this.#walk(next, depth + 1, state, out);
    }
    for (const variable of variables) this.#values[variable] = -1;
  }

  #bind(node: Node<T>, branch: number, variables: readonly number[]): void {
    for (let i = 0; i < variables.length; i++) this.#values[variables[i] as number] = node.objects[branch * variables.length + i] as number;
  }

  /** All literals that are not decided for ever, with every variable bound. */
  readonly #condition = (): number[] =>
    this.#literals.map((literal) => this.#decide(literal)).filter((decided) => typeof decided === 'number');
}

function isMet(cells: Cells, state: State, literal: number): boolean {
  return literal >= 0 ? (cells.bits(state, literal) & TRUE) !== 0 : (cells.bits(state, ~literal) & TRUE) === 0;
}
