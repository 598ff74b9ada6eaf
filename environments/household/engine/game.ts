/**
 * One loaded game, shared by all who play it: what can be done in a state, what that leads to, and the words for it. It knows rules and words only
 * from the file; what it cannot play word for word it refuses to load.
 */
import { RatchetError } from '../../../core/errors.ts';
import { sha256 } from '../../../core/digest.ts';
import type { GameFile } from '../game-file.ts';
import { ActionMaker, compareActions } from './actions.ts';
import type { Action, OperatorInGame } from './actions.ts';
import { apply } from './effects.ts';
import { Finder } from './finder.ts';
import type { Branches } from './finder.ts';
import { demangled } from './names.ts';
import { readProblem } from './pddl.ts';
import { groundTerms, Reachability } from './reachability.ts';
import { Relations } from './relations.ts';
import { conjunctionsOf, readRules } from './rules.ts';
import type { CompiledConjunction } from './rules.ts';
import { Cells, START } from './state.ts';
import type { State } from './state.ts';
import { Texts } from './texts.ts';
import { readWords } from './twl2.ts';

export interface Entity {
  id: string;
  type: string;
  name: string;
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
  /** The goal as the file has it: the end of the PDDL problem, from `(:goal` on. */
  readonly goalText: string;
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
  readonly #varies: boolean;
  #marks = 0;

  constructor(file: GameFile, { id, names }: LoadOptions) {
    this.id = id;
    this.walkthrough = file.walkthrough;
    this.goalText = file.pddl_problem.slice(file.pddl_problem.search(/\(\s*:goal/i));
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
    const operators = domain.operators.map((operator): OperatorInGame => {
      const { template, feedback } =
        words.actions.get(operator.name) ?? refuse(`grammar: it has no words for the action "${operator.name}"`);
      const placeholders = operator.parameters.map(({ name, type }) => ({ name: name.replace(/^\?+|\?+$/g, ''), type }));
      const varying = new Set<string>();
      return {
        name: operator.name,
        parameters: placeholders.length,
        slots: texts.slotsOf(placeholders),
        template: texts.compile(template, placeholders, varying),
        varies: varying.size > 0,
        feedback: texts.compile(feedback, placeholders),
        changes: new Set(operator.effects.map((effect) => effect.predicate)),
        decides: false,
        affects: [],
        met: new Map(),
      };
    });
    this.#varies = operators.some((operator) => operator.varies);
    const branches: Branches = { count: 0 };
    this.#finders = variants.map((variant) => {
      const maker = new ActionMaker(relations, cells, texts, operators[variant.index] as OperatorInGame, variant);
      return new Finder(relations, cells, variant.precondition, branches, (values, condition) => maker.make(values, condition));
    });
    this.#goal = goal.map((conjunction) => new Finder(relations, cells, conjunction, branches, () => true as const));
    for (const operator of operators) {
      const isTouched = (finder: Finder<unknown>): boolean => [...finder.fluents].some((predicate) => operator.changes.has(predicate));
      operator.affects = this.#finders.flatMap((finder, i) => (isTouched(finder) ? [i] : []));
      operator.decides = this.#goal.some(isTouched);
    }
    const say = (rule: string): string => texts.write(texts.compile(`#${rule}#`, []), texts.bind(texts.slotsOf([]), []), START);
    this.introduction = say('intro');
    this.instruction = words.rules.has('task') ? say('task').replace(/^Your task is to: /, '') : this.introduction;
  }

  /** What can be done in the state. With what could be done before `by` led here, only what it can have changed is searched. */
  available(state: State, before?: Available, by?: Action): Available {
    const affected = by?.operator.affects;
    if (before !== undefined && affected?.length === 0 && !this.#varies) return before;
    let byVariant: (readonly Action[])[];
    if (before === undefined || affected === undefined) byVariant = this.#finders.map((finder) => finder.find(state));
    else {
      byVariant = before.byVariant.slice();
      for (const i of affected) byVariant[i] = (this.#finders[i] as Finder<Action>).find(state);
    }
    const mark = ++this.#marks;
    const actions: Action[] = [];
    for (const list of byVariant)
      for (const action of list) {
        if (action.mark === mark) continue;
        action.mark = mark;
        actions.push(action);
      }
    return this.#varies ? this.#sortedIn(state, actions, byVariant) : sorted(actions, byVariant);
  }

  /** As `sorted`, for commands that depend on the state. */
  #sortedIn(state: State, actions: readonly Action[], byVariant: Available['byVariant']): Available {
    const given = actions.map((action) => ({ ...action, command: this.command(action, state), action }));
    const { commands, actions: chosen } = sorted(given, byVariant);
    return { commands, actions: (chosen as typeof given).map((each) => each.action), byVariant };
  }

  /** The actions that can be taken, one for each command, in the order of their commands. */
  applicable(state: State): readonly Action[] {
    return this.available(state).actions;
  }

  /** What is typed to take the action. */
  command(action: Action, state: State): string {
    const { template, slots } = action.operator;
    return action.command ?? this.#texts.write(template, this.#texts.bind(slots, action.arguments), state);
  }

  /** The state after an action that is applicable in the state. */
  apply(action: Action, state: State): State {
    return apply(this.#cells, action.effects, state);
  }

  /** What is said after the action; `state` is the one that it led to. */
  feedback(action: Action, state: State): string {
    const { feedback, slots } = action.operator;
    return this.#texts.write(feedback, this.#texts.bind(slots, action.arguments), state);
  }

  solved(state: State): boolean {
    return this.#goal.some((finder) => finder.some(state));
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
}

/** Sorted by command; of actions with the same command, the first in the order of operators and arguments. */
function sorted(actions: Action[], byVariant: Available['byVariant']): Available {
  actions.sort((a, b) => ((a.command as string) < (b.command as string) ? -1 : a.command === b.command ? compareActions(a, b) : 1));
  const commands: string[] = [];
  let last: string | null = null;
  let kept = 0;
  for (const action of actions) {
    if (action.command === last) continue;
    last = action.command;
    commands.push(last as string);
    actions[kept++] = action;
  }
  actions.length = kept;
  return { commands: Object.freeze(commands), actions, byVariant };
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
