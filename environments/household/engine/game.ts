/**
 * One loaded game, shared by all who play it: what can be done in a state, what that leads to, and the words for it. It knows rules and words only
 * from the file; what it cannot play word for word it refuses to load.
 */
import { RatchetError } from '../../../core/errors.ts';
import { sha256 } from '../../../core/digest.ts';
import type { GameFile } from '../game-file.ts';
import { apply, effectsOf } from './effects.ts';
import type { Effects, GroundEffect } from './effects.ts';
import { Finder } from './finder.ts';
import { demangled } from './names.ts';
import { readProblem } from './pddl.ts';
import { groundTerms, Reachability } from './reachability.ts';
import { Relations } from './relations.ts';
import type { Relation } from './relations.ts';
import { conjunctionsOf, readRules } from './rules.ts';
import type { CompiledConjunction, CompiledEffect, Variant } from './rules.ts';
import { Cells, START } from './state.ts';
import type { State } from './state.ts';
import { Texts } from './texts.ts';
import type { Template } from './texts.ts';
import { readWords } from './twl2.ts';

export interface Entity {
  id: string;
  type: string;
  name: string;
}

/** An action with its arguments; made once for each, so two are the same if and only if they are the same object. */
export interface Action {
  /** The action's name in the domain, lower case. */
  readonly operator: string;
  /** Numbers of objects, one for each declared parameter. */
  readonly arguments: readonly number[];
  readonly effects: Effects;
  /** Decides between actions of the same command, and orders nothing else. */
  readonly key: string;
  readonly words: OperatorWords;
  /** The command, where it is the same in every state. */
  readonly command: string | null;
  /** Which lists of `Available` it can change. */
  readonly affects: readonly number[];
  mark: number;
}

/** An effect over this game's relations. */
interface Effect extends Target {
  variables: CompiledEffect['variables'];
  condition: readonly Target[];
}

interface Target {
  negated: boolean;
  relation: Relation;
  terms: Int32Array | null;
}

interface OperatorWords {
  /** Where texts expect the action's arguments. */
  slots: readonly number[];
  template: Template;
  /** The command can depend on facts that change. */
  varies: boolean;
  feedback: Template;
}

/** What can be done in a state. */
export interface Available {
  /** Sorted by code point, without duplicates. */
  readonly commands: readonly string[];
  /** The action of each command. */
  readonly actions: readonly Action[];
  /** What each variant of the domain's actions allows: kept, so that after an action only what it can change is searched again. */
  readonly byVariant: readonly (readonly Action[])[];
}

export interface LoadOptions {
  id: string;
  /** Object id -> its name, for games whose numbers were shuffled; without it names are ALFWorld's own. */
  names?: Readonly<Record<string, string>> | undefined;
}

/** Loads a game. Throws RatchetError('BadInput') that says why it cannot be played word for word. */
export function loadGame(file: GameFile, options: LoadOptions): Game {
  try {
    return new Game(file, options);
  } catch (error) {
    if (error instanceof RatchetError && error.type === 'BadInput')
      throw new RatchetError('BadInput', `game ${options.id}: ${error.message}`, { cause: error });
    throw error;
  }
}

const refuse = (what: string): never => {
  throw new RatchetError('BadInput', what);
};

export class Game {
  readonly id: string;
  /** The sentence that says what is to be done. */
  readonly instruction: string;
  readonly introduction: string;
  readonly walkthrough: readonly string[] | null;
  readonly start: State = START;
  /** Everything that a fact of the start names, sorted by id. */
  readonly entities: readonly Entity[];
  /** Object number -> its id, for the arguments of actions. */
  readonly objects: readonly string[];
  readonly #relations: Relations;
  readonly #cells: Cells;
  readonly #texts: Texts;
  readonly #finders: Finder<Action>[];
  readonly #goal: Finder<true>[];
  readonly #goalFluents: ReadonlySet<string>;
  readonly #actions = new Map<string, Action>();
  readonly #varies: boolean;
  #marks = 0;

  constructor(file: GameFile, { id, names }: LoadOptions) {
    this.id = id;
    this.walkthrough = file.walkthrough;
    const { domain, variants, fluents } = readRules(file.pddl_domain);
    const problem = readProblem(file.pddl_problem, domain);
    const words = readWords(file.grammar);
    const relations = (this.#relations = new Relations(domain, fluents, problem));
    const goal = conjunctionsOf(problem.goal, 'goal');
    const reachability = new Reachability(relations);
    reachability.close(variants);
    if (!goal.some((conjunction) => reachability.reachable(conjunction))) refuse('its goal can never be reached');
    if (isSettled(goal, relations)) refuse('its goal is true whatever is done');
    this.objects = relations.objects.ids;
    const cells = (this.#cells = new Cells(relations.initial));
    const entityIds = [...new Set(problem.initial.flatMap((fact) => fact.slice(1)))].sort();
    const nameOf = names === undefined ? demangled(entityIds) : new Map(Object.entries(names));
    this.entities = entityIds.map((entity) => ({
      id: entity,
      type: relations.objects.types[relations.objects.number(entity) as number] as string,
      name: nameOf.get(entity) ?? refuse(`the given names have none for "${entity}"`),
    }));
    const texts = (this.#texts = new Texts(
      words,
      domain,
      relations,
      cells,
      this.objects.map((object) => nameOf.get(object) ?? object),
    ));
    const operatorWords = domain.operators.map((operator): OperatorWords => {
      const { template, feedback } =
        words.actions.get(operator.name) ?? refuse(`grammar: it has no words for the action "${operator.name}"`);
      const placeholders = operator.parameters.map(({ name, type }) => ({ name: name.replace(/^\?+|\?+$/g, ''), type }));
      const varying = new Set<string>();
      return {
        slots: texts.slotsOf(placeholders),
        template: texts.compile(template, placeholders, varying),
        varies: varying.size > 0,
        feedback: texts.compile(feedback, placeholders),
      };
    });
    this.#varies = operatorWords.some((each) => each.varies);
    this.#finders = variants.map((variant) => {
      const effects = variant.effects.map((effect) => this.#effect(effect));
      return new Finder(relations, cells, variant.precondition, (values, condition) =>
        this.#action(variant, operatorWords[variant.index] as OperatorWords, effects, values, condition),
      );
    });
    this.#goal = goal.map((conjunction) => new Finder(relations, cells, conjunction, () => true as const));
    this.#goalFluents = new Set(this.#goal.flatMap((finder) => [...finder.fluents]));
    const say = (rule: string): string => texts.write(texts.compile(`#${rule}#`, []), texts.bind([], []), START);
    this.introduction = say('intro');
    this.instruction = words.rules.has('task') ? say('task').replace(/^Your task is to: /, '') : this.introduction;
  }

  /** What can be done in the state. With what could be done before `by` led here, only what it can have changed is searched. */
  available(state: State, before?: Available, by?: Action): Available {
    if (before !== undefined && by !== undefined && by.affects.length === 0 && !this.#varies) return before;
    const byVariant: (readonly Action[])[] = [];
    for (let i = 0; i < this.#finders.length; i++) {
      if (before !== undefined && by !== undefined && !by.affects.includes(i)) byVariant.push(before.byVariant[i] as readonly Action[]);
      else {
        const found: Action[] = [];
        (this.#finders[i] as Finder<Action>).find(state, found);
        byVariant.push(found);
      }
    }
    const mark = ++this.#marks;
    const entries: { command: string; action: Action }[] = [];
    for (const list of byVariant)
      for (const action of list) {
        if (action.mark === mark) continue;
        action.mark = mark;
        entries.push({ command: action.command ?? this.command(action, state), action });
      }
    entries.sort((a, b) => (a.command < b.command ? -1 : a.command > b.command ? 1 : a.action.key < b.action.key ? -1 : 1));
    const distinct = entries.filter((entry, i) => entry.command !== entries[i - 1]?.command);
    return {
      commands: Object.freeze(distinct.map((entry) => entry.command)),
      actions: distinct.map((entry) => entry.action),
      byVariant,
    };
  }

  /** The actions that can be taken, one for each command, in the order of their commands. */
  applicable(state: State): readonly Action[] {
    return this.available(state).actions;
  }

  /** What is typed to take the action. */
  command(action: Action, state: State): string {
    const { template, slots } = action.words;
    return action.command ?? this.#texts.write(template, this.#texts.bind(slots, action.arguments), state);
  }

  /** The state after an action that is applicable in the state. */
  apply(action: Action, state: State): State {
    return apply(this.#cells, action.effects, state);
  }

  /** What is said after the action; `state` is the one that it led to. */
  feedback(action: Action, state: State): string {
    const { feedback, slots } = action.words;
    return this.#texts.write(feedback, this.#texts.bind(slots, action.arguments), state);
  }

  solved(state: State): boolean {
    return this.#goal.some((finder) => finder.some(state));
  }

  /** Can the action change whether the game is solved? */
  decides(action: Action): boolean {
    return touched(action.effects, this.#relations).some((predicate) => this.#goalFluents.has(predicate));
  }

  /** The state as plain numbers: what differs from the start. Equal for equal states, and the same in every process that loads the game. */
  describe(state: State): number[] {
    return this.#cells.differences(state);
  }

  /** The state that `describe` described. Throws RatchetError('BadInput') for what describes no state of this game. */
  stateOf(description: unknown): State {
    return this.#cells.stateOf(description);
  }

  /** SHA-256 of the whole state, with the facts that only texts see. Equal for equal states of the same game, however they were reached. */
  digest(state: State): string {
    const differences = this.#cells.differences(state);
    const lines = differences.map((each, i) => (i % 2 === 0 ? this.#relations.nameOf(each) : String(each)));
    return sha256([this.id, ...lines].join('\n'));
  }

  #effect({ variables, condition, negated, predicate, terms }: CompiledEffect): Effect {
    const over = (literal: Pick<CompiledEffect, 'negated' | 'predicate' | 'terms'>): Target => ({
      negated: literal.negated,
      relation: this.#relations.relation(literal.predicate, literal.terms.length),
      terms: groundTerms(literal.terms, this.#relations),
    });
    return { variables, condition: condition.map(over), ...over({ negated, predicate, terms }) };
  }

  #action(
    variant: Variant,
    words: OperatorWords,
    effects: readonly Effect[],
    values: Int32Array,
    precondition: readonly number[],
  ): Action | null {
    const given = [...values.subarray(0, variant.operator.parameters.length)];
    const key = [variant.operator.name, ...given.map((object) => this.objects[object])].join(' ');
    const known = this.#actions.get(key);
    if (known !== undefined) return known;
    const ground = effectsOf(
      precondition,
      effects.flatMap((effect) => this.#groundEffects(effect, values)),
    );
    if (ground === null) return null;
    for (const [atom] of ground.always) this.#cells.touch(atom);
    for (const { atom } of ground.conditional) this.#cells.touch(atom);
    const predicates = new Set(touched(ground, this.#relations));
    const action: Action = {
      operator: variant.operator.name,
      arguments: given,
      effects: ground,
      key,
      words,
      command: words.varies ? null : this.#texts.write(words.template, this.#texts.bind(words.slots, given), START),
      affects: this.#finders.flatMap((finder, i) => ([...finder.fluents].some((predicate) => predicates.has(predicate)) ? [i] : [])),
      mark: 0,
    };
    this.#actions.set(key, action);
    return action;
  }

  /** The effect for every value of its own variables, without those that can never happen. */
  #groundEffects({ variables, condition, negated, relation, terms }: Effect, values: Int32Array): GroundEffect[] {
    const all = [...values, ...variables.map(() => -1)];
    const objectOf = (term: number): number => (term < 0 ? ~term : (all[term] as number));
    const out: GroundEffect[] = [];
    const visit = (i: number): void => {
      const variable = variables[i];
      if (variable !== undefined) {
        for (const object of this.#relations.objects.members(variable.type)) {
          all[values.length + i] = object;
          visit(i + 1);
        }
        return;
      }
      const literals: number[] = [];
      for (const literal of condition) {
        const row = literal.terms === null ? -1 : literal.relation.row(literal.terms.map(objectOf));
        const isDecided = row < 0 || !literal.relation.fluent;
        if (isDecided && row >= 0 === literal.negated) return;
        if (!isDecided) literals.push(literal.negated ? ~(literal.relation.atoms[row] as number) : (literal.relation.atoms[row] as number));
      }
      const row = relation.row((terms as Int32Array).map(objectOf));
      if (row >= 0) out.push({ condition: literals, negated, atom: relation.atoms[row] as number });
    };
    visit(0);
    return out;
  }
}

function touched(effects: Effects, relations: Relations): string[] {
  const atoms = [...effects.always.map(([atom]) => atom), ...effects.conditional.map(({ atom }) => atom)];
  return atoms.map((atom) => (relations.relationOf[atom] as { name: string }).name);
}

/** Fast Downward drops a plain goal of facts that never change; TextWorld then fails to load the game. */
function isSettled(goal: readonly CompiledConjunction[], relations: Relations): boolean {
  const [only, ...others] = goal;
  if (only === undefined || others.length > 0 || only.variables.length > 0 || only.literals.length === 0) return false;
  return only.literals.every(({ predicate, terms }) => {
    const ground = groundTerms(terms, relations);
    const relation = relations.relation(predicate, terms.length);
    return !relation.fluent || ground === null || relation.row(ground.map((term) => ~term)) < 0;
  });
}
