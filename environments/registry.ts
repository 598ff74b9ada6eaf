/** The worlds by name. A world is added by adding its folder and one line here. */
import { badInput } from '../core/errors.ts';
import { nearest } from '../core/nearest.ts';
import type { World } from './environment.ts';
import { household } from './household/world.ts';

const WORLDS: readonly World[] = [household];

/** Throws RatchetError('BadInput') that names the nearest world there is. */
export function worldNamed(name: string): World {
  const world = WORLDS.find((each) => each.name === name);
  if (world !== undefined) return world;
  const valid = nearest(
    name,
    WORLDS.map((each) => each.name),
  );
  throw badInput('environment', name, `the nearest valid name is ${JSON.stringify(valid)}`);
}
