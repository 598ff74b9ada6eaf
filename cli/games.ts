/**
 * Games from a folder for a run: chosen at launch, put into the store, and named in the recipe by the digest of the choice. From then on the folder is
 * not needed: workers share no disk.
 */
import type { GameSelection } from '../activities/stages/panels.ts';
import type { ArtifactStore } from '../artifacts/store.ts';
import { badInput } from '../core/errors.ts';
import type { PanelTask, TaskPanel } from '../core/nouns.ts';
import { Random } from '../core/random.ts';
import { TASKS_PER_SEED } from '../environments/environment.ts';
import { indexGames, readGame, rolesOf, type IndexedGame } from '../environments/household/game-index.ts';
import { worldNamed } from '../environments/registry.ts';
import type { Recipe } from '../recipes/schema.ts';

/** The games of a run and where their files are. */
export interface ChosenGames {
  selection: GameSelection;
  files: IndexedGame[];
}

/** Files that are sent to the store at a time. */
const UPLOADS = 8;

/**
 * The games that the recipe's panels hold; null where the environment makes them by itself. Evaluations want distinct games; training goes through
 * its games again where the recipe asks for more, with a new id (`…~2`) for each pass. Throws BadInput naming the counts.
 */
export function chooseGames({ environment, panels, warmStart, seed }: Recipe): ChosenGames | null {
  const { name, games: source, demonstrations } = environment;
  const world = worldNamed(name);
  const isCollection = (list: string) => world.collections.includes(list);
  if (demonstrations !== null && !isCollection(demonstrations))
    throw badInput('environment.demonstrations', demonstrations, `use one of ${world.collections.join(', ')}`);
  if (typeof source !== 'string' || isCollection(source)) {
    if (demonstrations !== null) throw badInput('environment.demonstrations', demonstrations, 'null, unless environment.games is a folder');
    return null;
  }
  const index = indexGames(source);
  const roles = rolesOf(index);
  const listOf = (role: TaskPanel['role'], count: number | string): IndexedGame[] => {
    // A stored panel has its games already.
    if (typeof count === 'string') return [];
    const games = new Random(['games', seed, role]).shuffled(roles[role]);
    if (games.length === 0 || (role !== 'train' && games.length < count))
      throw badInput(`panels.${role}`, count, `${source} has ${games.length} ${role} games; ask for at most so many`);
    return Array.from({ length: count }, (_, i) => {
      const game = games[i % games.length] as IndexedGame;
      const pass = 1 + Math.floor(i / games.length);
      return pass === 1 ? game : { ...game, id: `${game.id}~${pass}` };
    });
  };
  const demonstrated = demonstrations === null ? [] : world.tasks('train', seed * TASKS_PER_SEED, warmStart.demonstrations, demonstrations);
  const chosen = {
    train: listOf('train', panels.train - demonstrated.length),
    validation: listOf('validation', panels.validation),
    seen: listOf('seen', panels.seen),
    unseen: listOf('unseen', panels.unseen),
  };
  const taskOf = ({ id, family, sha256, bytes }: IndexedGame): PanelTask => ({ id, family, sha256, bytes });
  const files = [...new Map(Object.values(chosen).flatMap((games) => games.map((game) => [game.sha256, game] as const))).values()];
  return {
    selection: {
      train: [...demonstrated, ...chosen.train.map(taskOf)],
      validation: chosen.validation.map(taskOf),
      seen: chosen.seen.map(taskOf),
      unseen: chosen.unseen.map(taskOf),
    },
    files,
  };
}

/** Puts the chosen games into the store; the recipe that names them by digest. Throws Corrupt when a file has changed since it was chosen. */
export async function storeGames(store: ArtifactStore, recipe: Recipe, games: ChosenGames | null): Promise<Recipe> {
  if (games === null) return recipe;
  const left = [...games.files];
  const upload = async () => {
    for (let game = left.shift(); game !== undefined; game = left.shift()) await store.put(Buffer.from(readGame(game)));
  };
  await Promise.all(Array.from({ length: UPLOADS }, upload));
  const { sha256, bytes } = await store.putJson(games.selection);
  return { ...recipe, environment: { ...recipe.environment, games: { sha256, bytes } } };
}
