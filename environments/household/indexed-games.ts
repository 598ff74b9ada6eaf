/** Opens the games of an index, each as ALFWorld plays it. Bytes that are not those that were indexed are refused. */
import { badInput } from '../../core/errors.ts';
import { HouseholdEnvironment } from './engine/environment.ts';
import { loadGame, type Game } from './engine/game.ts';
import { readGameFile } from './game-file.ts';
import { readGame, type GameIndex, type IndexedGame } from './game-index.ts';
import { ALFWORLD_TURN_CAP } from './world.ts';

/** Loaded games kept for the next opening, some MB each: repeats of a task come close together. */
const KEPT_GAMES = 64;

/** Throws RatchetError: Corrupt when the file has changed, BadInput naming what the engine cannot play. */
export function loadIndexed(game: IndexedGame): Game {
  return loadGame(readGameFile(readGame(game), game.id), { id: game.id });
}

export class IndexedGames {
  readonly index: GameIndex;
  readonly #byId: ReadonlyMap<string, IndexedGame>;
  readonly #kept = new Map<string, Game>();

  constructor(index: GameIndex) {
    this.index = index;
    this.#byId = new Map(index.games.map((game) => [game.id, game]));
  }

  /** A fresh play. Throws RatchetError: BadInput for an id that the index does not have, and what `loadIndexed` throws. */
  open(id: string): HouseholdEnvironment {
    const entry = this.#byId.get(id);
    if (entry === undefined) throw badInput('task', id, `no game of ${this.index.folder} has this id`);
    const game = this.#kept.get(id) ?? loadIndexed(entry);
    this.#kept.delete(id);
    this.#kept.set(id, game);
    if (this.#kept.size > KEPT_GAMES) this.#kept.delete(this.#kept.keys().next().value as string);
    return new HouseholdEnvironment(game, { turnCap: ALFWORLD_TURN_CAP });
  }
}
