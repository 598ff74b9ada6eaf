/** Task panels: the four disjoint lists of tasks of a run, made and stored before anything is played. */
import { objectKey } from '../../artifacts/store.ts';
import type { ArtifactRef, PanelTask, TaskPanel } from '../../core/nouns.ts';
import { worldNamed } from '../../environments/registry.ts';
import type { Recipe } from '../../recipes/schema.ts';
import type { Stage } from '../stage.ts';

/** A stored panel. Its digest (`ref.sha256`) is what evaluations are compared by. */
export interface PanelRef {
  ref: ArtifactRef;
  tasks: number;
}

export type Panels = Record<TaskPanel['role'], PanelRef>;

/** The tasks of every role, as stored at launch for games from a folder. */
export type GameSelection = Record<TaskPanel['role'], PanelTask[]>;

/** The seed shifts which tasks of a role's endless list a run gets, so that runs of different seeds learn from and report on different games. */
export const TASKS_PER_SEED = 100_000;

export const makePanels: Stage<Pick<Recipe, 'seed' | 'environment' | 'panels'>, Panels> = async (recipe, { store }) => {
  const { name, games } = recipe.environment;
  const world = worldNamed(name);
  const selected = typeof games === 'string' ? null : await store.getJson<GameSelection>({ key: objectKey(games.sha256), ...games });
  const entries = await Promise.all(
    (Object.keys(recipe.panels) as TaskPanel['role'][]).map(async (role) => {
      const tasks = selected?.[role] ?? world.tasks(role, recipe.seed * TASKS_PER_SEED, recipe.panels[role], games as string);
      const turnCap = tasks.reduce((most, { id }) => Math.max(most, world.turnCapOf(id)), 0);
      const panel: TaskPanel = { role, environment: name, turnCap, tasks };
      return [role, { ref: await store.putJson(panel), tasks: tasks.length }] as const;
    }),
  );
  return Object.fromEntries(entries) as Panels;
};
