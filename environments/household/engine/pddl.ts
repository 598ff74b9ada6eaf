/**
 * Reads PDDL domains and problems as Fast Downward's translator does, since that is what ALFWorld's games were made with: everything is lower case, a
 * comma is an ordinary character, types nobody declared are no error. Whatever it does not know is refused by name (BadInput), never skipped.
 */
import { RatchetError } from '../../../core/errors.ts';

export interface Typed {
  name: string;
  type: string;
}

/** Variables start with `?`; any other term is the id of an object. */
export type Term = string;

/** In negation normal form: only literals are negated. `=` and type names are predicates like others. */
export type Formula =
  | { kind: 'literal'; negated: boolean; predicate: string; terms: Term[] }
  | { kind: 'and' | 'or'; parts: Formula[] }
  | { kind: 'exists'; variables: Typed[]; part: Formula };

export interface Effect {
  /** Bound by a `forall` around the effect. */
  variables: Typed[];
  condition: Formula;
  negated: boolean;
  predicate: string;
  terms: Term[];
}

export interface Operator {
  name: string;
  parameters: Typed[];
  precondition: Formula;
  effects: Effect[];
}

export interface Domain {
  name: string;
  /** Type -> its parent, in the order of declaration; `object` is its own. */
  types: Map<string, string>;
  constants: Typed[];
  /** Predicate -> number of its arguments. */
  predicates: Map<string, number>;
  operators: Operator[];
}

export interface Problem {
  domain: string;
  objects: Typed[];
  /** Atoms true at the start: predicate, then object ids. Genuine files name some twice. */
  initial: string[][];
  goal: Formula;
}

type Expression = string | Expression[];

export const TRUE: Formula = { kind: 'and', parts: [] };
/** Deeper nesting than any written domain has; reading is recursive. */
const DEEPEST = 100;

/** What stands between white space (as Python knows it), parentheses and question marks. */
const INSIDE = '[^\\s\\x1c-\\x1f()?]';
const TOKEN = new RegExp(`[()]|\\?${INSIDE}*|${INSIDE}+`, 'g');

/** One reading of one text: `what` (`domain`, `problem`) opens every message. */
class Reader {
  readonly #what: string;
  readonly #arities: ReadonlyMap<string, number>;
  readonly #types: ReadonlyMap<string, string>;

  constructor(what: string, arities: ReadonlyMap<string, number>, types: ReadonlyMap<string, string>) {
    this.#what = what;
    this.#arities = arities;
    this.#types = types;
  }

  refuse(problem: string): never {
    throw new RatchetError('BadInput', `${this.#what}: ${problem}`);
  }

  word(e: Expression | undefined, what: string): string {
    return typeof e === 'string' ? e : this.refuse(`${what} must be a word`);
  }

  list(e: Expression | undefined, what: string): Expression[] {
    return Array.isArray(e) ? e : this.refuse(`${what} must be a list`);
  }

  words(e: Expression | undefined, what: string): string[] {
    const list = this.list(e, what);
    if (list.length === 0 || list.some((each) => typeof each !== 'string')) this.refuse(`${what} must be a list of words`);
    return list as string[];
  }

  /** The expression of a whole text: one list and nothing after it. */
  expression(text: string): Expression[] {
    const bare = text.includes(';') ? text.replace(/;[^\n]*/g, '') : text;
    const strange = /[^\p{ASCII}]/u.exec(bare);
    if (strange !== null) this.refuse(`the character ${JSON.stringify(strange[0])} is not ASCII`);
    const stack: Expression[][] = [[]];
    for (const token of bare.toLowerCase().match(TOKEN) ?? []) {
      if (token === '(') {
        if (stack.length > DEEPEST) this.refuse(`parentheses are nested more than ${DEEPEST} deep`);
        if (stack.length === 1 && stack[0]?.length === 1) this.refuse('there is text after the end of the definition');
        stack.push([]);
      } else if (token === ')') {
        const list = stack.pop() as Expression[];
        if (stack.length === 0) this.refuse('a parenthesis is closed that was never opened');
        (stack.at(-1) as Expression[]).push(list);
      } else if (stack.length === 1) this.refuse(`"${token}" stands outside the definition`);
      else (stack.at(-1) as Expression[]).push(token);
    }
    if (stack.length !== 1) this.refuse('a parenthesis is never closed');
    return this.list(stack[0]?.[0], 'the definition');
  }

  /** `a b - t c` means a and b of type t, c of the type `otherwise`. */
  typed(list: Expression[], otherwise = 'object'): Typed[] {
    const out: Typed[] = [];
    let untyped = 0;
    for (let i = 0; i < list.length; i++) {
      const word = this.word(list[i], 'an entry of a typed list');
      if (word !== '-') out.push({ name: word, type: otherwise });
      else {
        const type = this.word(list[++i], 'a type');
        for (; untyped < out.length; untyped++) (out[untyped] as Typed).type = type;
      }
    }
    return out;
  }

  variables(e: Expression | undefined): Typed[] {
    const out = this.typed(this.list(e, 'a list of variables'));
    for (const { name } of out) if (!name.startsWith('?')) this.refuse(`"${name}" stands where a variable is expected`);
    return out;
  }

  literal(list: Expression[], negated: boolean): Extract<Formula, { kind: 'literal' }> {
    const [predicate, ...terms] = list.map((e) => this.word(e, 'a term of an atom')) as [string, ...string[]];
    const arity = this.#arities.get(predicate) ?? (this.#types.has(predicate) ? 1 : undefined);
    if (arity === undefined) this.refuse(`the predicate "${predicate}" is not declared`);
    if (arity !== terms.length) this.refuse(`"${predicate}" takes ${arity} terms, not ${terms.length}`);
    return { kind: 'literal', negated, predicate: this.#arities.has(predicate) ? predicate : typePredicate(predicate), terms };
  }

  formula(e: Expression | undefined, negated = false): Formula {
    const list = this.list(e, 'a formula');
    const head = this.word(list[0], 'the head of a formula');
    switch (head) {
      case 'not':
        if (list.length !== 2) this.refuse('"not" takes one formula');
        return this.formula(list[1], !negated);
      case 'and':
      case 'or':
        return { kind: (head === 'and') === negated ? 'or' : 'and', parts: list.slice(1).map((part) => this.formula(part, negated)) };
      case 'imply':
        if (list.length !== 3) this.refuse('"imply" takes two formulas');
        return { kind: negated ? 'and' : 'or', parts: [this.formula(list[1], !negated), this.formula(list[2], negated)] };
      case 'exists':
      case 'forall':
        if ((head === 'exists') !== negated) {
          if (list.length !== 3) this.refuse(`"${head}" takes variables and one formula`);
          return { kind: 'exists', variables: this.variables(list[1]), part: this.formula(list[2], negated) };
        }
        return this.refuse(`"${negated ? '(not (exists' : '(forall'} ...)" is not known in a condition`);
      case 'when':
      case 'preference':
        return this.refuse(`"${head}" is not known in a condition`);
      default:
        return this.literal(list, negated);
    }
  }

  effects(e: Expression | undefined, variables: Typed[], condition: Formula): Effect[] {
    const list = this.list(e, 'an effect');
    if (list.length === 0) return [];
    const head = this.word(list[0], 'the head of an effect');
    switch (head) {
      case 'and':
        return list.slice(1).flatMap((part) => this.effects(part, variables, condition));
      case 'forall':
        return this.effects(list[2], [...variables, ...this.variables(list[1])], condition);
      case 'when':
        return this.effects(list[2], variables, { kind: 'and', parts: [condition, this.formula(list[1])] });
      case 'increase':
        // Costs are for planners.
        if (JSON.stringify(list[1]) !== '["total-cost"]') this.refuse('"increase" is known for (total-cost) only');
        return [];
      case 'decrease':
      case 'assign':
      case 'scale-up':
      case 'scale-down':
      case 'or':
      case 'exists':
      case 'imply':
        return this.refuse(`"${head}" is not known in an effect`);
    }
    const { negated, predicate, terms } =
      head === 'not' ? this.literal(this.list(list[1], 'a negated effect'), true) : this.literal(list, false);
    if (predicate === '=' || !this.#arities.has(predicate)) this.refuse(`an effect cannot change "${predicate}"`);
    return [{ variables, condition, negated, predicate, terms }];
  }

  operator(list: Expression[]): Operator {
    const name = this.word(list[1], 'the name of an action');
    const parts = new Map<string, Expression>();
    for (let i = 2; i < list.length; i += 2) {
      const key = this.word(list[i], `a key of action ${name}`);
      if (![':parameters', ':precondition', ':effect'].includes(key) || parts.has(key) || list[i + 1] === undefined)
        this.refuse(`action ${name}: "${key}" is not known, is given twice, or has no value`);
      parts.set(key, list[i + 1] as Expression);
    }
    const precondition = parts.get(':precondition') ?? [];
    const operator: Operator = {
      name,
      parameters: this.variables(parts.get(':parameters') ?? []),
      precondition: precondition.length === 0 ? TRUE : this.formula(precondition),
      effects: this.effects(parts.get(':effect') ?? this.refuse(`action ${name} has no effect`), [], TRUE),
    };
    if (new Set(operator.parameters.map((p) => p.name)).size < operator.parameters.length)
      this.refuse(`action ${name}: a parameter is declared twice`);
    return operator;
  }
}

/** The predicate that says an object is of a type: a name that no text can spell. */
export const typePredicate = (type: string): string => `type@${type}`;

const REQUIREMENTS = new Set(
  'strips adl typing negation equality negative-preconditions disjunctive-preconditions existential-preconditions universal-preconditions quantified-preconditions conditional-effects derived-predicates action-costs'
    .split(' ')
    .map((name) => `:${name}`),
);

/** Throws RatchetError('BadInput') that names what is wrong or unknown. */
export function readDomain(text: string): Domain {
  const domain: Domain = {
    name: '',
    types: new Map([['object', 'object']]),
    constants: [],
    predicates: new Map([['=', 2]]),
    operators: [],
  };
  const reader = new Reader('domain', domain.predicates, domain.types);
  const sections = reader.expression(text);
  if (sections[0] !== 'define') reader.refuse('"(define" is expected at its beginning');
  const seen = new Set<string>();
  const operators: Expression[][] = [];
  for (const section of sections.slice(1)) {
    const list = reader.list(section, 'a section');
    const head = reader.word(list[0], 'the head of a section');
    if (head !== ':action' && seen.has(head)) reader.refuse(`there are two sections "${head}"`);
    seen.add(head);
    if (head === 'domain') domain.name = reader.word(list[1], 'its name');
    else if (head === ':requirements') {
      for (const each of list.slice(1))
        if (!REQUIREMENTS.has(reader.word(each, 'a requirement'))) reader.refuse(`the requirement "${each as string}" is not known`);
    } else if (head === ':types') {
      for (const { name, type } of reader.typed(list.slice(1))) {
        if (name !== 'object' && domain.types.has(name)) reader.refuse(`the type "${name}" is declared twice`);
        domain.types.set(name, type);
      }
    } else if (head === ':constants') domain.constants = reader.typed(list.slice(1));
    else if (head === ':predicates') {
      for (const each of list.slice(1)) {
        const [name, ...parameters] = reader.list(each, 'a predicate');
        const word = reader.word(name, 'the name of a predicate');
        // To texts, `not_p` is what became of p.
        if (word.startsWith('not_')) reader.refuse(`the predicate "${word}" cannot be told from the negation of another`);
        domain.predicates.set(word, reader.variables(parameters).length);
      }
    } else if (head === ':action') operators.push(list);
    else if (head !== ':functions') reader.refuse(`the section "${head}" is not known`);
  }
  if (domain.name === '') reader.refuse('it has no name');
  for (const list of operators) {
    const operator = reader.operator(list);
    if (domain.operators.some(({ name }) => name === operator.name)) reader.refuse(`action ${operator.name} is defined twice`);
    // An action without effects does not exist for Fast Downward.
    if (operator.effects.length > 0) domain.operators.push(operator);
  }
  return domain;
}

/** Throws RatchetError('BadInput') that names what is wrong or unknown. */
export function readProblem(text: string, domain: Domain): Problem {
  const reader = new Reader('problem', domain.predicates, domain.types);
  const sections = reader
    .expression(text)
    .slice(1)
    .map((section) => reader.list(section, 'a section'));
  const order = ['problem', ':domain', ':requirements', ':objects', ':init', ':goal', ':metric'];
  const given = new Map<string, Expression[]>();
  let last = -1;
  for (const list of sections) {
    const head = reader.word(list[0], 'the head of a section');
    const place = order.indexOf(head);
    if (place < 0) reader.refuse(`the section "${head}" is not known`);
    if (place <= last) reader.refuse(`the section "${head}" is misplaced`);
    last = place;
    given.set(head, list.slice(1));
  }
  for (const head of ['problem', ':domain', ':init', ':goal']) if (!given.has(head)) reader.refuse(`the section "${head}" is missing`);
  const problem: Problem = {
    domain: reader.word(given.get(':domain')?.[0], 'the name of the domain'),
    objects: [],
    initial: [],
    goal: TRUE,
  };
  if (problem.domain !== domain.name) reader.refuse(`it is for the domain "${problem.domain}", not "${domain.name}"`);
  problem.objects = [...domain.constants, ...reader.typed(given.get(':objects') ?? [])];
  const ids = new Set<string>();
  for (const { name, type } of problem.objects) {
    if (ids.has(name)) reader.refuse(`the object "${name}" is declared twice`);
    if (!domain.types.has(type)) reader.refuse(`the object "${name}" has the unknown type "${type}"`);
    ids.add(name);
  }
  const denied: string[] = [];
  for (const each of given.get(':init') as Expression[]) {
    const fact = reader.list(each, 'a fact');
    if (fact[0] === '=') {
      if (typeof fact[2] !== 'string' || !/^\d+(?:\.0*)?$/.test(fact[2])) reader.refuse('a value at the start must be a whole number');
      continue;
    }
    const words = reader.words(fact[0] === 'not' ? fact[1] : fact, 'a fact');
    for (let i = 1; i < words.length; i++)
      if (!ids.has(words[i] as string)) reader.refuse(`(${words.join(' ')}) names the undeclared object "${words[i]}"`);
    if (fact[0] === 'not') denied.push(words.join(' '));
    else problem.initial.push(words);
  }
  if (denied.length > 0) {
    const facts = new Set(problem.initial.map((words) => words.join(' ')));
    for (const fact of denied) if (facts.has(fact)) reader.refuse(`(${fact}) is true and false at the start`);
  }
  const goal = given.get(':goal') as Expression[];
  if (goal.length !== 1) reader.refuse('the goal must be one formula');
  problem.goal = reader.formula(goal[0]);
  return problem;
}
