/** Options that several commands share, and how their text becomes values. */
import { Option } from 'commander';
import { hostname, userInfo } from 'node:os';
import { badInput } from '../core/errors.ts';
import { SCALES } from '../recipes/schema.ts';

export const scaleOption = (): Option => new Option('--scale <scale>', `size of every budget: ${SCALES.join(', ')}`).default('tiny');
export const seedOption = (): Option => new Option('--seed <n>', "seed of every draw, instead of the recipe's");
export const setOption = (): Option =>
  new Option('--set <field=value>', 'change a field of the recipe, e.g. --set collect.tasks=100; may be given again')
    .default([] as string[], 'none')
    .argParser((value, earlier: string[]) => [...earlier, value]);
export const idOption = (): Option => new Option('--id <run>', 'run id instead of the next free one');

/** A whole number from an option. Throws BadInput. */
export function wholeNumber(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() === '' || !Number.isSafeInteger(value) || value < 0) throw badInput(option, text, 'a whole number of at least 0');
  return value;
}

/** Who gives a command, where nobody says otherwise. */
export function operatorName(): string {
  return `${userInfo().username}@${hostname()}`;
}
