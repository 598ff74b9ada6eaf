/** The game files of ALFWorld's format that benchmarks use, and the Python environment with the real ALFWorld (text only). */
import { existsSync, globSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bytesOf, gameFileOf } from '../../environments/household/game-writer.ts';
import { homeOf } from '../../environments/household/generator.ts';
import { worldNamed } from '../../environments/registry.ts';
import { pythonWith } from '../python.ts';

/** `RATCHET_ALFWORLD_DIR` names a folder of genuine games, `../shared/alfworld` by default. */
export const ALFWORLD_FOLDER = process.env['RATCHET_ALFWORLD_DIR'] ?? join(import.meta.dirname, '..', '..', '..', 'shared', 'alfworld');

/** ALFWorld's own packages would bring simulators and models along, which playing text needs none of. */
export const alfworldPython = (): string => pythonWith(join(import.meta.dirname, 'requirements.txt'), ['alfworld==0.4.2']);

/** Paths of game files, sorted: genuine ones where the folder is there, else as many generated ones; `kind` says which. */
export function gameFiles(most: number): { kind: 'genuine' | 'generated'; files: string[] } {
  if (existsSync(ALFWORLD_FOLDER)) {
    const all = globSync('games/**/game.tw-pddl', { cwd: ALFWORLD_FOLDER }).sort();
    // Evenly over the sorted list: the same number of every family.
    const files = Array.from(
      { length: Math.min(most, all.length) },
      (_, i) => all[Math.floor((i * all.length) / Math.min(most, all.length))] as string,
    );
    return { kind: 'genuine', files: files.map((file) => join(ALFWORLD_FOLDER, file)) };
  }
  const folder = mkdtempSync(join(tmpdir(), 'ratchet-bench-games-'));
  const files = worldNamed('household')
    .tasks('train', 0, most)
    .map(({ id }, i) => {
      const path = join(folder, `${i}.tw-pddl`);
      writeFileSync(path, bytesOf(gameFileOf(homeOf(id))));
      return path;
    });
  return { kind: 'generated', files };
}
