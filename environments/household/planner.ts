/**
 * The privileged planner: a shortest plan from wherever a live game is. It looks behind closed doors by trying: the game is played on, and restored. Only
 * commands that can matter for the goal are tried (things, receptacles and lamps of the kinds that the goal names, and the appliances), breadth first, so that
 * the first plan found is a shortest one; the plan was played, so it works. What it looks at is bounded. That no plan was found says that none is made of
 * such commands; with `everyCommand` nothing is left out, and it says that there is none.
 */
import { badInput, RatchetError } from '../../core/errors.ts';
import type { Environment, Snapshot } from '../environment.ts';
import { kindOf } from './kinds.ts';
import { readCommand, readObservation } from './reading.ts';

/** A live game whose states can be told apart, with the goal as the problem has it (PDDL). */
export interface Plannable extends Environment {
  readonly goalText: string;
  /** Equal for equal states, however they were reached. */
  readonly stateDigest: string;
}

/** States looked at, at most: some seconds. ALFWorld's largest games need a few thousand. */
export const MOST_STATES = 60_000;

/** Verbs that can matter by what the goal speaks of; ALFWorld's predicates and those of `domain.ts`. */
const TREATMENTS: readonly [RegExp, string, string | null][] = [
  [/\((?:isclean|clean) /i, 'clean', 'sinkbasin'],
  [/\((?:ishot|hot) /i, 'heat', 'microwave'],
  [/\((?:iscool|cool) /i, 'cool', 'fridge'],
  [/\((?:istoggled|ison|lit) /i, 'use', null],
  [/\(issliced /i, 'slice', null],
];
const KNIVES = ['knife', 'butterknife'];

interface Node {
  snapshot: Snapshot;
  parent: Node | null;
  command: string;
  /** Something must be done where one has just gone or opened. */
  arrived: string | null;
}

/**
 * The commands of a shortest plan; empty when the game is solved. The game is left as it was. Throws RatchetError('BadInput') when no plan fits into
 * the turns that are left, and RatchetError('OutOfMemory') when `mostStates` were looked at without an answer.
 */
export function planOf(game: Plannable, { mostStates = MOST_STATES }: { mostStates?: number } = {}): string[] {
  const plan = searchPlan(game, { mostStates, everyCommand: false });
  if (plan === null) throw badInput('game', game.instruction, 'a game that can be solved in the turns that are left');
  return plan;
}

/** As `planOf`; null when no plan fits into the turns that are left, so that it cannot be taken for a game that fails while it is played. */
export function searchPlan(game: Plannable, { mostStates, everyCommand }: { mostStates: number; everyCommand: boolean }): string[] | null {
  const start = game.snapshot();
  try {
    return search(game, mostStates, everyCommand ? allOf : relevance(game));
  } finally {
    game.restore(start);
  }
}

/** Asked anew after every step, which the type checker cannot know. */
const isSolved = (game: Environment): boolean => game.outcome === 1;

function search(game: Plannable, mostStates: number, worthTrying: Choice): string[] | null {
  if (isSolved(game)) return [];
  const seen = new Set([game.stateDigest]);
  let frontier: Node[] = [{ snapshot: game.snapshot(), parent: null, command: '', arrived: null }];
  while (frontier.length > 0) {
    const next: Node[] = [];
    for (const node of frontier) {
      game.restore(node.snapshot);
      for (const { command, arrived } of worthTrying(game.admissible, node.arrived)) {
        game.restore(node.snapshot);
        game.step(command);
        const reached: Node = { snapshot: game.snapshot(), parent: node, command, arrived };
        if (isSolved(game)) return commandsTo(reached);
        if (game.done || seen.has(`${game.stateDigest}${arrived ?? ''}`)) continue;
        seen.add(`${game.stateDigest}${arrived ?? ''}`);
        if (seen.size > mostStates)
          throw new RatchetError('OutOfMemory', `planner: no plan among the first ${mostStates} states; give it more`);
        next.push(reached);
      }
    }
    frontier = next;
  }
  return null;
}

function commandsTo(node: Node): string[] {
  const commands: string[] = [];
  for (let at = node; at.parent !== null; at = at.parent) commands.unshift(at.command);
  return commands;
}

interface Step {
  command: string;
  arrived: string | null;
}

/** Which of the admissible commands to try; `arrived` is the receptacle that one has just gone to or opened. */
type Choice = (admissible: readonly string[], arrived: string | null) => Step[];

const allOf: Choice = (admissible) => admissible.map((command) => ({ command, arrived: null }));

/** The commands that can matter for the goal. */
function relevance(game: Plannable): Choice {
  const goal = game.goalText;
  const treatments = TREATMENTS.filter(([pattern]) => pattern.test(goal));
  const verbs = new Set(treatments.map(([, verb]) => verb));
  const kinds = new Set(
    (goal.toLowerCase().match(/\b[a-z]+(?=type\b)/g) ?? []).filter((word) => word !== 'object' && word !== 'receptacle'),
  );
  if (verbs.has('slice')) for (const knife of KNIVES) kinds.add(knife);
  const appliances = new Set(treatments.map(([, , appliance]) => appliance));
  const holding = new Set(
    contentsOf(game)
      .filter(([, seen]) => seen.some((thing) => kinds.has(kindOf(thing))))
      .map(([place]) => place),
  );
  const isWorthGoing = (place: string): boolean => holding.has(place) || kinds.has(kindOf(place)) || appliances.has(kindOf(place));
  return (admissible, arrived) => {
    const read = admissible.map((command) => ({ command, ...(readCommand(command) ?? { verb: '', names: [] }) }));
    const burden = read.find(({ verb, names }) => verb === 'move' && !kinds.has(kindOf(names[0] as string)));
    return read.flatMap(({ command, verb, names }): Step[] => {
      const [first, last] = [names[0] as string, names.at(-1) as string];
      switch (verb) {
        case 'goto':
          // Going on at once from where one went to is never shorter.
          return arrived === null && (burden !== undefined || isWorthGoing(first)) ? [{ command, arrived: first }] : [];
        case 'open':
          return isWorthGoing(first) || burden !== undefined ? [{ command, arrived: first }] : [];
        case 'take':
        case 'move':
          return kinds.has(kindOf(first)) || command === burden?.command ? [{ command, arrived: null }] : [];
        default:
          return verbs.has(verb) && (kinds.has(kindOf(first)) || kinds.has(kindOf(last))) ? [{ command, arrived: null }] : [];
      }
    });
  };
}

/** What lies where, found by going everywhere and opening everything; the game is left as it was. */
function contentsOf(game: Plannable): [place: string, seen: string[]][] {
  const start = game.snapshot();
  const contents: [string, string[]][] = [];
  const visit = (place: string) => {
    const go = `go to ${place}`;
    if (game.admissible.includes(go)) game.step(go);
    else if (game.admissible.includes(`examine ${place}`)) game.step(`examine ${place}`);
    const open = `open ${place}`;
    if (!game.done && game.admissible.includes(open)) game.step(open);
    contents.push([place, readObservation(game.observation).seen ?? []]);
    game.restore(start);
  };
  const here = game.admissible.flatMap((command) => {
    const { verb, names } = readCommand(command) ?? { verb: '', names: [] };
    return verb === 'goto' || ((verb === 'examine' || verb === 'open' || verb === 'close') && names.length === 1) ? names : [];
  });
  for (const place of new Set(here)) visit(place);
  return contents;
}
