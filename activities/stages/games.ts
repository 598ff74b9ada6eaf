/**
 * The world as stages play it: held to the panel's digests, so that no stage plays another game under a task's name. Of tasks that are files, a stage
 * fetches those that it plays from the store, where they are named by their digests: workers share no disk.
 */
import { objectKey, type ArtifactStore } from '../../artifacts/store.ts';
import type { PanelTask, TaskPanel } from '../../core/nouns.ts';
import type { World } from '../../environments/environment.ts';
import { worldNamed } from '../../environments/registry.ts';

/** The panel's environment, ready to open these tasks; opening one throws Corrupt where this version of the world makes another game of it. */
export async function worldOf(store: ArtifactStore, panel: TaskPanel, played: readonly { task: string }[]): Promise<World> {
  const wanted = new Set(played.map(({ task }) => task));
  const tasks = panel.tasks.filter(({ id }) => wanted.has(id));
  const world = worldNamed(panel.environment).heldTo(tasks);
  const files = tasks.filter((task): task is PanelTask & { bytes: number } => task.bytes !== undefined);
  if (files.length === 0) return world;
  const fetched = await Promise.all(
    files.map(async ({ id, sha256, bytes }) => [id, await store.get({ key: objectKey(sha256), sha256, bytes })] as const),
  );
  return world.withFiles(new Map(fetched));
}
