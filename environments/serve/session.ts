/**
 * One client's place at the server: at most one live episode, and which of the tasks it is. It knows no wire format; both protocols play through it.
 */
import { badInput } from '../../core/errors.ts';
import { Random } from '../../core/random.ts';
import type { Environment } from '../environment.ts';
import { splitNamed, taskAt, taskWithId, type PlacedTask, type ServedTasks } from './tasks.ts';

/** How a client says which task it wants; at most one of `index`, `taskId` and `seed` decides, in this order. */
export interface TaskChoice {
  split?: string | undefined;
  index?: number | undefined;
  taskId?: string | undefined;
  /** Draws a task of the split: the same seed, the same task. */
  seed?: number | undefined;
}

export interface Episode extends PlacedTask {
  id: string;
  seed: number | null;
  environment: Environment;
}

/** Why a session ended. */
export type Ending = 'closed' | 'dropped' | 'idle' | 'too old' | 'shutdown';

export class Session {
  /** Counted from 0 over the life of the server. */
  readonly number: number;
  readonly openedAtMs: number;
  lastUsedMs: number;
  /** Told when the server ends the session by itself. */
  readonly onEnd: (ending: Ending) => void;
  #episode: Episode | null = null;
  #episodes = 0;

  constructor(number: number, nowMs: number, onEnd: (ending: Ending) => void) {
    this.number = number;
    this.openedAtMs = nowMs;
    this.lastUsedMs = nowMs;
    this.onEnd = onEnd;
  }

  /** Throws RatchetError('BadInput') before the first reset. */
  get episode(): Episode {
    if (this.#episode === null) throw badInput('episode', null, 'there is none yet: reset first');
    return this.#episode;
  }

  get hasEpisode(): boolean {
    return this.#episode !== null;
  }

  touch(): void {
    this.lastUsedMs = performance.now();
  }

  /** Starts an episode of the task. Throws RatchetError where it cannot be opened; the episode at hand then stays. */
  start(tasks: ServedTasks, place: PlacedTask, { id = null, seed = null }: { id?: string | null; seed?: number | null } = {}): Episode {
    const environment = tasks.open(place.task);
    this.#episodes++;
    this.#episode = { ...place, id: id ?? `session-${this.number}-episode-${this.#episodes}`, seed, environment };
    return this.#episode;
  }

  /** The chosen task; without a choice, the split's next one (its first at the session's first reset). Throws RatchetError('BadInput') for a task that there is not. */
  choose(tasks: ServedTasks, { split: name, index, taskId, seed }: TaskChoice): PlacedTask {
    if (taskId !== undefined) {
      const place = taskWithId(tasks, taskId);
      if (name !== undefined && name !== place.split) throw badInput('split', name, `task ${taskId} is of split ${place.split}`);
      if (index !== undefined && index !== place.index) throw badInput('index', index, `task ${taskId} is number ${place.index}`);
      return place;
    }
    const split = name === undefined ? (tasks.splits[0] as ServedTasks['splits'][number]) : splitNamed(tasks, name);
    if (index !== undefined) return taskAt(split, index);
    const count = split.tasks.length;
    return taskAt(split, seed === undefined ? this.#episodes % count : new Random(['serve', split.name, seed]).below(count));
  }
}
