/** The worlds by name. A world is added by adding its folder and one line here. */
import { badInput } from '../core/errors.ts';
import type { World } from './environment.ts';
import { household } from './household/world.ts';

const WORLDS: readonly World[] = [household];

/** Throws RatchetError('BadInput') that names the nearest world there is. */
export function worldNamed(name: string): World {
  const world = WORLDS.find((each) => each.name === name);
  if (world !== undefined) return world;
  const nearest = WORLDS.map((each) => each.name).sort((a, b) => editDistance(name, a) - editDistance(name, b))[0];
  throw badInput('environment', name, `the nearest valid name is ${JSON.stringify(nearest)}`);
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next.push(Math.min((row[j] as number) + 1, (next[j - 1] as number) + 1, (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length] as number;
}
