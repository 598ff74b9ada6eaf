/**
 * Which atoms can ever become true if nothing ever became false (the delete relaxation; Bonet and Geffner, "Planning as heuristic search", 2001): a
 * datalog program, run to its fixpoint atom by atom. It bounds what an engine must number, and finds goals that cannot be reached.
 */
import { RatchetError } from '../../../core/errors.ts';
import type { Relation, Relations } from './relations.ts';
import type { CompiledConjunction, CompiledLiteral, Variant } from './rules.ts';

/** Rows looked at; ALFWorld's games need up to 30,000. A domain that needs so many more is one that explodes. */
const MOST_WORK = 5_000_000;

/** A literal over one problem: terms are variables (>= 0) or the complement of an object's number. */
interface Body {
  relation: Relation;
  terms: Int32Array;
}

interface Rule {
  /** Variable -> what it is bound to, -1 if nothing; in use while the rule is joined. */
  values: Int32Array;
  /** Membership in the type of each variable. */
  masks: Uint8Array[];
  members: (readonly number[])[];
  body: Body[];
  heads: Body[];
  /** Variables that no literal binds. */
  free: number[];
}

/** A rule that an atom of one of its literals sets off: in which order the others are joined. */
interface Trigger {
  rule: Rule;
  literal: Body | null;
  order: Body[];
  /** From this depth on all variables of the heads are bound: one match is as good as all. */
  decidedAt: number;
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
  /** The atoms below this number are joined; those above wait. */
  #joined = 0;

  constructor(relations: Relations) {
    this.#relations = relations;
  }

  /** Adds every reachable atom to the relations. Throws RatchetError('BadInput') where there are too many. */
  close(variants: readonly Variant[]): void {
    const triggers = new Map<Relation, Trigger[]>();
    for (const rule of variants.flatMap((variant) => this.#rulesOf(variant))) {
      const fluents = rule.body.filter((each) => each.relation.fluent);
      if (fluents.length === 0) this.#join(trigger(rule, null), 0);
      for (const literal of fluents) {
        const list = triggers.get(literal.relation);
        if (list === undefined) triggers.set(literal.relation, [trigger(rule, literal)]);
        else list.push(trigger(rule, literal));
      }
    }
    const { relationOf, rowOf } = this.#relations;
    // The list of atoms is the queue: what is found is appended.
    for (let atom = 0; atom < relationOf.length; atom++) {
      this.#joined = atom + 1;
      for (const each of triggers.get(relationOf[atom] as Relation) ?? []) {
        const { rule, literal } = each;
        if (this.#unify(rule, literal as Body, rowOf[atom] as number)) this.#join(each, 0);
        rule.values.fill(-1);
      }
    }
  }

  /** Can the conjunction ever hold, as far as the relaxation knows? Call after `close`. */
  reachable(conjunction: CompiledConjunction): boolean {
    const rule = this.#rule(conjunction, [], 'goal');
    this.#joined = Infinity;
    return rule !== null && this.#join(trigger(rule, null), 0);
  }

  #rulesOf({ operator, precondition, effects }: Variant): Rule[] {
    const rules: (Rule | null)[] = [];
    const plain: CompiledLiteral[] = [];
    for (const { negated, predicate, terms, condition, variables } of effects) {
      // What becomes false was found when it became true.
      if (negated) continue;
      const head = { negated, predicate, terms };
      if (condition.length === 0 && variables.length === 0) plain.push(head);
      else {
        const { variables: outer, literals } = precondition;
        rules.push(this.#rule({ variables: [...outer, ...variables], literals: [...literals, ...condition] }, [head], operator.name));
      }
    }
    if (plain.length > 0) rules.push(this.#rule(precondition, plain, operator.name));
    return rules.filter((rule) => rule !== null);
  }

  /** null where the conjunction can never hold. */
  #rule({ variables, literals }: CompiledConjunction, heads: readonly CompiledLiteral[], what: string): Rule | null {
    const { objects } = this.#relations;
    const over = (literal: CompiledLiteral): Body | null => {
      const terms = groundTerms(literal.terms, this.#relations);
      return terms && { relation: this.#relations.relation(literal.predicate, terms.length), terms };
    };
    const positive = literals.filter((literal) => !literal.negated);
    const body = positive.map(over);
    const bound = new Set(positive.flatMap((literal) => literal.terms));
    const members = variables.map(({ type }) => objects.members(type));
    if (body.includes(null) || members.some((each) => each.length === 0)) return null;
    return {
      values: new Int32Array(variables.length).fill(-1),
      masks: variables.map(({ type }) => objects.mask(type)),
      members,
      body: body as Body[],
      heads: heads.map(
        (head) => over(head) ?? refuse(`action ${what}: an effect names an object that does not exist: ${head.terms.join(' ')}`),
      ),
      free: variables.map((_, i) => i).filter((i) => !bound.has(i)),
    };
  }

  /** Binds the variables of a literal to a row; false where it does not fit. What it binds is unbound by `#unbind`, either way. */
  #unify({ values, masks }: Rule, { relation, terms }: Body, row: number): boolean {
    const from = row * terms.length;
    for (let i = 0; i < terms.length; i++) {
      const term = terms[i] as number;
      const object = relation.values[from + i] as number;
      if (term < 0) {
        if (~term !== object) return false;
      } else if (values[term] === -1) {
        if ((masks[term] as Uint8Array)[object] === 0) return false;
        values[term] = object;
      } else if (values[term] !== object) return false;
    }
    return true;
  }

  /** Was there a match? */
  #join(trigger: Trigger, depth: number): boolean {
    const { rule, order, decidedAt } = trigger;
    if (depth === decidedAt && rule.heads.length > 0 && isKnown(rule)) return true;
    const literal = order[depth];
    if (literal === undefined) return this.#complete(rule);
    const { relation, terms } = literal;
    const { values } = rule;
    // Bit i: the i-th term is bound here.
    let fresh = 0;
    let rows: readonly number[] | null = null;
    for (let i = 0; i < terms.length; i++) {
      const term = terms[i] as number;
      const object = term < 0 ? ~term : (values[term] as number);
      if (object === -1) fresh |= 1 << i;
      else {
        const others = (relation.rowsWith[i] as number[][])[object];
        if (others === undefined) return false;
        if (rows === null || others.length < rows.length) rows = others;
      }
    }
    const count = rows === null ? relation.size : rows.length;
    let found = false;
    for (let n = 0; n < count; n++) {
      const row = rows === null ? n : (rows[n] as number);
      if (relation.fluent && (relation.atoms[row] as number) >= this.#joined) break;
      if (++this.#work > MOST_WORK) refuse(`the domain explodes: more than ${MOST_WORK} steps to find what is reachable`);
      if (this.#unify(rule, literal, row) && this.#join(trigger, depth + 1)) found = true;
      for (let i = 0; i < terms.length; i++) if ((fresh & (1 << i)) !== 0) values[terms[i] as number] = -1;
      if (found && depth >= decidedAt) return true;
    }
    return found;
  }

  /** Binds what no literal binds, as far as heads need it, and adds the heads. */
  #complete(rule: Rule): boolean {
    const { values, heads } = rule;
    const variable = rule.free.find((v) => values[v] === -1 && heads.some((head) => head.terms.includes(v)));
    if (variable === undefined) {
      for (const head of heads) {
        const tuple = bind(head, values);
        if (head.relation.row(tuple) < 0) this.#relations.add(head.relation, tuple, false);
      }
      return true;
    }
    for (const object of rule.members[variable] as readonly number[]) {
      if (++this.#work > MOST_WORK) refuse(`the domain explodes: more than ${MOST_WORK} steps to find what is reachable`);
      values[variable] = object;
      this.#complete(rule);
    }
    values[variable] = -1;
    return true;
  }
}

function refuse(what: string): never {
  throw new RatchetError('BadInput', what);
}

/** Literals with the fewest unbound variables come first: they leave the fewest rows to look at. */
function trigger(rule: Rule, literal: Body | null): Trigger {
  const bound = new Set(literal?.terms);
  const left = new Set(rule.body);
  if (literal !== null) left.delete(literal);
  const isDecided = (): boolean => rule.heads.every((head) => head.terms.every((term) => term < 0 || bound.has(term)));
  const order: Body[] = [];
  let decidedAt = isDecided() ? 0 : Infinity;
  while (left.size > 0) {
    let best: Body | null = null;
    let least = Infinity;
    for (const each of left) {
      const unbound = each.terms.reduce((sum, term) => sum + (term >= 0 && !bound.has(term) ? 1 : 0), 0);
      // Of equals, what cannot grow.
      const cost = 2 * unbound + (each.relation.fluent ? 1 : 0);
      if (cost < least) [best, least] = [each, cost];
    }
    order.push(best as Body);
    left.delete(best as Body);
    for (const term of (best as Body).terms) bound.add(term);
    if (decidedAt === Infinity && isDecided()) decidedAt = order.length;
  }
  return { rule, literal, order, decidedAt };
}

/** Are all heads known already? All their variables are bound. */
function isKnown({ heads, values }: Rule): boolean {
  for (const head of heads) if (head.relation.row(bind(head, values)) < 0) return false;
  return true;
}

const SCRATCH: number[] = [];

/** The tuple of a head; valid until the next call. */
function bind({ terms }: Body, values: Int32Array): number[] {
  SCRATCH.length = terms.length;
  for (let i = 0; i < terms.length; i++)
    SCRATCH[i] = (terms[i] as number) < 0 ? ~(terms[i] as number) : (values[terms[i] as number] as number);
  return SCRATCH;
}
