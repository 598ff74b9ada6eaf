/**
 * Reads recipes: the YAML file, the budgets of one scale laid over it, `--set` overrides on top, validated by the schema. Every fault is reported with
 * the field, the value and what would be valid; nothing is started on a faulty recipe.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { badInput, RatchetError } from '../core/errors.ts';
import { nearest } from '../core/nearest.ts';
import type { Amendment } from './amend.ts';
import { faultsOf } from './faults.ts';
import { recipeSchema, SCALES, type Recipe, type Scale } from './schema.ts';

type Fields = Record<string, unknown>;

const FOLDER = fileURLToPath(new URL('.', import.meta.url));

/** The recipes that come with Ratchet: name, method, and the scales they define. */
export function listRecipes(): { name: string; method: string; scales: string[] }[] {
  return readdirSync(FOLDER)
    .filter((file) => file.endsWith('.yaml'))
    .sort()
    .map((file) => {
      const fields = parse(readFileSync(FOLDER + file, 'utf8')) as { method: string; scales?: Fields };
      return { name: file.replace(/\.yaml$/, ''), method: fields.method, scales: Object.keys(fields.scales ?? {}) };
    });
}

/**
 * The resolved recipe. `nameOrPath` is the name of a recipe that comes with Ratchet or a path to a YAML file. `overrides` are `path.to.field=value` with
 * YAML values, e.g. `collect.tasks=100`.
 */
export function loadRecipe(nameOrPath: string, options: { scale: string; seed?: number; overrides?: readonly string[] }): Recipe {
  const fields = readFields(nameOrPath);
  const { scales = {}, ...base } = fields as Fields & { scales?: Record<string, Fields> };
  if (!(SCALES as readonly string[]).includes(options.scale)) throw badInput('scale', options.scale, `use one of ${SCALES.join(', ')}`);
  const budgets = scales[options.scale as Scale];
  if (!budgets) throw badInput('scale', options.scale, `recipe ${nameOrPath} defines ${Object.keys(scales).join(', ') || 'no scales'}`);
  const merged = merge(merge(base, budgets), { scale: options.scale });
  for (const override of options.overrides ?? []) applyOverride(merged, override);
  if (options.seed !== undefined) merged['seed'] = options.seed;
  return resolveRecipe(merged);
}

/** Validates and fills in the defaults. */
export function resolveRecipe(fields: unknown): Recipe {
  const result = recipeSchema.safeParse(fields);
  if (result.success) return result.data;
  throw new RatchetError(
    'BadInput',
    `the recipe is not valid:\n${faultsOf(result.error, fields)
      .map((fault) => `  ${fault}`)
      .join('\n')}`,
  );
}

function readFields(nameOrPath: string): Fields {
  const isPath = nameOrPath.includes('/') || nameOrPath.endsWith('.yaml') || nameOrPath.endsWith('.yml');
  const path = isPath ? nameOrPath : `${FOLDER}${nameOrPath}.yaml`;
  if (!existsSync(path)) {
    const names = listRecipes().map(({ name }) => name);
    throw isPath
      ? badInput('recipe', nameOrPath, 'there is no such file')
      : badInput(
          'recipe',
          nameOrPath,
          `did you mean ${nearest(nameOrPath, names)}? The recipes are ${names.join(', ')}; a path to a YAML file is fine too`,
        );
  }
  let fields: unknown;
  try {
    fields = parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new RatchetError('BadInput', `recipe ${nameOrPath}: not readable as YAML: ${(error as Error).message}`, { cause: error });
  }
  if (typeof fields !== 'object' || fields === null || Array.isArray(fields))
    throw badInput('recipe', nameOrPath, 'the file must hold a mapping of fields');
  return fields as Fields;
}

/** Lays `over` on `base`: mappings merge, everything else replaces. */
function merge(base: Fields, over: Fields): Fields {
  const out: Fields = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const before = out[key];
    out[key] = isFields(before) && isFields(value) ? merge(before, value) : value;
  }
  return out;
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** `path.to.field=value` with a YAML value. Throws BadInput. */
export function parseOverride(override: string): Amendment {
  const at = override.indexOf('=');
  if (at < 1) throw badInput('--set', override, 'write path.to.field=value, for example collect.tasks=100');
  return { path: override.slice(0, at), value: parse(override.slice(at + 1)) as unknown };
}

function applyOverride(fields: Fields, override: string): void {
  const { path, value } = parseOverride(override);
  const keys = path.split('.');
  const last = keys.pop() as string;
  let target = fields;
  for (const key of keys) {
    if (!isFields(target[key])) target[key] = {};
    target = target[key] as Fields;
  }
  target[last] = value;
}
