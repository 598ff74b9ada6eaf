/**
 * Brings formulas into disjunctive normal form, as Fast Downward does: a disjunction splits an action into several of the same name, and a variable
 * under `exists` becomes a hidden parameter. It refuses formulas that explode.
 */
import { RatchetError } from '../../../core/errors.ts';
import type { Formula, Term, Typed } from './pddl.ts';

export interface Literal {
  negated: boolean;
  predicate: string;
  terms: Term[];
}

/** All literals hold for some value of the hidden variables. */
export interface Conjunction {
  hidden: Typed[];
  literals: Literal[];
}

/** Far above what a written formula splits into (ALFRED's actions: 2). */
const MOST_DISJUNCTS = 256;

/** Without constant parts, which Fast Downward drops first: then even `exists` over no object is true where its formula is. */
function simplified(f: Formula): Formula | boolean {
  if (f.kind === 'literal') return f;
  if (f.kind === 'exists') {
    const part = simplified(f.part);
    return typeof part === 'boolean' ? part : { ...f, part };
  }
  const neutral = f.kind === 'and';
  const parts: Formula[] = [];
  for (const each of f.parts) {
    const part = simplified(each);
    if (part === !neutral) return part;
    if (typeof part !== 'boolean') parts.push(part);
  }
  return parts.length === 0 ? neutral : { kind: f.kind, parts };
}

/** The formula as a disjunction of conjunctions; hidden variables get names of their own. Throws RatchetError('BadInput') where there are too many. */
export function disjuncts(formula: Formula, what: string): Conjunction[] {
  let renamed = 0;
  const walk = (f: Formula, names: ReadonlyMap<string, string>): Conjunction[] => {
    if (f.kind === 'literal') {
      const { negated, predicate, terms } = f;
      return [{ hidden: [], literals: [{ negated, predicate, terms: terms.map((term) => names.get(term) ?? term) }] }];
    }
    if (f.kind === 'exists') {
      const inner = new Map(names);
      const hidden = f.variables.map(({ name, type }) => {
        const own = `${name}@${renamed++}`;
        inner.set(name, own);
        return { name: own, type };
      });
      return walk(f.part, inner).map((each) => ({ hidden: [...hidden, ...each.hidden], literals: each.literals }));
    }
    const parts = f.parts.map((part) => walk(part, names));
    let out: Conjunction[] = f.kind === 'or' ? parts.flat() : [{ hidden: [], literals: [] }];
    if (f.kind === 'and')
      for (const part of parts) {
        if (out.length * part.length > MOST_DISJUNCTS) throw tooMany(what);
        out = out.flatMap((a) => part.map((b) => ({ hidden: [...a.hidden, ...b.hidden], literals: [...a.literals, ...b.literals] })));
      }
    if (out.length > MOST_DISJUNCTS) throw tooMany(what);
    return out;
  };
  const simple = simplified(formula);
  if (simple === false) return [];
  return simple === true ? [{ hidden: [], literals: [] }] : walk(simple, new Map());
}

const tooMany = (what: string): RatchetError =>
  new RatchetError('BadInput', `${what}: the formula splits into more than ${MOST_DISJUNCTS} cases`);
