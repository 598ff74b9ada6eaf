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

/** Where the run's collection tasks begin in the train panel: after the demonstrations. */
export function collectFrom(recipe: Pick<Recipe, 'warmStart' | 'collect'>, iteration: number): number {
  return recipe.warmStart.demonstrations + (iteration - 1) * recipe.collect.tasks;
}

/** The seed shifts which tasks of a role's endless list a run gets, so that runs of different seeds learn from and report on different games. */
const TASKS_PER_SEED = 100_000;

export const makePanels: Stage<Pick<Recipe, 'seed' | 'environment' | 'panels' | 'warmStart' | 'collect' | 'iterations'>, Panels> = async (
  recipe,
  { store },
) => {
  const world = worldNamed(recipe.environment.name);
  const counts = { train: collectFrom(recipe, recipe.iterations + 1), ...recipe.panels };
  const entries = await Promise.all(
    (Object.keys(counts) as TaskPanel['role'][]).map(async (role) => {
      const tasks = world.tasks(role, recipe.seed * TASKS_PER_SEED, counts[role]);
      const panel: TaskPanel = { role, environment: recipe.environment.name, turnCap: world.turnCap, tasks };
      return [role, { ref: await store.putJson(panel), tasks: tasks.length }] as const;
    }),
  );
  return Object.fromEntries(entries) as Panels;
};
