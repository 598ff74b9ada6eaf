/** The household world: ALFWorld's six task families in generated homes. */
import { Random } from '../../core/random.ts';
import type { World } from '../environment.ts';
import { householdCodec } from './codec.ts';
import { Demonstrator } from './demonstrator.ts';
import { DOMAIN_TEXT, GRAMMAR_TEXT } from './domain.ts';
import { FAMILIES, FAMILY_RULES, goalFormula } from './families.ts';
import { Game, Rules } from './game.ts';
import { digestOf, homeOf, parseTaskId, taskId } from './generator.ts';
import type { Home } from './generator.ts';
import type { Problem } from './ground.ts';
import { HouseholdEnvironment, TURN_CAP } from './household-environment.ts';
import { kindOf, OBJECT_KINDS, RECEPTACLE_KINDS } from './kinds.ts';
import { SearchAgent } from './search-agent.ts';

const rules = new Rules(DOMAIN_TEXT, GRAMMAR_TEXT);

const ROOM = 'room_1';
const idOf = (name: string): string => name.replace(' ', '_');
const nameOf = (id: string): string => id.replace('_', ' ');

/** The home as a PDDL problem. */
export function problemOf(home: Home): Problem {
  const things = home.things.map(([thing]) => thing);
  return {
    entities: [ROOM, ...home.receptacles.map(idOf), ...things.map(idOf)].map((id) => ({ id, type: kindOf(nameOf(id)) })),
    initial: [
      ['at', ROOM],
      ...home.receptacles.map((receptacle) => ['stands', idOf(receptacle), ROOM]),
      ...home.receptacles.filter((r) => RECEPTACLE_KINDS[kindOf(r)]?.openable).map((receptacle) => ['openable', idOf(receptacle)]),
      ...home.things.map(([thing, receptacle]) => ['inside', idOf(thing), idOf(receptacle)]),
      ...things.flatMap((thing) =>
        (OBJECT_KINDS[kindOf(thing)]?.affordances ?? []).filter((a) => a !== 'readable').map((affordance) => [affordance, idOf(thing)]),
      ),
    ],
    goal: goalFormula(home.goal),
  };
}

/** Opens a home as a game. `id` only names it. */
export function openHome(id: string, home: Home): HouseholdEnvironment {
  return new HouseholdEnvironment(gameOf(id, home));
}

const gameOf = (id: string, home: Home): Game =>
  new Game(rules, id, problemOf(home), nameOf, FAMILY_RULES[home.goal.family].instruction(home.goal));

/** Ground games kept for the next opening of the same task: repeats and branches of a task come close together. More would outlive their use and burden the garbage collector. */
const KEPT_GAMES = 64;
const games = new Map<string, Game>();

function gameOfTask(id: string): Game {
  const game = games.get(id) ?? gameOf(id, homeOf(id));
  games.delete(id);
  games.set(id, game);
  if (games.size > KEPT_GAMES) games.delete(games.keys().next().value as string);
  return game;
}

export const household: World = {
  name: 'household',
  codec: householdCodec,
  turnCap: TURN_CAP,

  tasks(role, from, count) {
    return Array.from({ length: count }, (_, i) => {
      const family = FAMILIES[(from + i) % FAMILIES.length] as (typeof FAMILIES)[number];
      const id = taskId(role, family, Math.floor((from + i) / FAMILIES.length));
      return { id, family, sha256: digestOf(homeOf(id)) };
    });
  },

  open(id) {
    return new HouseholdEnvironment(gameOfTask(id));
  },

  expert(id) {
    parseTaskId(id);
    return new SearchAgent();
  },

  demonstrator(id, seed, options) {
    parseTaskId(id);
    return new Demonstrator(new Random(['household', 'demonstrator', id, ...seed]), options);
  },
};
