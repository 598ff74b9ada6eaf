/**
 * Which atoms can ever become true if nothing ever became false (the delete relaxation; Bonet and Geffner, "Planning as heuristic search", 2001): a
 * datalog program, run to its fixpoint atom by atom. It bounds what an engine must number, and finds goals that cannot be reached.
 */
import { RatchetError } from '../../../core/errors.ts';
import type { Relation, Relations } from './relations.ts';
import type { CompiledConjunction, CompiledLiteral, Variant } from './rules.ts';

/** Rows looked at; ALFWorld's games take some 100,000. A domain that needs more is one that explodes. */
const MOST_WORK = 20_000_000;

/** A literal over one problem: terms are variables (>= 0) or the complement of an object's number. */
interface Body {
  relation: Relation;
  terms: Int32Array;
}

interface Rule {
  /** Membership in the type of each variable. */
  masks: Uint8Array[];
  members: (readonly number[])[];
  body: Body[];
  heads: Body[];
  /** Variables that no literal binds. */
  free: number[];
}

/** The terms over one problem, or null where one is an object that does not exist. */
export function groundTerms(terms: CompiledLiteral['terms'], relations: Relations): Int32Array | null {
  const out = new Int32Array(terms.length);
  for (let i = 0; i < terms.length; i++) {
    const term = terms[i] as number | string;
    const object = typeof term === 'number' ? undefined : relations.objects.number(term);
    if (typeof term !== 'number' && object === undefined) return null;
    out[i] = typeof term === 'number' ? term : ~(object as number);
  }
  return out;
}

export class Reachability {
  readonly #relations: Relations;
  #work = 0;
  /** Rows at or above this number of a relation are found, but not joined yet. */
  readonly #joined = new Map<Relation, number>();

  constructor(relations: Relations) {
    this.#relations = relations;
  }

  /** Adds every reachable atom to the relations. Throws RatchetError('BadInput') where there are too many. */
  close(variants: readonly Variant[]): void {
    const rules: Rule[] = [];
    for (const { operator, precondition, effects } of variants) {
      const plain: CompiledLiteral[] = [];
      for (const { negated, predicate, terms, condition, variables } of effects) {
        // What can become false must be known to have been true first; only what becomes true is a head.
        if (negated) continue;
        const head = { negated, predicate, terms };
        if (condition.length === 0 && variables.length === 0) plain.push(head);
        else
          rules.push(
            ...this.#rule(
              { variables: [...precondition.variables, ...variables], literals: [...precondition.literals, ...condition] },
              [head],
              operator.name,
            ),
          );
      }
      if (plain.length > 0) rules.push(...this.#rule(precondition, plain, operator.name));
    }
    const triggered = new Map<Relation, [Rule, number][]>();
    for (const rule of rules) {
      const fluents = rule.body.map((_, i) => i).filter((i) => rule.body[i]?.relation.fluent);
      if (fluents.length === 0) this.#join(rule, 0, new Int32Array(rule.masks.length).fill(-1), -1, new Set(), () => this.#add(rule));
      for (const i of fluents) {
        const { relation } = rule.body[i] as Body;
        const list = triggered.get(relation);
        if (list === undefined) triggered.set(relation, [[rule, i]]);
        else list.push([rule, i]);
      }
    }
    const { relationOf, rowOf } = this.#relations;
    // The list of atoms is the queue: what is found is appended.
    for (let atom = 0; atom < relationOf.length; atom++) {
      const relation = relationOf[atom] as Relation;
      const row = rowOf[atom] as number;
      this.#joined.set(relation, row + 1);
      for (const [rule, i] of triggered.get(relation) ?? []) this.#trigger(rule, i, row);
    }
  }

  /** Can the conjunction ever hold, as far as the relaxation knows? Call after `close`. */
  reachable(conjunction: CompiledConjunction): boolean {
    const [rule] = this.#rule(conjunction, [], 'goal');
    if (rule === undefined) return false;
    for (const relation of rule.body.map((each) => each.relation)) this.#joined.set(relation, relation.size);
    let found = false;
    this.#join(rule, 0, new Int32Array(rule.masks.length).fill(-1), -1, new Set(), () => (found = true));
    return found;
  }

  #rule({ variables, literals }: CompiledConjunction, heads: readonly CompiledLiteral[], what: string): Rule[] {
    const { objects } = this.#relations;
    const over = (literal: CompiledLiteral): Body | null => {
      const terms = groundTerms(literal.terms, this.#relations);
      return terms && { relation: this.#relations.relation(literal.predicate, terms.length), terms };
    };
    const body = literals.filter((literal) => !literal.negated).map(over);
    if (body.includes(null)) return [];
    const bound = new Set(literals.filter((l) => !l.negated).flatMap((l) => l.terms));
    const rule: Rule = {
      masks: variables.map(({ type }) => objects.mask(type)),
      members: variables.map(({ type }) => objects.members(type)),
      body: body as Body[],
      heads: heads.map(
        (head) => over(head) ?? this.#refuse(`action ${what}: an effect names an object that does not exist: ${head.terms.join(' ')}`),
      ),
      free: variables.map((_, i) => i).filter((i) => !bound.has(i)),
    };
    return rule.free.some((i) => rule.members[i]?.length === 0) ? [] : [rule];
  }

  #refuse(what: string): never {
    throw new RatchetError('BadInput', what);
  }

  readonly #values: { current: Int32Array } = { current: new Int32Array(0) };

  #trigger(rule: Rule, literal: number, row: number): void {
    const values = new Int32Array(rule.masks.length).fill(-1);
    if (!this.#unify(rule, rule.body[literal] as Body, row, values, [])) return;
    this.#join(rule, 0, values, literal, new Set([literal]), () => this.#add(rule));
  }

  /** Binds the variables of a literal to a row; false, with `bound` naming what is to be unbound again, where it does not fit. */
  #unify(rule: Rule, { relation, terms }: Body, row: number, values: Int32Array, bound: number[]): boolean {
    const from = row * relation.arity;
    for (let i = 0; i < terms.length; i++) {
      const term = terms[i] as number;
      const object = relation.values[from + i] as number;
      if (term < 0) {
        if (~term !== object) return false;
      } else if (values[term] === -1) {
        if ((rule.masks[term] as Uint8Array)[object] === 0) return false;
        values[term] = object;
        bound.push(term);
      } else if (values[term] !== object) return false;
    }
    return true;
  }

  #join(rule: Rule, depth: number, values: Int32Array, _from: number, done: Set<number>, found: () => void): void {
    if (++this.#work > MOST_WORK) this.#refuse(`the domain explodes: more than ${MOST_WORK} steps to find what is reachable`);
    if (rule.heads.length > 0 && this.#isKnown(rule, values)) return;
    // The literal with the fewest rows that could match goes first.
    let best = -1;
    let rows: readonly number[] | null = null;
    let least = Infinity;
    for (let i = 0; i < rule.body.length; i++) {
      if (done.has(i)) continue;
      const { relation, terms } = rule.body[i] as Body;
      let size = relation.size;
      let narrowest: readonly number[] | null = null;
      for (let j = 0; j < terms.length; j++) {
        const term = terms[j] as number;
        const object = term < 0 ? ~term : (values[term] as number);
        if (object === -1) continue;
        const with_ = (relation.rowsWith[j] as number[][])[object] ?? [];
        if (narrowest === null || with_.length < narrowest.length) narrowest = with_;
        size = Math.min(size, with_.length);
      }
      if (size < least) {
        least = size;
        best = i;
        rows = narrowest;
      }
    }
    if (best === -1) return this.#complete(rule, 0, values, found);
    const literal = rule.body[best] as Body;
    const limit = literal.relation.fluent ? (this.#joined.get(literal.relation) ?? 0) : Infinity;
    const count = Math.min(rows === null ? literal.relation.size : rows.length, limit);
    done.add(best);
    for (let i = 0; i < count; i++) {
      const row = rows === null ? i : (rows[i] as number);
      if (row >= limit) break;
      this.#work++;
      const bound: number[] = [];
      if (this.#unify(rule, literal, row, values, bound)) this.#join(rule, depth + 1, values, best, done, found);
      for (const variable of bound) values[variable] = -1;
    }
    done.delete(best);
  }

  /** Binds what no literal binds: only heads can need it. */
  #complete(rule: Rule, from: number, values: Int32Array, found: () => void): void {
    const variable = rule.free.find((v) => values[v] === -1 && rule.heads.some((head) => head.terms.includes(v)));
    if (variable === undefined) {
      this.#values.current = values;
      return found();
    }
    for (const object of rule.members[variable] as readonly number[]) {
      if (++this.#work > MOST_WORK) this.#refuse(`the domain explodes: more than ${MOST_WORK} steps to find what is reachable`);
      values[variable] = object;
      this.#complete(rule, from + 1, values, found);
    }
    values[variable] = -1;
  }

  /** Are all heads bound and known already? Then the rest of the join cannot find anything. */
  #isKnown(rule: Rule, values: Int32Array): boolean {
    return rule.heads.every((head) => {
      const tuple = bind(head, values);
      return tuple !== null && head.relation.row(tuple) >= 0;
    });
  }

  #add(rule: Rule): void {
    for (const head of rule.heads) {
      const tuple = bind(head, this.#values.current) as number[];
      if (head.relation.row(tuple) < 0) this.#relations.add(head.relation, tuple, false);
    }
  }
}

function bind({ terms }: Body, values: Int32Array): number[] | null {
  const out: number[] = [];
  for (const term of terms) {
    const object = term < 0 ? ~term : (values[term] as number);
    if (object === -1) return null;
    out.push(object);
  }
  return out;
}
