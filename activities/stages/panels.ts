/** Task panels: the four disjoint lists of tasks of a run, made and stored before anything is played. */
import type { ArtifactRef, TaskPanel } from '../../core/nouns.ts';
import { worldNamed } from '../../environments/registry.ts';
import type { Recipe } from '../../recipes/schema.ts';
import type { Stage } from '../stage.ts';

/** A stored panel. Its digest (`ref.sha256`) is what evaluations are compared by. */
export interface PanelRef {
  ref: ArtifactRef;
  tasks: number;
}

export type Panels = Record<TaskPanel['role'], PanelRef>;

/** The seed shifts which tasks of a role's endless list a run gets, so that runs of different seeds learn from and report on different games. */
const TASKS_PER_SEED = 100_000;

export const makePanels: Stage<Pick<Recipe, 'seed' | 'environment' | 'panels'>, Panels> = async (recipe, { store }) => {
  const world = worldNamed(recipe.environment.name);
  const entries = await Promise.all(
    (Object.keys(recipe.panels) as TaskPanel['role'][]).map(async (role) => {
      const tasks = world.tasks(role, recipe.seed * TASKS_PER_SEED, recipe.panels[role]);
      const panel: TaskPanel = { role, environment: recipe.environment.name, turnCap: world.turnCap, tasks };
      return [role, { ref: await store.putJson(panel), tasks: tasks.length }] as const;
    }),
  );
  return Object.fromEntries(entries) as Panels;
};
