/** The household world: ALFWorld's six task families in generated homes, and in game files of ALFWorld's format. */
import { sha256, type Sha256 } from '../../core/digest.ts';
import { badInput, RatchetError } from '../../core/errors.ts';
import { nearest } from '../../core/nearest.ts';
import { Random } from '../../core/random.ts';
import type { World } from '../environment.ts';
import { householdCodec } from './codec.ts';
import { Demonstrator } from './demonstrator.ts';
import { HouseholdEnvironment } from './engine/environment.ts';
import { loadGame } from './engine/game.ts';
import type { Game } from './engine/game.ts';
import { readGameFile } from './game-file.ts';
import { bytesOf, gameFileOf } from './game-writer.ts';
import { homeOf, nameOf, parseTaskId, taskAt, taskId } from './generator.ts';
import type { HomeSize } from './generator.ts';
import { SearchAgent } from './search-agent.ts';
import type { SearchOrder } from './search-agent.ts';

/** Most turns of an episode: small homes have a third of the places of ALFWorld's, which allows 50. */
const SMALL_TURN_CAP = 30;
export const ALFWORLD_TURN_CAP = 50;

/** The collections of generated games by name. */
const COLLECTIONS: Readonly<Record<string, HomeSize>> = { generated: 'small', 'generated-large': 'large' };

/** Games kept for the next opening of the same task: repeats and branches of a task come close together. More would outlive their use and burden the garbage collector. */
const KEPT_GAMES = 64;

const isSmall = (id: string): boolean => parseTaskId(id)?.size === 'small';
const turnCapOf = (id: string): number => (isSmall(id) ? SMALL_TURN_CAP : ALFWORLD_TURN_CAP);
/** In homes of ALFWorld's size there is no time to look everywhere. */
const orderOf = (id: string): SearchOrder => (isSmall(id) ? 'list' : 'usual');

function sizeOf(collection: string): HomeSize {
  const size = COLLECTIONS[collection];
  if (size !== undefined) return size;
  throw badInput('games', collection, `did you mean ${nearest(collection, Object.keys(COLLECTIONS))}? A folder of game files is fine too`);
}

/** What a task's game file must be, where somebody said so. The message says what to do: the tasks of a run are those of the version that began it. */
function checkDigest(id: string, file: Uint8Array, expected: Sha256): void {
  const found = sha256(file);
  if (found !== expected)
    throw new RatchetError(
      'Corrupt',
      `task ${id}: its panel was made with the game ${expected}, this version of Ratchet makes ${found} of the id; finish the run with the version that began it`,
    );
}

/** `files`: contents of game files by task id; all other ids are those of generated games. `digests`: of the game files, by task id. */
function worldWith(files: ReadonlyMap<string, Uint8Array>, digests: ReadonlyMap<string, Sha256>): World {
  const games = new Map<string, Game>();
  const check = (id: string): void => {
    if (!files.has(id)) nameOf(id);
  };
  const load = (id: string): Game => {
    const bytes = files.get(id);
    const file = bytes === undefined ? gameFileOf(homeOf(id)) : readGameFile(new TextDecoder().decode(bytes), id);
    const expected = digests.get(id);
    if (expected !== undefined) checkDigest(id, bytes ?? bytesOf(file), expected);
    return loadGame(file, { id });
  };
  const gameOf = (id: string): Game => {
    const game = games.get(id) ?? load(id);
    games.delete(id);
    games.set(id, game);
    if (games.size > KEPT_GAMES) games.delete(games.keys().next().value as string);
    return game;
  };
  return {
    name: 'household',
    codec: householdCodec,
    collections: Object.keys(COLLECTIONS),
    turnCapOf,

    tasks(role, from, count, collection = 'generated') {
      const size = sizeOf(collection);
      return Array.from({ length: count }, (_, i) => {
        const task = taskAt(role, from + i, size);
        const id = taskId(task);
        return { id, family: task.family, sha256: sha256(bytesOf(gameFileOf(homeOf(id)))) };
      });
    },

    withFiles: (more) => worldWith(new Map([...files, ...more]), digests),

    heldTo: (tasks) => worldWith(files, new Map([...digests, ...tasks.map(({ id, sha256 }) => [id, sha256] as const)])),

    open(id) {
      return new HouseholdEnvironment(gameOf(id), { turnCap: turnCapOf(id) });
    },

    expert(id) {
      check(id);
      return new SearchAgent(orderOf(id));
    },

    demonstrator(id, seed, options) {
      check(id);
      return new Demonstrator(orderOf(id), new Random(['household', 'demonstrator', id, ...seed]), options);
    },
  };
}

export const household: World = worldWith(new Map(), new Map());
