/**
 * Tasks that are files: workers share no disk, so the files lie in the store, named by their digests, and a stage fetches those that it plays.
 */
import { objectKey, type ArtifactStore } from '../../artifacts/store.ts';
import type { PanelTask, TaskPanel } from '../../core/nouns.ts';
import type { World } from '../../environments/environment.ts';
import { worldNamed } from '../../environments/registry.ts';

/** The panel's environment, ready to open these tasks. */
export async function worldOf(store: ArtifactStore, panel: TaskPanel, played: readonly { task: string }[]): Promise<World> {
  const world = worldNamed(panel.environment);
  const wanted = new Set(played.map(({ task }) => task));
  const files = panel.tasks.filter((task): task is PanelTask & { bytes: number } => task.bytes !== undefined && wanted.has(task.id));
  if (files.length === 0) return world;
  const fetched = await Promise.all(
    files.map(async ({ id, sha256, bytes }) => [id, await store.get({ key: objectKey(sha256), sha256, bytes })] as const),
  );
  return world.withFiles(new Map(fetched));
}
