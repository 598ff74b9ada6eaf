/**
 * Changes to a recipe while its run is under way, or for a run that forks from it: budgets and hyper-parameters, never what the history rests on (the
 * environment, the seed, the panels, the warm start). Reads no files, so that workflow code may import it.
 */
import { badInput, RatchetError } from '../core/errors.ts';
import { faultsOf } from './faults.ts';
import { recipeSchema, type Recipe } from './schema.ts';

/** One field, as a path from the recipe's root, and its new value (JSON). */
export interface Amendment {
  path: string;
  value: unknown;
}

/** The sections that an amendment may touch. */
export const AMENDABLE = ['iterations', 'collect', 'label', 'rewardModel', 'update', 'gate', 'pairTruth', 'report', 'work'] as const;

/** The recipe with the amendments laid over it, validated whole. Throws BadInput naming the field, the value and what would be valid. */
export function amendRecipe(recipe: Recipe, amendments: readonly Amendment[]): Recipe {
  // A recipe of an earlier version is not held against today's schema unless somebody changes it.
  if (amendments.length === 0) return recipe;
  const fields = JSON.parse(JSON.stringify(recipe)) as Record<string, unknown>;
  for (const { path, value } of amendments) {
    const keys = path.split('.');
    if (!(AMENDABLE as readonly string[]).includes(keys[0] as string))
      throw badInput('amendment', path, `a field of ${AMENDABLE.join(', ')}; everything else belongs to the run for good`);
    let target = fields;
    for (const key of keys.slice(0, -1)) {
      const next = target[key];
      if (typeof next !== 'object' || next === null) throw badInput('amendment', path, `${key} has no fields`);
      target = next as Record<string, unknown>;
    }
    target[keys.at(-1) as string] = value;
  }
  const result = recipeSchema.safeParse(fields);
  if (result.success) return result.data;
  throw new RatchetError('BadInput', `the amended recipe is not valid: ${faultsOf(result.error, fields).join('; ')}`);
}
