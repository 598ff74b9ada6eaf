/**
 * Reads the words of a game in TextWorld's twl2 notation, exactly as TextWorld's own parsers do, odd ends included: text after a character that fits
 * nowhere is lost, white space at the very start is eaten. Nothing is expanded here; `texts.ts` does that.
 *
 * - `{r.name}`, `{o.indefinite + ' ' + o.name}`: an expression over bound variables. `{expression | condition}`: one copy for every match.
 * - `[{expression | condition}]`: the copies as a list, "a, and b". `#rule#`: the first alternative of the rule whose condition matches.
 * - A condition is a conjunction of facts, `openable(r:receptacle) & inreceptacle(o:object, r:receptacle)`.
 */
import { RatchetError } from '../../../core/errors.ts';
import { memo } from './memo.ts';

export interface Words {
  /** Rule -> its alternatives, in order. */
  rules: ReadonlyMap<string, readonly { condition: string; text: string }[]>;
  /** Action (lower case) -> the text of its command and of what is said after it. */
  actions: ReadonlyMap<string, { template: string; feedback: string }>;
}

export interface Placeholder {
  name: string;
  type: string;
}

/** A fact asked for: its name (with `not_` where it is one) and what its arguments are bound to. */
export interface Query {
  predicate: string;
  placeholders: readonly Placeholder[];
}

export type Attribute = 'name' | 'id' | 'type' | 'indefinite' | 'definite';
/** `or` takes the first alternative that is not empty; `sum` joins its parts. */
export type Expression =
  | { kind: 'text'; text: string }
  | { kind: 'attribute'; variable: string; attribute: Attribute }
  | { kind: 'or' | 'sum'; parts: readonly Expression[] };

export type Symbol =
  | { kind: 'text'; text: string }
  | { kind: 'rule'; rule: string }
  | {
      kind: 'each';
      what: { kind: 'rule'; rule: string } | { kind: 'expression'; expression: Expression };
      condition: readonly Query[] | null;
      isList: boolean;
    };

export function refuse(what: string): never {
  throw new RatchetError('BadInput', `grammar: ${what}`);
}

/** White space as Python's `\s` and `str.strip` know it: the inside of a character class. */
export const SPACE = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
/** Python's `\w`. */
const WORD = '\\p{L}\\p{N}_';

const pattern = (source: string): RegExp => new RegExp(source, 'uy');
const NAME = pattern(`[${WORD}/-]+`);
const STRING = /"[^"]*"/y;
const BLOCK = /"""[^]*?"""/y;
const BETWEEN = pattern(`(?:[${SPACE}]+|#[^\\n]*)*`);

/** A text and how far it is read. */
class Cursor {
  readonly text: string;
  at = 0;

  constructor(text: string) {
    this.text = text;
  }

  /** What the pattern matches here, null if nothing; only a match moves on. */
  take(pattern: RegExp): string | null {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text)?.[0];
    if (found === undefined) return null;
    this.at += found.length;
    return found;
  }

  takes(token: string): boolean {
    const fits = this.text.startsWith(token, this.at);
    if (fits) this.at += token.length;
    return fits;
  }
}

/** Documents that are kept: every task sentence makes another. */
const KEPT_DOCUMENTS = 64;
/** Texts and conditions that are kept; a grammar has about 100. */
const KEPT_TEXTS = 2048;

/** The words of a game. Throws RatchetError('BadInput') for a document that TextWorld would not read. */
export const readWords = memo(KEPT_DOCUMENTS, readDocument);

function readDocument(document: string): Words {
  const cursor = new Cursor(document);
  const rules = new Map<string, { condition: string; text: string }[]>();
  const actions = new Map<string, { template: string; feedback: string }>();
  const here = (): string => `near ${JSON.stringify(document.slice(cursor.at, cursor.at + 30))}`;
  const token = (wanted: string): boolean => {
    cursor.take(BETWEEN);
    return cursor.takes(wanted);
  };
  const demand = (wanted: string): void => {
    if (!token(wanted)) refuse(`"${wanted}" is expected ${here()}`);
  };
  const value = (kind: RegExp, quotes: number): string => {
    demand('::');
    cursor.take(BETWEEN);
    const found = cursor.take(kind) ?? refuse(`a text in quotes is expected ${here()}`);
    demand(';');
    return found.slice(quotes, -quotes);
  };
  for (;;) {
    if (token('grammar')) readRules(value(BLOCK, 3), rules);
    else if (token('action')) {
      cursor.take(BETWEEN);
      const name = (cursor.take(NAME) ?? refuse(`the name of an action is expected ${here()}`)).toLowerCase();
      const given = new Map<string, string>();
      demand('{');
      while (!token('}')) {
        const key =
          ['template', 'feedback', 'pddl', 'grammar'].find(token) ?? refuse(`action ${name}: nothing is known that begins ${here()}`);
        if (given.has(key)) refuse(`action ${name}: "${key}" is given twice`);
        given.set(key, key === 'pddl' || key === 'grammar' ? value(BLOCK, 3) : value(STRING, 1));
      }
      const block = given.get('grammar');
      if (block !== undefined) readRules(block.replace(/^[^\S\n]*#.*$/gm, ''), rules);
      const [template, feedback] = [given.get('template'), given.get('feedback')];
      if (template === undefined || feedback === undefined) refuse(`action ${name}: it needs a template and a feedback`);
      actions.set(name, { template, feedback });
    } else break;
  }
  cursor.take(BETWEEN);
  if (cursor.at < document.length) refuse(`an action or a grammar is expected ${here()}`);
  return { rules, actions };
}

/** Adds the rules of a JSON block; a rule of the same name is replaced. */
function readRules(block: string, rules: Map<string, { condition: string; text: string }[]>): void {
  let json: unknown;
  try {
    json = JSON.parse(block);
  } catch (error) {
    refuse(`a block of rules is not JSON: ${(error as Error).message}`);
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) refuse('a block of rules must be a JSON object');
  for (const [name, alternatives] of Object.entries(json)) {
    if (!Array.isArray(alternatives)) refuse(`rule "${name}" must be a list of alternatives`);
    const read = alternatives.map((each: unknown) => {
      const { rhs, condition = '' } = (typeof each === 'object' && each !== null ? each : {}) as { rhs?: unknown; condition?: unknown };
      if (typeof rhs !== 'string' || (condition !== null && typeof condition !== 'string'))
        return refuse(`rule "${name}": an alternative needs a text "rhs", and a text where it has a "condition"`);
      return { condition: condition ?? '', text: rhs };
    });
    rules.set(name, read);
  }
}

const TABS = /\t*/y;
const START = pattern(`(?://[^\\n]*|[${SPACE}]*)\\n?`);
const LITERAL = /[^;|"<>[\]#{}]*/y;
const TAG = pattern(`[${WORD}()/!<>\\-${SPACE},.]+`);
const STATEMENT = /[^|[\]{}\n<>]+/y;
const BAR = pattern(`[${SPACE}]*\\|[${SPACE}]*`);
const GIVEN = /[^;|{}\n[\]#]+/y;

/** The symbols of a text. What does not fit ends it silently, as in TextWorld; expressions and conditions in it are read in earnest. */
export const readText = memo(KEPT_TEXTS, readSymbols);

function readSymbols(text: string): readonly Symbol[] {
  const cursor = new Cursor(text);
  const symbols: Symbol[] = [];
  cursor.take(TABS);
  if (cursor.at === 0) {
    cursor.take(START);
    cursor.take(TABS);
  }
  for (;;) {
    const from = cursor.at;
    cursor.take(TABS);
    const symbol = readList(cursor) ?? readEach(cursor, false) ?? readRuleName(cursor) ?? readLiteral(cursor);
    if (symbol === null || cursor.at === from || (symbol.kind === 'text' && symbol.text === '' && text[cursor.at - 1] !== '"')) break;
    symbols.push(symbol);
  }
  return symbols;
}

function attempt<T>(cursor: Cursor, read: () => T | null): T | null {
  const from = cursor.at;
  const found = read();
  if (found === null) cursor.at = from;
  return found;
}

function readLiteral(cursor: Cursor): Symbol | null {
  const quoted = attempt(cursor, () => {
    if (!cursor.takes('"')) return null;
    const text = cursor.take(LITERAL) as string;
    cursor.take(TABS);
    return cursor.takes('"') ? text : null;
  });
  return { kind: 'text', text: quoted ?? (cursor.take(LITERAL) as string) };
}

function readRuleName(cursor: Cursor): { kind: 'rule'; rule: string } | null {
  return attempt(cursor, () => {
    if (!cursor.takes('#')) return null;
    cursor.take(TABS);
    const rule = cursor.take(TAG);
    if (rule === null) return null;
    cursor.take(TABS);
    return cursor.takes('#') ? { kind: 'rule', rule } : null;
  });
}

function readEach(cursor: Cursor, isList: boolean): Symbol | null {
  return attempt(cursor, () => {
    if (!cursor.takes('{')) return null;
    cursor.take(TABS);
    const rule = readRuleName(cursor);
    cursor.take(rule === null ? TABS : NOTHING);
    const statement = rule === null ? cursor.take(STATEMENT) : null;
    if (rule === null && statement === null) return null;
    const condition = attempt(cursor, () => {
      cursor.take(TABS);
      if (cursor.take(BAR) === null) return null;
      cursor.take(TABS);
      return cursor.take(GIVEN);
    });
    cursor.take(TABS);
    if (!cursor.takes('}')) return null;
    const what = rule ?? ({ kind: 'expression', expression: readExpression(statement as string) } as const);
    return { kind: 'each', what, condition: condition === null ? null : readCondition(condition), isList };
  });
}

const NOTHING = /(?:)/y;

function readList(cursor: Cursor): Symbol | null {
  return attempt(cursor, () => {
    if (!cursor.takes('[')) return null;
    cursor.take(TABS);
    const each = readEach(cursor, true);
    cursor.take(TABS);
    return each !== null && cursor.takes(']') ? each : null;
  });
}

const PREDICATE = pattern(`!?[${WORD}/]+`);
const PLACEHOLDER = pattern(`[${WORD}']+`);

/** Throws RatchetError('BadInput') for what is not a conjunction of facts. */
export const readCondition = memo(KEPT_TEXTS, readQueries);

function readQueries(text: string): readonly Query[] {
  const cursor = new Cursor(text);
  const wrong = (): never => refuse(`${JSON.stringify(text)} is not a condition such as "openable(r:receptacle) & opened(r:receptacle)"`);
  const token = (wanted: string): boolean => {
    cursor.take(BETWEEN);
    return cursor.takes(wanted);
  };
  const queries: Query[] = [];
  do {
    cursor.take(BETWEEN);
    const name = cursor.take(PREDICATE) ?? wrong();
    const placeholders: Placeholder[] = [];
    if (!token('(')) wrong();
    if (!token(')')) {
      do {
        cursor.take(BETWEEN);
        const placeholder = cursor.take(PLACEHOLDER) ?? wrong();
        let type = placeholder.replace(/'+$/, '');
        if (token(':')) {
          cursor.take(BETWEEN);
          type = cursor.take(NAME) ?? wrong();
        }
        placeholders.push({ name: placeholder, type });
      } while (token(','));
      if (!token(')')) wrong();
    }
    queries.push({ predicate: name.startsWith('!') ? negation(name.slice(1)) : name, placeholders });
  } while (token('&'));
  cursor.take(BETWEEN);
  if (cursor.at < text.length) wrong();
  return queries;
}

const negation = (name: string): string => (name.startsWith('not_') ? name.slice('not_'.length) : `not_${name}`);

const ATTRIBUTES: ReadonlySet<string> = new Set(['name', 'id', 'type', 'indefinite', 'definite'] satisfies Attribute[]);
const PIECE = pattern(`[${SPACE}]*(?:'([^'\\\\]*)'|"([^"\\\\]*)"|([\\p{L}_][${WORD}]*)(?:\\.([\\p{L}_][${WORD}]*))?|([+()]))[${SPACE}]*`);

/** The part of Python that grammars use: attributes, texts, `+`, `or`, parentheses. Throws RatchetError('BadInput') for anything else. */
export function readExpression(text: string): Expression {
  const pieces: { text?: string; name?: string; attribute?: string; sign?: string }[] = [];
  const wrong = (): never =>
    refuse(
      `the expression ${JSON.stringify(text)} is not known; it may have x.name, x.id, x.type, x.indefinite, x.definite, texts, + and or`,
    );
  for (let at = 0; at < text.length; at = PIECE.lastIndex) {
    PIECE.lastIndex = at;
    const found = PIECE.exec(text) ?? wrong();
    const [, single, double, name, attribute, sign] = found;
    const quoted = single ?? double;
    pieces.push(
      quoted !== undefined
        ? { text: quoted }
        : sign !== undefined
          ? { sign }
          : { name: name as string, ...(attribute === undefined ? {} : { attribute }) },
    );
  }
  let at = 0;
  const isOr = (): boolean => pieces[at]?.name === 'or' && pieces[at]?.attribute === undefined;
  const alternatives = (depth: number): Expression => {
    if (depth > 20) wrong();
    const parts = [sum(depth)];
    while (isOr()) {
      at++;
      parts.push(sum(depth));
    }
    return parts.length === 1 ? (parts[0] as Expression) : { kind: 'or', parts };
  };
  const sum = (depth: number): Expression => {
    const parts = [atom(depth)];
    while (pieces[at]?.sign === '+') {
      at++;
      parts.push(atom(depth));
    }
    return parts.length === 1 ? (parts[0] as Expression) : { kind: 'sum', parts };
  };
  const atom = (depth: number): Expression => {
    const piece = pieces[at++] ?? wrong();
    if (piece.text !== undefined) return { kind: 'text', text: piece.text };
    if (piece.sign === '(') {
      const inner = alternatives(depth + 1);
      if (pieces[at++]?.sign !== ')') wrong();
      return inner;
    }
    if (piece.name === undefined || piece.name === 'or' || !ATTRIBUTES.has(piece.attribute ?? 'name')) return wrong();
    // An entity by itself prints as its name.
    return { kind: 'attribute', variable: piece.name, attribute: (piece.attribute ?? 'name') as Attribute };
  };
  const expression = alternatives(0);
  return at === pieces.length ? expression : wrong();
}
