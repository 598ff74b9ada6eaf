/** Task panels: the four disjoint lists of tasks of a run, made and stored before anything is played. */
import { objectKey, type ArtifactStore } from '../../artifacts/store.ts';
import { badInput, RatchetError } from '../../core/errors.ts';
import type { ArtifactRef, PanelTask, TaskPanel } from '../../core/nouns.ts';
import { TASKS_PER_SEED } from '../../environments/environment.ts';
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

/** A panel that `ratchet panel make` or a run has stored. Throws BadInput naming `field` where the digest is not that of one. */
export async function storedPanel(store: ArtifactStore, sha256: string, field: string): Promise<{ ref: ArtifactRef; panel: TaskPanel }> {
  if (!/^[0-9a-f]{64}$/.test(sha256)) throw badInput(field, sha256, '64 hexadecimal digits, as `ratchet panel make` prints');
  const key = objectKey(sha256);
  const bytes = await store.size(key);
  if (bytes === null) throw badInput(field, sha256, 'the store has no such object');
  const ref = { key, sha256, bytes };
  const value = await store.getJson<Partial<TaskPanel>>(ref).catch((error: unknown) => {
    if (error instanceof RatchetError && error.type === 'Corrupt') return null;
    throw error;
  });
  if (!Array.isArray(value?.tasks) || typeof value.role !== 'string') throw badInput(field, sha256, 'that object is no task panel');
  return { ref, panel: value as TaskPanel };
}

/** The stored panels that the recipe names, by role. Throws BadInput naming the field of one that is not there or is for something else. */
export async function panelsGiven(
  store: ArtifactStore,
  { environment, panels }: Pick<Recipe, 'environment' | 'panels'>,
): Promise<Partial<Record<TaskPanel['role'], { ref: ArtifactRef; panel: TaskPanel }>>> {
  const given = Object.entries(panels).filter((entry): entry is [TaskPanel['role'], string] => typeof entry[1] === 'string');
  const found = given.map(async ([role, sha256]) => {
    const field = `panels.${role}`;
    const stored = await storedPanel(store, sha256, field);
    const { role: of, environment: where } = stored.panel;
    if (of !== role || where !== environment.name)
      throw badInput(field, sha256, `a panel of ${role} tasks of ${environment.name} is needed; this one has ${of} tasks of ${where}`);
    return [role, stored] as const;
  });
  return Object.fromEntries(await Promise.all(found));
}

export const makePanels: Stage<Pick<Recipe, 'seed' | 'environment' | 'panels'>, Panels> = async (recipe, { store }) => {
  const { name, games } = recipe.environment;
  const world = worldNamed(name);
  const selected = typeof games === 'string' ? null : await store.getJson<GameSelection>({ key: objectKey(games.sha256), ...games });
  const given = await panelsGiven(store, recipe);
  const made = await Promise.all(
    (Object.keys(recipe.panels) as TaskPanel['role'][]).map(async (role) => {
      const stored = given[role];
      if (stored !== undefined) return { role, ...stored };
      const count = recipe.panels[role] as number;
      const tasks = selected?.[role] ?? world.tasks(role, recipe.seed * TASKS_PER_SEED, count, games as string);
      const turnCap = tasks.reduce((most, { id }) => Math.max(most, world.turnCapOf(id)), 0);
      const panel: TaskPanel = { role, environment: name, turnCap, tasks };
      return { role, ref: await store.putJson(panel), panel };
    }),
  );
  for (const { role } of made.filter(({ role }) => given[role] !== undefined)) checkDisjoint(role, made);
  return Object.fromEntries(made.map(({ role, ref, panel }) => [role, { ref, tasks: panel.tasks.length }])) as Panels;
};

/** A panel from elsewhere may hold games that this run learns from; success on them would say nothing. Throws BadInput naming one. */
function checkDisjoint(given: TaskPanel['role'], panels: readonly { role: TaskPanel['role']; panel: TaskPanel }[]): void {
  const owner = new Map(
    panels.filter(({ role }) => role !== given).flatMap(({ role, panel }) => panel.tasks.map((task) => [task.sha256, role])),
  );
  for (const { id, sha256 } of panels.find(({ role }) => role === given)?.panel.tasks ?? []) {
    const other = owner.get(sha256);
    if (other !== undefined)
      throw badInput(`panels.${given}`, id, `this game is also in the ${other} panel of the run; panels must not share a game`);
  }
}
