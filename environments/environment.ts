/**
 * What every world offers. A world names tasks, opens them as environments (live games), and has a codec: what a model reads.
 * Environments are deterministic: the same task and commands give the same text, always.
 */
import type { PanelTask, TaskPanel } from '../core/nouns.ts';

/** One live game. Single-threaded; cheap enough to hold thousands. */
export interface Environment {
  /** The task's instruction, e.g. `Put a clean mug in the cabinet.` */
  readonly instruction: string;
  /** What the agent sees now: the introduction at the start, the feedback to the last command afterwards. */
  readonly observation: string;
  /** The commands that are admissible now, sorted by code point, without duplicates. Empty once the episode is done. */
  readonly admissible: readonly string[];
  /** Turns taken so far. */
  readonly turn: number;
  /** Solved, or the turn cap is reached. */
  readonly done: boolean;
  /** 1 when solved, else 0. */
  readonly outcome: 0 | 1;
  /** Executes a command and counts a turn. An inadmissible command changes nothing but the turn count and the observation ("Nothing happens."). */
  step(command: string): void;
  /** The whole state, immutable, cheap (structure is shared), restorable into any environment of the same task any number of times. */
  snapshot(): Snapshot;
  restore(snapshot: Snapshot): void;
}

/** Opaque; only meaningful to the environment's own world and task. */
export type Snapshot = object & { readonly brand?: 'snapshot' };

/** A scripted agent bound to one live game: given the game's state before each turn it names a command, or null when it believes that it is done. */
export interface ScriptedAgent {
  act(environment: Environment): string | null;
}

/**
 * What a model reads, made from the text; the text stays what is stored and shown. A codec is versioned: a model is only ever fed by the codec
 * version that it was trained with. Tokens are words (no white space inside).
 */
export interface Codec {
  /** e.g. `household-compact-2`. */
  readonly version: string;
  /** Every token the codec can produce, in a fixed order, without duplicates, special tokens first (`<pad>` is number 0). */
  readonly vocabulary: readonly string[];
  /** The tokens before the first turn, from the instruction and the introduction; ends with the decision token `>`. */
  start(instruction: string, introduction: string): string[];
  /** The tokens of a command: at least one; different admissible commands of one state have different token lists, none a prefix of another. */
  command(command: string): string[];
  /** The token that begins every feedback. Where a model writes freely, its command ends here. */
  readonly feedbackStart: string;
  /** The tokens of the feedback to a command, from `feedbackStart` to the decision token `>`. */
  feedback(command: string, observation: string): string[];
}

/** The seed shifts which tasks of a role's endless list a run gets, so that runs of different seeds learn from and report on different games. */
export const TASKS_PER_SEED = 100_000;

export interface World {
  readonly name: string;
  readonly codec: Codec;
  /** The endless lists of tasks that the world makes by itself, the usual one first. */
  readonly collections: readonly string[];
  /** Most turns of an episode of this task. */
  turnCapOf(taskId: string): number;
  /**
   * `count` tasks of a role, numbers `from`.. `from + count - 1` of that role's list of a collection (the usual one if not given). Roles never share
   * a task. Throws RatchetError('BadInput') for a collection that the world does not have.
   */
  tasks(role: TaskPanel['role'], from: number, count: number, collection?: string): PanelTask[];
  /** The same world that can also open these tasks, given by the contents of their files. */
  withFiles(files: ReadonlyMap<string, Uint8Array>): World;
  /**
   * The same world, held to a panel's digests: opening one of these tasks throws RatchetError('Corrupt') where its game is not the one with that digest,
   * because another version of the world made the panel.
   */
  heldTo(tasks: readonly Pick<PanelTask, 'id' | 'sha256'>[]): World;
  /** Opens the task with this id. Throws RatchetError('BadInput') for an id that the world does not have. */
  open(taskId: string): Environment;
  /** The expert: solves nearly every task with what it has seen so far. */
  expert(taskId: string): ScriptedAgent;
  /** The demonstrator: the expert with bad habits, drawn once per episode from `seed`. `habits` in [0, 1] scales how strong they are; 0 is the expert with noise. */
  demonstrator(taskId: string, seed: readonly (string | number)[], options: { habits: number; noise: number }): ScriptedAgent;
}
