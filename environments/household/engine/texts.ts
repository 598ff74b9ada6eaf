/**
 * Expands the words of a game over its facts, as TextWorld does: the first alternative that applies, lists in the order of ids, and different
 * placeholders never bind the same object. Texts are compiled for the variables that are bound where they stand, so what could never be said is found
 * when a game is loaded; it refuses such grammars.
 */
import type { Domain } from './pddl.ts';
import type { Relation, Relations } from './relations.ts';
import { FACT, NOT_FACT } from './state.ts';
import type { Cells, State } from './state.ts';
import { readCondition, readText, refuse } from './twl2.ts';
import type { Attribute, Expression, Placeholder, Query, Symbol, Words } from './twl2.ts';
import { typeTuples } from './type-tuples.ts';

/** What is bound where a text stands: placeholder (name and type) -> its slot; the variables that expressions see, by name; the slots in use. */
interface Scope {
  slots: ReadonlyMap<string, number>;
  variables: ReadonlyMap<string, number>;
}

/** Where the arguments of an action are bound, and the types that its parameters have. */
export interface Slots {
  numbers: readonly number[];
  types: readonly string[];
}

/** A compiled text. */
export type Template = readonly Piece[];

type Piece =
  | string
  | { kind: 'value'; of: (values: readonly number[]) => string }
  | { kind: 'choice'; rule: string; alternatives: readonly { match: Match | null; template: Template }[] }
  | { kind: 'each'; match: Match | null; template: Template; list: { empty: Template; separator: Template; last: Template } | null };

/** A conjunction of facts to be matched, from left to right. */
interface Match {
  asked: readonly Asked[];
}

interface Asked {
  relation: Relation | null;
  /** The bit that makes an atom the fact that is asked for. */
  bit: number;
  types: readonly string[];
  slots: readonly number[];
  /** The slots that this fact binds. */
  fresh: readonly number[];
  /** The slots that are bound before it. */
  bound: readonly number[];
  /** Bound values -> the rows that can match, in the order in which TextWorld tries them. */
  rows: Map<number, Rows>;
}

interface Rows {
  /** -1: a fact for ever. */
  atoms: readonly number[];
  /** Row after row, what the fresh slots are bound to. */
  values: readonly number[];
}

export class Texts {
  readonly #words: Words;
  readonly #relations: Relations;
  readonly #cells: Cells;
  readonly #domain: Domain;
  /** Object -> how it is called. */
  readonly #names: readonly string[];
  readonly #compiled = new Map<string, Piece>();
  readonly #compiling = new Set<string>();
  readonly #slotNumbers = new Map<string, number>();
  readonly #values: number[] = [];
  /** Since the last `bind`. */
  #tried = 0;

  constructor(words: Words, domain: Domain, relations: Relations, cells: Cells, names: readonly string[]) {
    this.#words = words;
    this.#domain = domain;
    this.#relations = relations;
    this.#cells = cells;
    this.#names = names;
  }

  /** Compiles a text in which these placeholders are bound, in slots 0, 1, ... `fluents` gets every predicate that the text depends on and that can change. */
  compile(text: string, bound: readonly Placeholder[], fluents: Set<string> = new Set()): Template {
    const slots = new Map<string, number>();
    const variables = new Map<string, number>();
    for (const placeholder of bound) {
      slots.set(keyOf(placeholder), this.#slotOf(placeholder));
      variables.set(placeholder.name, this.#slotOf(placeholder));
    }
    const template = this.#template(text, { slots, variables });
    for (const each of fluentsOf(template)) fluents.add(each);
    return template;
  }

  /** Where `bind` finds these placeholders. */
  slotsOf(placeholders: readonly Placeholder[]): Slots {
    return { numbers: placeholders.map((placeholder) => this.#slotOf(placeholder)), types: placeholders.map(({ type }) => type) };
  }

  /**
   * Values for `write`: slots bound to objects. Valid until the next call. To TextWorld, an object bound to a parameter of another type than its own
   * (say a supertype) is another object than the one of the facts: it has a name, but no fact is about it. Such values are above all objects' numbers.
   */
  bind({ numbers, types }: Slots, objects: ArrayLike<number>): number[] {
    this.#tried = 0;
    const values = this.#values;
    const count = this.#names.length;
    for (let i = 0; i < numbers.length; i++) {
      const object = objects[i] as number;
      values[numbers[i] as number] = this.#relations.objects.types[object] === types[i] ? object : object + count;
    }
    return values;
  }

  write(template: Template, values: number[], state: State): string {
    let out = '';
    for (const piece of template) {
      if (typeof piece === 'string') out += piece;
      else if (piece.kind === 'value') out += piece.of(values);
      else if (piece.kind === 'choice') {
        const chosen = piece.alternatives.find(({ match }) => match === null || this.#matches(match, 0, values, state, stop));
        if (chosen === undefined) refuse(`no alternative of rule "${piece.rule}" applies`);
        out += this.write(chosen.template, values, state);
      } else out += this.#each(piece, values, state);
    }
    return out;
  }

  #each({ match, template, list }: Extract<Piece, { kind: 'each' }>, values: number[], state: State): string {
    if (match === null) return this.write(template, values, state);
    const copies: string[] = [];
    this.#matches(match, 0, values, state, () => {
      copies.push(this.write(template, values, state));
      return false;
    });
    if (list === null) return copies.join('');
    if (copies.length === 0) return this.write(list.empty, values, state);
    const last = copies.pop() as string;
    if (copies.length === 0) return last;
    return copies.join(this.write(list.separator, values, state)) + this.write(list.last, values, state) + last;
  }

  /** Calls `found` for every match, until it returns true. Throws RatchetError('BadInput') where there is no end to it. */
  #matches({ asked }: Match, depth: number, values: number[], state: State, found: () => boolean): boolean {
    const fact = asked[depth];
    if (fact === undefined) return found();
    const { fresh, bound, bit } = fact;
    const { atoms, values: objects } = this.#rows(fact, values);
    rows: for (let row = 0; row < atoms.length; row++) {
      if (++this.#tried > MOST_TRIED) refuse(`a text needs more than ${MOST_TRIED} facts to be tried`);
      const atom = atoms[row] as number;
      if (atom >= 0 && (this.#cells.bits(state, atom) & bit) === 0) continue;
      for (let i = 0; i < fresh.length; i++) {
        const object = objects[row * fresh.length + i] as number;
        for (const slot of bound) if (values[slot] === object) continue rows;
        for (let j = 0; j < i; j++) if (values[fresh[j] as number] === object) continue rows;
        values[fresh[i] as number] = object;
      }
      if (this.#matches({ asked }, depth + 1, values, state, found)) return true;
    }
    return false;
  }

  #rows(fact: Asked, values: readonly number[]): Rows {
    let key = 0;
    const { slots, fresh } = fact;
    for (const slot of slots) {
      if (fresh.includes(slot)) continue;
      if ((values[slot] as number) >= this.#names.length) return NO_ROWS;
      key = key * this.#names.length + (values[slot] as number);
    }
    let rows = fact.rows.get(key);
    if (rows === undefined) fact.rows.set(key, (rows = this.#findRows(fact, values)));
    return rows;
  }

  #findRows({ relation, slots, fresh, types, bit }: Asked, values: readonly number[]): Rows {
    if (relation === null || (bit === NOT_FACT && !relation.fluent)) return NO_ROWS;
    const { objects } = this.#relations;
    const found = new Map<string, number[][]>();
    let chosen: readonly number[] | null = null;
    slots.forEach((slot, i) => {
      if (fresh.includes(slot)) return;
      const rows = (relation.rowsWith[i] as number[][])[values[slot] as number] ?? [];
      if (chosen === null || rows.length < chosen.length) chosen = rows;
    });
    for (const row of (chosen as readonly number[] | null) ?? relation.atoms.keys()) {
      const tuple = relation.values.slice(row * relation.arity, (row + 1) * relation.arity);
      const fits = slots.every((slot, i) => (fresh.includes(slot) ? tuple[slots.indexOf(slot)] === tuple[i] : values[slot] === tuple[i]));
      if (!fits) continue;
      const key = tuple.map((object) => objects.types[object]).join(' ');
      const same = found.get(key);
      const entry = [...tuple, relation.atoms[row] as number];
      if (same === undefined) found.set(key, [entry]);
      else same.push(entry);
    }
    const out: number[][] = [];
    if (found.size > 0)
      for (const tuple of typeTuples(types, this.#domain.types)) {
        const same = found.get(tuple);
        if (same !== undefined) out.push(...same.sort(inOrder));
      }
    return {
      atoms: out.map((entry) => entry.at(-1) as number),
      values: out.flatMap((entry) => fresh.map((slot) => entry[slots.indexOf(slot)] as number)),
    };
  }

  #template(text: string, scope: Scope): Template {
    return readText(text).map((symbol) => this.#piece(symbol, scope));
  }

  #piece(symbol: Symbol, scope: Scope): Piece {
    if (symbol.kind === 'text') return symbol.text;
    if (symbol.kind === 'rule') return this.#rule(symbol.rule, scope);
    const { what, condition, isList } = symbol;
    const [match, inner] = condition === null ? [null, scope] : this.#match(condition, scope);
    const template = [what.kind === 'rule' ? this.#rule(what.rule, inner) : this.#value(what.expression, inner)];
    const list =
      isList && match !== null
        ? {
            empty: [this.#rule('list_empty', scope)],
            separator: [this.#rule('list_separator', scope)],
            last: [this.#rule('list_last_separator', scope)],
          }
        : null;
    return { kind: 'each', match, template, list };
  }

  #rule(rule: string, scope: Scope): Piece {
    const key = JSON.stringify([rule, [...scope.slots.keys()], [...scope.variables]]);
    const known = this.#compiled.get(key);
    if (known !== undefined) return known;
    const alternatives = this.#words.rules.get(rule);
    if (alternatives === undefined || alternatives.length === 0) return refuse(`there is no rule "${rule}"`);
    if (this.#compiling.has(key)) return refuse(`rule "${rule}" needs itself`);
    this.#compiling.add(key);
    const compiled = alternatives.map(({ condition, text }) => ({
      match: condition === '' ? null : this.#match(readCondition(condition), scope)[0],
      template: this.#template(text, scope),
    }));
    const [only] = compiled;
    const constant = compiled.length === 1 && only?.match === null && only.template.every((piece) => typeof piece === 'string');
    const piece: Piece = constant
      ? (only as { template: readonly string[] }).template.join('')
      : { kind: 'choice', rule, alternatives: compiled };
    this.#compiling.delete(key);
    this.#compiled.set(key, piece);
    return piece;
  }

  #slotOf(placeholder: Placeholder): number {
    const key = keyOf(placeholder);
    let slot = this.#slotNumbers.get(key);
    if (slot === undefined) this.#slotNumbers.set(key, (slot = this.#slotNumbers.size));
    return slot;
  }

  #match(queries: readonly Query[], scope: Scope): [Match, Scope] {
    const slots = new Map(scope.slots);
    const asked = queries.map(({ predicate, placeholders }): Asked => {
      const bound = [...slots.values()];
      const fresh: number[] = [];
      for (const placeholder of placeholders) {
        if (!this.#domain.types.has(placeholder.type))
          refuse(`${predicate}(${placeholder.name}:${placeholder.type}): the type is not declared`);
        if (slots.has(keyOf(placeholder))) continue;
        slots.set(keyOf(placeholder), this.#slotOf(placeholder));
        fresh.push(this.#slotOf(placeholder));
      }
      const isNot = predicate.startsWith('not_');
      const relation = this.#relations.known(isNot ? predicate.slice('not_'.length) : predicate) ?? null;
      return {
        relation: relation !== null && relation.arity === placeholders.length ? relation : null,
        bit: isNot ? NOT_FACT : FACT,
        types: placeholders.map((placeholder) => placeholder.type),
        slots: placeholders.map((placeholder) => this.#slotOf(placeholder)),
        fresh,
        bound,
        rows: new Map(),
      };
    });
    const variables = new Map(scope.variables);
    for (const key of slots.keys()) variables.set(key.slice(0, key.indexOf(' ')), slots.get(key) as number);
    return [{ asked }, { slots, variables }];
  }

  #value(expression: Expression, scope: Scope): Piece {
    const used = new Set<number>();
    const of = this.#evaluator(expression, scope, used);
    const [slot, ...others] = used;
    if (slot === undefined) return of([]);
    if (others.length > 0) return { kind: 'value', of };
    const known: string[] = [];
    return {
      kind: 'value',
      of: (values) => (known[values[slot] as number] ??= of(values)),
    };
  }

  #evaluator(expression: Expression, scope: Scope, used: Set<number>): (values: readonly number[]) => string {
    switch (expression.kind) {
      case 'text':
        return () => expression.text;
      case 'attribute': {
        const slot =
          scope.variables.get(expression.variable) ?? refuse(`the variable "${expression.variable}" is not bound where it is used`);
        used.add(slot);
        return (values) => this.#attribute(values[slot] as number, expression.attribute);
      }
      case 'or':
      case 'sum': {
        const parts = expression.parts.map((part) => this.#evaluator(part, scope, used));
        if (expression.kind === 'sum') return (values) => parts.map((part) => part(values)).join('');
        return (values) => {
          let text = '';
          for (const part of parts) if ((text = part(values)) !== '') break;
          return text;
        };
      }
    }
  }

  #attribute(value: number, attribute: Attribute): string {
    const object = value % this.#names.length;
    if (attribute === 'name') return this.#names[object] as string;
    if (attribute === 'indefinite') return 'a';
    if (attribute === 'definite') return 'the';
    return (attribute === 'id' ? this.#relations.objects.ids : this.#relations.objects.types)[object] as string;
  }
}

/** Facts tried for one text; ALFWorld's need some hundreds. */
const MOST_TRIED = 1_000_000;
const NO_ROWS: Rows = { atoms: [], values: [] };
const stop = (): boolean => true;
const keyOf = ({ name, type }: Placeholder): string => `${name} ${type}`;

function inOrder(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return (a[i] as number) - (b[i] as number);
  return 0;
}

function fluentsOf(template: Template, out = new Set<string>()): Set<string> {
  for (const piece of template) {
    if (typeof piece === 'string' || piece.kind === 'value') continue;
    const parts = piece.kind === 'choice' ? piece.alternatives : [piece];
    for (const { match, template: inner } of parts) {
      for (const { relation } of match?.asked ?? []) if (relation?.fluent) out.add(relation.name);
      fluentsOf(inner, out);
    }
    if (piece.kind === 'each' && piece.list !== null) for (const each of Object.values(piece.list)) fluentsOf(each, out);
  }
  return out;
}
