/**
 * Text from facts: the templates of commands and feedback, in the notation of ALFWorld's grammars. It refuses notation that it does not know.
 *
 * - `{r.name}`, `{o.indefinite + ' ' + o.name}`: an expression over bound variables (`name`, `indefinite`, `definite`) and literals.
 * - `[{expression | condition}]`: one copy per match of the condition, listed as "a, and b"; "nothing" where there is no match.
 * - `#rule#`: the first alternative of that rule whose condition matches.
 * - A condition is a conjunction, `openable(r) & inside(o:object, r)`. A variable not bound yet carries its type and ranges over all entities of it.
 */
import { RatchetError } from '../../core/errors.ts';
import { atomNumber } from './ground.ts';
import type { Grounding } from './ground.ts';

/** The texts of a domain. */
export interface GrammarText {
  /** Operator -> its command and the rule-text of its feedback. Variables are the operator's parameters. */
  operators: Record<string, { command: string; feedback: string }>;
  /** Rule -> alternatives, tried in order. */
  rules: Record<string, readonly { condition?: string; text: string }[]>;
}

interface ConditionAtom {
  predicate: string;
  slots: number[];
  /** The type that each argument ranges over where it is not bound. */
  types: (string | undefined)[];
}
type Piece = string | { slot: number; property: 'name' | 'indefinite' | 'definite' };
type Part =
  { kind: 'text'; pieces: Piece[] } | { kind: 'rule'; rule: string } | { kind: 'list'; pieces: Piece[]; condition: ConditionAtom[] };
type Template = Part[];

/** Values of the variables: entity numbers by slot, -1 where not bound. */
export type Slots = Int32Array;

const ATOM = /^([\w-]+)\(([^()]*)\)$/;
const SYMBOL = /\[\{([^{}|]*)\|([^{}]*)\}\]|\{([^{}|]*)\}|#([\w.-]+)#|([^[\]{}#|]+)/y;

export class Grammar {
  readonly #slots = new Map<string, number>();
  readonly #commands = new Map<string, Template>();
  readonly #feedback = new Map<string, Template>();
  readonly #rules = new Map<string, { condition: ConditionAtom[]; template: Template }[]>();

  constructor(text: GrammarText) {
    for (const [rule, alternatives] of Object.entries(text.rules))
      this.#rules.set(
        rule,
        alternatives.map((a) => ({ condition: this.#readCondition(a.condition ?? ''), template: this.#readTemplate(a.text) })),
      );
    for (const [operator, { command, feedback }] of Object.entries(text.operators)) {
      this.#commands.set(operator, this.#readTemplate(command));
      this.#feedback.set(operator, this.#readTemplate(feedback));
    }
  }

  /** The slot of a variable, allotted on first use. */
  slot(variable: string): number {
    let slot = this.#slots.get(variable);
    if (slot === undefined) this.#slots.set(variable, (slot = this.#slots.size));
    return slot;
  }

  /** Fresh slots, nothing bound. */
  unbound(): Slots {
    return new Int32Array(this.#slots.size).fill(-1);
  }

  command(operator: string, texts: Texts, slots: Slots): string {
    return this.#expand(this.#of(this.#commands, operator), texts, texts.grounding.initial, slots);
  }

  feedback(operator: string, texts: Texts, state: Uint8Array, slots: Slots): string {
    return this.#expand(this.#of(this.#feedback, operator), texts, state, slots);
  }

  #of(templates: Map<string, Template>, operator: string): Template {
    const template = templates.get(operator);
    if (template === undefined) throw new RatchetError('BadInput', `grammar: there is no text for the action ${operator}`);
    return template;
  }

  #rule(name: string, texts: Texts, state: Uint8Array, slots: Slots): string {
    for (const { condition, template } of this.#rules.get(name) ?? [])
      if (match(condition, 0, texts, state, slots, () => true)) return this.#expand(template, texts, state, slots);
    throw new RatchetError('BadInput', `grammar: no alternative of the rule "${name}" applies`);
  }

  #expand(template: Template, texts: Texts, state: Uint8Array, slots: Slots): string {
    let out = '';
    for (const part of template) {
      if (part.kind === 'text') out += texts.say(part.pieces, slots);
      else if (part.kind === 'rule') out += this.#rule(part.rule, texts, state, slots);
      else {
        const items: string[] = [];
        match(part.condition, 0, texts, state, slots, () => {
          items.push(texts.say(part.pieces, slots));
          return false;
        });
        out += items.length === 0 ? 'nothing' : items.length === 1 ? items[0] : `${items.slice(0, -1).join(', ')}, and ${items.at(-1)}`;
      }
    }
    return out;
  }

  #readTemplate(text: string): Template {
    const template: Template = [];
    SYMBOL.lastIndex = 0;
    while (SYMBOL.lastIndex < text.length) {
      const at = SYMBOL.lastIndex;
      const found = SYMBOL.exec(text);
      if (found === null) throw new RatchetError('BadInput', `grammar: "${text}" cannot be read from character ${at} on`);
      const [, listed, condition, expression, rule, literal] = found;
      if (listed !== undefined)
        template.push({ kind: 'list', pieces: this.#readExpression(listed), condition: this.#readCondition(condition as string) });
      else if (expression !== undefined) template.push({ kind: 'text', pieces: this.#readExpression(expression) });
      else if (rule !== undefined) template.push({ kind: 'rule', rule });
      else template.push({ kind: 'text', pieces: [literal as string] });
    }
    return template;
  }

  #readExpression(text: string): Piece[] {
    return text.split('+').map((piece) => {
      const word = piece.trim();
      const literal = /^'(.*)'$/.exec(word);
      if (literal !== null) return literal[1] as string;
      const variable = /^(\w+)\.(name|indefinite|definite)$/.exec(word);
      if (variable === null) throw new RatchetError('BadInput', `grammar: the expression "${word}" is not known`);
      return { slot: this.slot(variable[1] as string), property: variable[2] as 'name' | 'indefinite' | 'definite' };
    });
  }

  #readCondition(text: string): ConditionAtom[] {
    if (text.trim() === '') return [];
    return text.split('&').map((part) => {
      const atom = ATOM.exec(part.trim());
      if (atom === null) throw new RatchetError('BadInput', `grammar: the condition "${part.trim()}" cannot be read`);
      const args = (atom[2] as string).split(',').map((arg) => arg.split(':').map((word) => word.trim()));
      const named = args.filter(([variable]) => variable !== '');
      return {
        predicate: (atom[1] as string).toLowerCase(),
        slots: named.map(([variable]) => this.slot(variable as string)),
        types: named.map(([, type]) => type),
      };
    });
  }
}

/** What one game's texts are made from: its entities and their names. */
export class Texts {
  readonly grounding: Grounding;
  /** The name of each entity, by number. */
  readonly names: readonly string[];

  constructor(grounding: Grounding, names: readonly string[]) {
    this.grounding = grounding;
    this.names = names;
  }

  say(pieces: readonly Piece[], slots: Slots): string {
    let out = '';
    for (const piece of pieces) {
      if (typeof piece === 'string') out += piece;
      else if (piece.property === 'name') out += this.names[slots[piece.slot] as number];
      else out += piece.property === 'indefinite' ? 'a' : 'the';
    }
    return out;
  }
}

/** Visits every way to match the atoms from number `from` on, in entity order, until `visit` returns true; true if it did. Slots are as before afterwards. */
function match(
  atoms: readonly ConditionAtom[],
  from: number,
  texts: Texts,
  state: Uint8Array,
  slots: Slots,
  visit: () => boolean,
): boolean {
  const atom = atoms[from];
  if (atom === undefined) return visit();
  const { grounding } = texts;
  for (const [i, slot] of atom.slots.entries()) {
    if ((slots[slot] as number) >= 0) continue;
    const type = atom.types[i];
    if (type === undefined) throw new RatchetError('BadInput', `grammar: a variable of ${atom.predicate} is neither bound nor typed`);
    let done = false;
    for (const entity of grounding.members(type)) {
      slots[slot] = entity;
      if ((done = match(atoms, from, texts, state, slots, visit))) break;
    }
    slots[slot] = -1;
    return done;
  }
  const holds = grounding.isTrue(atomNumber(grounding.table(atom.predicate), slots, atom.slots), state);
  return holds && match(atoms, from + 1, texts, state, slots, visit);
}
