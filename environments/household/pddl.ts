/**
 * Reads a PDDL domain: types, predicates, actions. Whatever it does not know is refused by name (BadInput), never skipped, so a domain that
 * loads means exactly what its text says.
 */
import { RatchetError } from '../../core/errors.ts';

/** A variable (`?r`, without the question mark) or a parameter slot, with its type. */
export interface Typed {
  name: string;
  type: string;
}

/** A term of an atom: a variable or a constant (an entity's id). */
export type Term = { variable: string } | { constant: string };

export type Formula =
  | { kind: 'and' | 'or'; parts: Formula[] }
  | { kind: 'not'; part: Formula }
  | { kind: 'exists' | 'forall'; variables: Typed[]; part: Formula }
  | { kind: 'atom'; predicate: string; terms: Term[] }
  | { kind: 'equal'; terms: [Term, Term] };

/** One change that an action makes, where its condition held before the action. */
export interface Effect {
  condition: Formula | null;
  /** true: the atom becomes true; false: it becomes false. Where one action does both to an atom, true wins (PDDL's delete-then-add). */
  becomes: boolean;
  predicate: string;
  terms: Term[];
}

export interface Operator {
  name: string;
  parameters: Typed[];
  precondition: Formula;
  effects: Effect[];
}

export interface Predicate {
  name: string;
  parameters: Typed[];
}

export interface Domain {
  name: string;
  /** Type -> its parent; every chain ends at `object`, whose parent is null. */
  types: Map<string, string | null>;
  predicates: Map<string, Predicate>;
  operators: Operator[];
}

type Expression = string | Expression[];

function refuse(what: string): never {
  throw new RatchetError('BadInput', `domain: ${what}`);
}

/** Nested lists of lower-case words. `;` starts a comment. */
export function readExpressions(text: string): Expression[] {
  const stack: Expression[][] = [[]];
  const words = text.replace(/;[^\n]*/g, '').match(/[()]|[^\s()]+/g) ?? [];
  for (const word of words) {
    if (word === '(') stack.push([]);
    else if (word === ')') {
      const list = stack.pop() as Expression[];
      if (stack.length === 0) refuse('a parenthesis is closed that was never opened');
      stack.at(-1)?.push(list);
    } else stack.at(-1)?.push(word.toLowerCase());
  }
  if (stack.length !== 1) refuse('a parenthesis is never closed');
  return stack[0] as Expression[];
}

const wordOf = (e: Expression | undefined, what: string): string => (typeof e === 'string' ? e : refuse(`${what} must be a word`));
const listOf = (e: Expression | undefined, what: string): Expression[] => (Array.isArray(e) ? e : refuse(`${what} must be a list`));

/** `a b - t c` means a and b of type t, c of type object. Question marks are dropped. */
function readTyped(list: Expression[]): Typed[] {
  const out: Typed[] = [];
  let untyped = 0;
  for (let i = 0; i < list.length; i++) {
    const word = wordOf(list[i], 'an entry of a typed list');
    if (word === '-') {
      const type = wordOf(list[++i], 'a type');
      for (; untyped < out.length; untyped++) (out[untyped] as Typed).type = type;
    } else out.push({ name: word.replace(/^\?/, ''), type: 'object' });
  }
  return out;
}

const readTerm = (e: Expression): Term => {
  const word = wordOf(e, 'a term');
  return word.startsWith('?') ? { variable: word.slice(1) } : { constant: word };
};

export function readFormula(e: Expression): Formula {
  const [head, ...rest] = listOf(e, 'a formula');
  if (head === undefined) return { kind: 'and', parts: [] };
  const word = wordOf(head, 'the head of a formula');
  if (word === 'and' || word === 'or') return { kind: word, parts: rest.map(readFormula) };
  if (word === 'not') return { kind: 'not', part: readFormula(rest[0] ?? []) };
  if (word === 'exists' || word === 'forall')
    return { kind: word, variables: readTyped(listOf(rest[0], 'quantified variables')), part: readFormula(rest[1] ?? []) };
  if (word === '=') return { kind: 'equal', terms: [readTerm(rest[0] ?? []), readTerm(rest[1] ?? [])] };
  if (word === 'imply' || word === 'when') refuse(`"${word}" is not known in a formula`);
  return { kind: 'atom', predicate: word, terms: rest.map(readTerm) };
}

function readEffects(e: Expression, condition: Formula | null): Effect[] {
  const [head, ...rest] = listOf(e, 'an effect');
  if (head === undefined) return [];
  const word = wordOf(head, 'the head of an effect');
  if (word === 'and') return rest.flatMap((part) => readEffects(part, condition));
  if (word === 'when') {
    if (condition !== null) refuse('a "when" inside a "when" is not known');
    return readEffects(rest[1] ?? [], readFormula(rest[0] ?? []));
  }
  if (['forall', 'increase', 'decrease', 'assign', 'or', 'exists'].includes(word)) refuse(`"${word}" is not known in an effect`);
  const becomes = word !== 'not';
  const [predicate, ...terms] = becomes ? [head, ...rest] : listOf(rest[0], 'a negated effect');
  return [{ condition, becomes, predicate: wordOf(predicate, 'a predicate'), terms: terms.map(readTerm) }];
}

function readOperator(list: Expression[]): Operator {
  const name = wordOf(list[1], 'the name of an action');
  const operator: Operator = { name, parameters: [], precondition: { kind: 'and', parts: [] }, effects: [] };
  for (let i = 2; i < list.length; i += 2) {
    const key = wordOf(list[i], `a key of action ${name}`);
    const value = list[i + 1] ?? [];
    if (key === ':parameters') operator.parameters = readTyped(listOf(value, key));
    else if (key === ':precondition') operator.precondition = readFormula(value);
    else if (key === ':effect') operator.effects = readEffects(value, null);
    else refuse(`action ${name}: "${key}" is not known`);
  }
  return operator;
}

/** Throws RatchetError('BadInput') that names what is wrong or unknown. */
export function readDomain(text: string): Domain {
  const [define, ...surplus] = readExpressions(text);
  if (surplus.length > 0) refuse('there is text after the end of the definition');
  const sections = listOf(define, 'the definition');
  const domain: Domain = { name: '', types: new Map([['object', null]]), predicates: new Map(), operators: [] };
  for (const section of sections.slice(1)) {
    const list = listOf(section, 'a section');
    const head = wordOf(list[0], 'the head of a section');
    if (head === 'domain') domain.name = wordOf(list[1], 'the name of the domain');
    else if (head === ':types') {
      for (const { name, type } of readTyped(list.slice(1))) if (name !== 'object') domain.types.set(name, type);
    } else if (head === ':predicates') {
      for (const each of list.slice(1)) {
        const [name, ...parameters] = listOf(each, 'a predicate');
        const predicate = { name: wordOf(name, 'the name of a predicate'), parameters: readTyped(parameters) };
        domain.predicates.set(predicate.name, predicate);
      }
    } else if (head === ':action') domain.operators.push(readOperator(list));
    else if (head !== ':requirements') refuse(`section "${head}" is not known`);
  }
  // A parent that is named but never declared is a type of its own, as in Fast Downward.
  for (const parent of domain.types.values()) if (parent !== null && !domain.types.has(parent)) domain.types.set(parent, 'object');
  check(domain);
  return domain;
}

function check(domain: Domain): void {
  const atom = (where: string, predicate: string, terms: Term[]): void => {
    const known = domain.predicates.get(predicate) ?? refuse(`${where}: predicate "${predicate}" is not declared`);
    if (known.parameters.length !== terms.length)
      refuse(`${where}: ${predicate} takes ${known.parameters.length} terms, not ${terms.length}`);
  };
  const formula = (where: string, f: Formula): void => {
    if (f.kind === 'atom') atom(where, f.predicate, f.terms);
    else if ('parts' in f) f.parts.forEach((part) => formula(where, part));
    else if (f.kind !== 'equal') formula(where, f.part);
  };
  for (const operator of domain.operators) {
    const where = `action ${operator.name}`;
    for (const { name, type } of operator.parameters)
      if (!domain.types.has(type)) refuse(`${where}: parameter ${name} has the unknown type ${type}`);
    formula(where, operator.precondition);
    for (const effect of operator.effects) {
      atom(where, effect.predicate, effect.terms);
      if (effect.condition !== null) formula(where, effect.condition);
    }
  }
}
