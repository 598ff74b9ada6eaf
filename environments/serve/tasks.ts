/** What a server offers: named splits, each an ordered list of tasks, and how a task is opened. The lists are fixed while it serves. */
import { badInput } from '../../core/errors.ts';
import { nearest } from '../../core/nearest.ts';
import type { PanelTask, TaskPanel } from '../../core/nouns.ts';
import type { Environment, World } from '../environment.ts';
import type { GameIndex } from '../household/game-index.ts';
import { IndexedGames } from '../household/indexed-games.ts';

export interface ServedSplit {
  name: string;
  /** What the tasks are for, in the words of the Task API. */
  type: 'train' | 'validation' | 'test';
  tasks: readonly PanelTask[];
}

export interface ServedTasks {
  /** The environment's name in the Task API. */
  name: string;
  /** One line for people. */
  description: string;
  /** At least one; the first is the default. */
  splits: readonly ServedSplit[];
  /** A fresh game. Throws RatchetError where the task cannot be opened. */
  open(task: PanelTask): Environment;
}

/** A task and where in the lists it stands. */
export interface PlacedTask {
  split: string;
  index: number;
  task: PanelTask;
}

const TYPES: Record<TaskPanel['role'], ServedSplit['type']> = { train: 'train', validation: 'validation', seen: 'test', unseen: 'test' };

/** The first `perSplit` tasks of each of a world's endless lists. */
export function tasksOfWorld(world: World, perSplit: number): ServedTasks {
  const roles = Object.keys(TYPES) as TaskPanel['role'][];
  return {
    name: world.name,
    description: `${world.name}, generated: ${perSplit} tasks in each of ${roles.join(', ')}`,
    splits: roles.map((role) => ({ name: role, type: TYPES[role], tasks: world.tasks(role, 0, perSplit) })),
    open: ({ id }) => world.open(id),
  };
}

/** Exactly the tasks of a panel, in its order, as one split named by its role. `world` can open them. */
export function tasksOfPanel({ role, environment, tasks }: TaskPanel, digest: string, world: World): ServedTasks {
  return {
    name: environment,
    description: `${environment}, panel ${digest}: ${tasks.length} ${role} tasks`,
    splits: [{ name: role, type: TYPES[role], tasks: tasks.map(({ id, family, sha256 }) => ({ id, family, sha256 })) }],
    open: ({ id }) => world.open(id),
  };
}

/** All games of a folder of ALFWorld data, split as it is. Games are loaded when they are asked for. */
export function tasksOfFolder(index: GameIndex): ServedTasks {
  const games = new IndexedGames(index);
  const counts = index.splits.map((split) => `${index.games.filter((game) => game.split === split).length} ${split}`);
  return {
    name: 'household',
    description: `household, games of ${index.folder}: ${counts.join(', ')}`,
    splits: index.splits.map((name) => ({
      name,
      type: name === 'train' ? 'train' : name === 'valid_seen' || name === 'valid_unseen' ? 'test' : 'validation',
      tasks: index.games.filter(({ split }) => split === name).map(({ id, family, sha256 }) => ({ id, family, sha256 })),
    })),
    open: ({ id }) => games.open(id),
  };
}

/** Throws RatchetError('BadInput') naming the nearest split there is. */
export function splitNamed({ splits }: ServedTasks, name: string): ServedSplit {
  const found = splits.find((split) => split.name === name);
  if (found !== undefined) return found;
  const names = splits.map((split) => split.name);
  throw badInput('split', name, `did you mean ${nearest(name, names)}? The splits are ${names.join(', ')}`);
}

/** Throws RatchetError('BadInput') for an index outside [0, tasks of the split). */
export function taskAt({ name, tasks }: ServedSplit, index: number): PlacedTask {
  const task = tasks[index];
  if (task === undefined) throw badInput('index', index, `split ${name} has tasks 0 to ${tasks.length - 1}`);
  return { split: name, index, task };
}

const placesById = new WeakMap<ServedTasks, Map<string, PlacedTask>>();

/** Throws RatchetError('BadInput') for an id in none of the splits. */
export function taskWithId(tasks: ServedTasks, id: string): PlacedTask {
  let places = placesById.get(tasks);
  if (places === undefined) {
    // The first place counts where a task stands in several lists.
    places = new Map(
      tasks.splits
        .flatMap(({ name, tasks: list }) => list.map((task, index): [string, PlacedTask] => [task.id, { split: name, index, task }]))
        .toReversed(),
    );
    placesById.set(tasks, places);
  }
  const found = places.get(id);
  if (found === undefined) throw badInput('task_id', id, 'no task of this server has this id; the Task API lists them');
  return found;
}

/** The task with this number when all splits are counted through in their order. Throws RatchetError('BadInput'). */
export function taskNumbered({ splits }: ServedTasks, number: number): PlacedTask {
  let left = number;
  for (const split of splits) {
    if (left >= 0 && left < split.tasks.length) return taskAt(split, left);
    left -= split.tasks.length;
  }
  throw badInput('game', number, `there are games 0 to ${number - left - 1}`);
}
