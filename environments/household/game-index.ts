/**
 * The games of a folder of ALFWorld data (`json_2.1.1/{train,valid_seen,valid_unseen}/<task>/<trial>/game.tw-pddl`), or of any folder of such files: their
 * ids, splits, families and content digests, sorted by id. It depends on what the files hold and where they lie below the folder, never on the order in
 * which directories list them. A file that is not among the games is among the problems, with the reason; nothing is passed over in silence. It does not
 * load games: `ratchet games check` does.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, posix, resolve } from 'node:path';
import { cacheDirectory } from '../../core/cache-directory.ts';
import { digestJson, sha256 } from '../../core/digest.ts';
import { badInput, RatchetError } from '../../core/errors.ts';
import type { PanelTask, TaskPanel } from '../../core/nouns.ts';
import type { Family } from './families.ts';

/** The splits by the names of their folders: ALFWorld's, and the `validation` of generated games, which ALFWorld does not have. */
export const SPLITS = ['train', 'valid_train', 'validation', 'valid_seen', 'valid_unseen'] as const;
/** The split of games that lie in no folder named like one. */
export const NO_SPLIT = 'all';

/** ALFWorld's task types and our names for them. */
export const TASK_TYPES: Readonly<Record<string, Family>> = {
  pick_and_place_simple: 'pick',
  look_at_obj_in_light: 'look',
  pick_clean_then_place_in_recep: 'clean',
  pick_heat_then_place_in_recep: 'heat',
  pick_cool_then_place_in_recep: 'cool',
  pick_two_obj_and_place: 'two',
};

export interface IndexedGame extends PanelTask {
  /** From the split's folder on, `valid_seen/pick_and_place_simple-Mug-None-Shelf-20/trial_T20190908_1`: the same wherever the data lies. Without a split's folder: from the given folder on. */
  id: string;
  /** A family of ours, or `unknown` where neither the folder's name nor `traj_data.json` tells. */
  family: string;
  /** Of the bytes of the game file. */
  sha256: string;
  /** One of `SPLITS`, or `NO_SPLIT`. */
  split: string;
  /** Absolute path of the game file. */
  file: string;
  bytes: number;
  /** The commands that the file says solve it; null where it has none. */
  walkthrough: readonly string[] | null;
}

/**
 * - `broken`: not a game file: unreadable, not JSON, or a part is missing.
 * - `unsolvable`: the file itself says so (`solvable` is false).
 * - `left out by ALFWorld`: its path says `movable` or `Sliced`; ALFWorld plays no such game, so results with them would not compare.
 * - `duplicate`: the same bytes, or the same id, as a game before it.
 */
export type ProblemKind = 'broken' | 'unsolvable' | 'left out by ALFWorld' | 'duplicate';

export interface GameProblem {
  /** Relative to the folder. */
  path: string;
  kind: ProblemKind;
  detail: string;
}

export interface GameIndex {
  /** Absolute. */
  folder: string;
  games: readonly IndexedGame[];
  problems: readonly GameProblem[];
  /** The splits that have games, in the order of `SPLITS`. */
  splits: readonly string[];
  /** Digest of the ids and content digests of the games: equal folders have equal indexes. */
  sha256: string;
  /** Files that had to be read; the cache knew the others. */
  filesRead: number;
}

export interface IndexOptions {
  /** Where indexes are kept; null keeps none. The user's cache folder if not given. */
  cacheFolder?: string | null;
  onProgress?: (done: number, total: number) => void;
}

/** What is known of one file's content, as cached. */
interface FileFacts {
  sha256: string;
  bytes: number;
  walkthrough: string[] | null;
  solvable: boolean | null;
  /** Why it is not a game file, or null. */
  broken: string | null;
}

/** Part of the cache's name: another reading of the files is another cache. */
const CACHE_VERSION = 1;
const PROGRESS_EVERY = 100;

/** Throws RatchetError('BadInput') when there is no such folder or no game file in it. */
export function indexGames(folder: string, options: IndexOptions = {}): GameIndex {
  const root = resolve(folder);
  if (!existsSync(root) || !statSync(root).isDirectory()) throw badInput('games', folder, 'a folder with game.tw-pddl files is expected');
  const paths = gamePaths(root);
  if (paths.length === 0) throw badInput('games', folder, 'no game.tw-pddl lies anywhere in this folder');
  const cacheFolder = options.cacheFolder === undefined ? join(cacheDirectory(process.env), 'game-index') : options.cacheFolder;
  const { facts, filesRead } = factsOf(root, paths, cacheFolder, options.onProgress);

  const games: IndexedGame[] = [];
  const problems: GameProblem[] = [];
  const byId = new Map<string, string>();
  const byContent = new Map<string, string>();
  for (const path of paths) {
    const { id, split } = nameOf(root, path);
    const { sha256, bytes, walkthrough, solvable, broken } = facts.get(path) as FileFacts;
    const problem = (kind: ProblemKind, detail: string): void => void problems.push({ path, kind, detail });
    const [sameId, sameContent] = [byId.get(id), byContent.get(sha256)];
    if (broken !== null) problem('broken', broken);
    else if (solvable === false) problem('unsolvable', 'the file says solvable: false');
    else if (/movable|Sliced/.test(path)) problem('left out by ALFWorld', `the path says ${/movable|Sliced/.exec(path)?.[0]}`);
    else if (sameId !== undefined) problem('duplicate', `the same id as ${sameId}; give one of the two folders`);
    else if (sameContent !== undefined) problem('duplicate', `the same bytes as ${sameContent}`);
    else {
      byId.set(id, path);
      byContent.set(sha256, path);
      games.push({ id, family: familyOf(root, path), sha256, split, file: join(root, path), bytes, walkthrough });
    }
  }
  games.sort((a, b) => (a.id < b.id ? -1 : 1));
  const splits = [...SPLITS, NO_SPLIT].filter((split) => games.some((game) => game.split === split));
  return { folder: root, games, problems, splits, sha256: digestJson(games.map(({ id, sha256 }) => [id, sha256])), filesRead };
}

/**
 * The text of an indexed game. Throws RatchetError('Corrupt') when the file is no longer what was indexed: results would not be of the task that they name.
 */
export function readGame(game: Pick<IndexedGame, 'id' | 'file' | 'sha256'>): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(game.file);
  } catch (error) {
    throw new RatchetError('Corrupt', `${game.id}: ${game.file} cannot be read any more: ${(error as Error).message}`, { cause: error });
  }
  const found = sha256(bytes);
  if (found !== game.sha256)
    throw new RatchetError('Corrupt', `${game.id}: ${game.file} has changed: SHA-256 ${game.sha256} was indexed, ${found} is there now`);
  return bytes.toString('utf8');
}

/** Of ten tasks of the train split, this many validate instead. All trials of a task go together: they share object, receptacle and floor plan. */
const VALIDATION_TENTHS = 1;

/**
 * The games that a role may play, in the index's order. `seen` and `unseen` are ALFWorld's valid_seen and valid_unseen. `validation` is the split of this
 * name; where the folder has none, a tenth of the tasks of the train split (by the hash of the task's name), which `train` does not have then. Roles never
 * share a game.
 * Throws RatchetError('BadInput') when the folder has no games for the role.
 */
export function gamesOfRole(index: GameIndex, role: TaskPanel['role']): IndexedGame[] {
  const named = splitOfRole(index, role);
  const split = named === 'train' && !index.splits.includes('train') ? NO_SPLIT : named;
  const isDivided = (split === 'train' || split === NO_SPLIT) && !index.splits.includes('validation');
  const isValidation = ({ id }: IndexedGame): boolean => {
    const task = id.split('/').at(-2) ?? id;
    return Number.parseInt(sha256(`validation ${task}`).slice(0, 8), 16) % 10 < VALIDATION_TENTHS;
  };
  const games = index.games.filter((game) => game.split === split && (!isDivided || isValidation(game) === (role === 'validation')));
  if (games.length === 0)
    throw badInput(
      'games',
      index.folder,
      `it has no ${role} games: none of split ${split} (it has ${index.splits.join(', ') || 'no game at all'})`,
    );
  return games;
}

function splitOfRole({ splits }: GameIndex, role: TaskPanel['role']): (typeof SPLITS)[number] {
  if (role === 'seen' || role === 'unseen') return `valid_${role}`;
  return role === 'validation' && splits.includes('validation') ? 'validation' : 'train';
}

/** How a folder without splits is divided, by the hash of the task's name: parts in twelve. All trials of a task go together. */
const TWELFTHS: readonly TaskPanel['role'][] = [
  ...(['train', 'train', 'train', 'train', 'validation', 'validation'] as const),
  ...(['seen', 'seen', 'seen', 'unseen', 'unseen', 'unseen'] as const),
];

/** The games of every role: those of ALFWorld's splits, or of a folder without splits its parts. A role that the folder has no games for is empty. */
export function rolesOf(index: GameIndex): Record<TaskPanel['role'], IndexedGame[]> {
  const divided = index.splits.every((split) => split === NO_SPLIT);
  const of = (role: TaskPanel['role']): IndexedGame[] => {
    if (divided) return index.games.filter(({ id }) => TWELFTHS[hashOf(`part ${taskOf(id)}`) % TWELFTHS.length] === role);
    return index.splits.includes(splitOfRole(index, role)) ? gamesOfRole(index, role) : [];
  };
  return { train: of('train'), validation: of('validation'), seen: of('seen'), unseen: of('unseen') };
}

const taskOf = (id: string): string => id.split('/').at(-2) ?? id;
const hashOf = (text: string): number => Number.parseInt(sha256(text).slice(0, 8), 16);

/** The game files below `root`, relative with `/`, sorted by code point. Links are followed, each folder once. */
function gamePaths(root: string): string[] {
  const found: string[] = [];
  const visited = new Set<string>();
  const visit = (relative: string): void => {
    const real = realpathSync(join(root, relative));
    if (visited.has(real)) return;
    visited.add(real);
    const entries = readdirSync(real, { withFileTypes: true });
    for (const { name } of entries.filter((entry) => !entry.isDirectory() && entry.name.endsWith('.tw-pddl')))
      found.push(posix.join(relative, name));
    for (const entry of entries) {
      const path = posix.join(relative, entry.name);
      if (entry.isDirectory() || (entry.isSymbolicLink() && isFolder(join(root, path)))) visit(path);
    }
  };
  visit('');
  return found.sort();
}

const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;

/** A game is named by its folder; a file of another name than game.tw-pddl also by its own. */
function nameOf(root: string, path: string): { id: string; split: string } {
  const named = basename(path) === 'game.tw-pddl' ? posix.dirname(path) : path.replace(/\.tw-pddl$/, '');
  const parts = named.split('/').filter((part) => part !== '.');
  const isSplit = (part: string): boolean => (SPLITS as readonly string[]).includes(part);
  const at = parts.findIndex(isSplit);
  if (at >= 0) return { id: parts.slice(at).join('/'), split: parts[at] as string };
  const own = basename(root);
  if (isSplit(own)) return { id: [own, ...parts].join('/'), split: own };
  return { id: parts.join('/') || own, split: NO_SPLIT };
}

/** Genuine folders are named `<task type>-<object>-...`; elsewhere `traj_data.json` beside the game tells. */
function familyOf(root: string, path: string): string {
  for (const part of path.split('/')) {
    const family = TASK_TYPES[part.slice(0, part.indexOf('-'))];
    if (part.includes('-') && family !== undefined) return family;
  }
  const beside = join(dirname(join(root, path)), 'traj_data.json');
  if (!existsSync(beside)) return 'unknown';
  try {
    const { task_type } = JSON.parse(readFileSync(beside, 'utf8')) as { task_type?: unknown };
    return TASK_TYPES[String(task_type)] ?? 'unknown';
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return 'unknown';
    throw error;
  }
}

function factsOf(
  root: string,
  paths: readonly string[],
  cacheFolder: string | null,
  onProgress: IndexOptions['onProgress'],
): { facts: Map<string, FileFacts>; filesRead: number } {
  const cacheFile = cacheFolder === null ? null : join(cacheFolder, `${sha256(realpathSync(root)).slice(0, 32)}-${CACHE_VERSION}.json`);
  const cached = cacheFile === null ? new Map<string, CachedFile>() : readCache(cacheFile);
  const kept: [string, CachedFile][] = [];
  let filesRead = 0;
  paths.forEach((path, done) => {
    const file = join(root, path);
    const stat = statSync(file, { throwIfNoEntry: false });
    const key = stat === undefined ? '' : `${stat.size} ${stat.mtimeMs} ${stat.ctimeMs} ${stat.ino}`;
    const before = cached.get(path);
    if (before === undefined || before.key !== key || key === '') filesRead++;
    kept.push([path, before?.key === key && key !== '' ? before : { key, facts: readFacts(file) }]);
    if (done % PROGRESS_EVERY === 0) onProgress?.(done, paths.length);
  });
  onProgress?.(paths.length, paths.length);
  if (cacheFile !== null && (filesRead > 0 || cached.size !== kept.length)) writeCache(cacheFile, kept);
  return { facts: new Map(kept.map(([path, { facts }]) => [path, facts])), filesRead };
}

function readFacts(file: string): FileFacts {
  let content: Buffer;
  try {
    content = readFileSync(file);
  } catch (error) {
    return { sha256: '', bytes: 0, walkthrough: null, solvable: null, broken: `cannot be read: ${(error as Error).message}` };
  }
  const facts = { sha256: sha256(content), bytes: content.length, walkthrough: null, solvable: null, broken: null };
  let game: unknown;
  try {
    game = JSON.parse(content.toString('utf8'));
  } catch (error) {
    return { ...facts, broken: `not JSON: ${(error as Error).message}` };
  }
  if (typeof game !== 'object' || game === null || Array.isArray(game)) return { ...facts, broken: 'not a JSON object' };
  const { pddl_domain, pddl_problem, grammar, walkthrough, solvable } = game as Record<string, unknown>;
  for (const [name, part] of Object.entries({ pddl_domain, pddl_problem, grammar }))
    if (typeof part !== 'string') return { ...facts, broken: `${name} is not a text` };
  if (walkthrough != null && !(Array.isArray(walkthrough) && walkthrough.every((command) => typeof command === 'string')))
    return { ...facts, broken: 'walkthrough is not a list of commands' };
  if (solvable != null && typeof solvable !== 'boolean') return { ...facts, broken: 'solvable is neither true nor false' };
  return { ...facts, walkthrough: walkthrough ?? null, solvable: solvable ?? null };
}

interface CachedFile {
  /** Size, times and inode of the file when it was read. */
  key: string;
  facts: FileFacts;
}

/** A cache that cannot be read is no cache: the files are the truth. */
function readCache(file: string): Map<string, CachedFile> {
  try {
    return new Map(JSON.parse(readFileSync(file, 'utf8')) as [string, CachedFile][]);
  } catch {
    return new Map();
  }
}

/** Replaced at once, so that a reader sees the old or the new one. A folder that cannot be written only costs time. */
function writeCache(file: string, files: readonly [string, CachedFile][]): void {
  const draft = `${file}.${process.pid}`;
  try {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(draft, JSON.stringify(files));
    renameSync(draft, file);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error)) throw error;
  }
}
