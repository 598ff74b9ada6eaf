/**
 * What is wrong with a recipe, in our own words: the field, its value, and what would be valid there. What is valid is read off the schema itself, as JSON
 * Schema, so that a new field needs no new sentence. Reads no files, so that workflow code may import it.
 */
import { z } from 'zod';
import { nearest } from '../core/nearest.ts';
import { recipeSchema } from './schema.ts';

/** A node of the JSON Schema, as far as recipes need it. */
interface Node {
  type?: string;
  properties?: Record<string, Node>;
  items?: Node;
  anyOf?: Node[];
  oneOf?: Node[];
  enum?: unknown[];
  const?: unknown;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  minItems?: number;
  minLength?: number;
  pattern?: string;
}

/** One line for each fault. */
export function faultsOf({ issues }: z.core.$ZodError, fields: unknown): string[] {
  return issues.flatMap((issue) => {
    const at = issue.path.join('.');
    if (issue.code === 'unrecognized_keys') {
      const valid = [...new Set(nodesAt(issue.path).flatMap((node) => Object.keys(node.properties ?? {})))];
      const prefix = at === '' ? '' : `${at}.`;
      return issue.keys.map((key) => `${prefix}${key}: there is no such field; did you mean ${prefix}${nearest(key, valid)}?`);
    }
    const value = issue.path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown> | null | undefined)?.[key], fields);
    // Faults between fields are worded where they are found, in the schema; so is what a pattern means.
    const own = issue.code === 'custom' || issue.code === 'invalid_format';
    const valid = own ? issue.message : validAt(issue.path);
    return [value === undefined ? `${at}: missing; ${valid}` : `${at || 'recipe'}: ${JSON.stringify(value)} is not valid; ${valid}`];
  });
}

/** What would be valid at a path, e.g. `a whole number from 1 to 64`. */
function validAt(path: readonly PropertyKey[]): string {
  return [...new Set(nodesAt(path).flatMap(words))].join(', or ');
}

function words(node: Node): string[] {
  if (node.const !== undefined) return [JSON.stringify(node.const)];
  if (node.enum) return [`one of ${node.enum.join(', ')}`];
  if (node.type === 'integer' || node.type === 'number') return [numberWords(node)];
  if (node.type === 'string') return [(node.minLength ?? 0) > 0 ? 'a text that is not empty' : 'a text'];
  if (node.type === 'array') return [(node.minItems ?? 0) > 0 ? `a list of at least ${node.minItems}` : 'a list'];
  if (node.type === 'object') {
    const kind = node.properties?.['kind']?.const;
    const which = kind === undefined ? '' : ` of kind ${JSON.stringify(kind)}`;
    return [`a mapping${which} with the fields ${Object.keys(node.properties ?? {}).join(', ')}`];
  }
  return node.type ? [node.type] : [];
}

function numberWords({ type, minimum, maximum, exclusiveMinimum, exclusiveMaximum }: Node): string {
  const name = type === 'integer' ? 'a whole number' : 'a number';
  if (minimum !== undefined && maximum !== undefined) return `${name} from ${minimum} to ${maximum}`;
  const bounds = [
    ...(exclusiveMinimum === undefined ? [] : [`above ${exclusiveMinimum}`]),
    ...(minimum === undefined ? [] : [`of at least ${minimum}`]),
    ...(exclusiveMaximum === undefined ? [] : [`below ${exclusiveMaximum}`]),
    ...(maximum === undefined ? [] : [`up to ${maximum}`]),
  ];
  return [name, bounds.join(' and ')].filter(Boolean).join(' ');
}

let root: Node | undefined;

/** Every form that a value at this path may have. */
function nodesAt(path: readonly PropertyKey[]): Node[] {
  const expand = (node: Node): Node[] => {
    const forms = [...(node.anyOf ?? []), ...(node.oneOf ?? [])];
    return forms.length > 0 ? forms.flatMap(expand) : [node];
  };
  root ??= z.toJSONSchema(recipeSchema, { io: 'input' }) as Node;
  let nodes = expand(root);
  for (const key of path)
    nodes = nodes
      .flatMap((node) => (typeof key === 'number' ? (node.items ?? []) : (node.properties?.[String(key)] ?? [])))
      .flatMap(expand);
  return nodes;
}
