/**
 * Writes generated games to a folder, laid out as ALFWorld's data is: `json_2.1.1/<split>/<task>/<trial>/game.tw-pddl` with `traj_data.json` beside it, so that
 * ALFWorld itself, and whatever reads its data, can play them. Every game is played to its end by its walkthrough before it is written.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sha256 } from '../../core/digest.ts';
import { badInput } from '../../core/errors.ts';
import { TASKS_PER_SEED } from '../environment.ts';
import { HouseholdEnvironment } from './engine/environment.ts';
import { loadGame } from './engine/game.ts';
import { FAMILY_RULES } from './families.ts';
import { bytesOf, gameFileOf } from './game-writer.ts';
import { checkDials, dialsKey, drawTask, HOMES, homeOf, layoutOf, taskAt, taskId } from './generator.ts';
import type { Dials, Home, HomeSize, Role, TaskName } from './generator.ts';

/** The folder that ALFWorld keeps the games of a role in; it has none of its own for validation games. */
export const SPLIT_FOLDERS: Readonly<Record<Role, string>> = {
  train: 'train',
  validation: 'validation',
  seen: 'valid_seen',
  unseen: 'valid_unseen',
};

export interface MakeOptions {
  role: Role;
  tasks: number;
  /** Seed 1 here are the games of a run with seed 1. */
  seed: number;
  size: HomeSize;
  /** What differs from the dials of the size. */
  dials: Partial<Dials>;
}

export interface MadeGame {
  /** Of the task; with dials of one's own only a name within the folder. */
  id: string;
  /** Relative to the folder. */
  path: string;
  sha256: string;
}

/** Makes the games and writes them. Throws RatchetError('BadInput') naming the option that is out of range. */
export function makeGames(folder: string, options: MakeOptions): MadeGame[] {
  const { role, tasks, seed, size, dials } = options;
  if (!Number.isInteger(tasks) || tasks < 1 || tasks > TASKS_PER_SEED)
    throw badInput('tasks', tasks, `a whole number from 1 to ${TASKS_PER_SEED}`);
  const own = Object.keys(dials).length > 0 ? checkDials({ ...HOMES[size], ...dials }) : null;
  return Array.from({ length: tasks }, (_, i) => {
    const task = taskAt(role, seed * TASKS_PER_SEED + i, size);
    const id = taskId(task);
    const home = own === null ? homeOf(id) : drawTask(dialsKey(own, id), task, own);
    return writeGame(folder, id, task, home);
  });
}

function writeGame(folder: string, id: string, { role, number }: TaskName, home: Home): MadeGame {
  const file = gameFileOf(home);
  const bytes = bytesOf(file);
  playThrough(id, file.walkthrough, new HouseholdEnvironment(loadGame(file, { id }), { turnCap: file.walkthrough.length }));
  const { family, object, target } = home.goal;
  const { taskType, instruction } = FAMILY_RULES[family];
  const plan = Number.parseInt(sha256(layoutOf(home)).slice(0, 6), 16);
  const trial = `trial_G${number}`;
  const path = join('json_2.1.1', SPLIT_FOLDERS[role], `${taskType}-${named(object)}-None-${named(target)}-${plan}`, trial);
  const trajectory = {
    task_id: trial,
    task_type: taskType,
    pddl_params: {
      object_target: named(object),
      parent_target: family === 'look' ? '' : named(target),
      mrecep_target: '',
      toggle_target: family === 'look' ? named(target) : '',
      object_sliced: false,
    },
    scene: { floor_plan: `FloorPlan${plan}`, scene_num: plan },
    turk_annotations: { anns: [{ task_desc: instruction(home.goal), high_descs: [] }] },
  };
  mkdirSync(join(folder, path), { recursive: true });
  writeFileSync(join(folder, path, 'game.tw-pddl'), bytes);
  writeFileSync(join(folder, path, 'traj_data.json'), `${JSON.stringify(trajectory)}\n`);
  return { id, path: join(path, 'game.tw-pddl'), sha256: sha256(bytes) };
}

/** A generator that makes a game which its own walkthrough does not solve has a fault; that is no input's. */
function playThrough(id: string, walkthrough: readonly string[], game: HouseholdEnvironment): void {
  for (const command of walkthrough) {
    if (!game.admissible.includes(command)) throw new Error(`${id}: the walkthrough's "${command}" is not admissible`);
    game.step(command);
  }
  if (game.outcome !== 1) throw new Error(`${id}: the walkthrough does not solve the game`);
}

const named = (kind: string): string => kind.charAt(0).toUpperCase() + kind.slice(1);
