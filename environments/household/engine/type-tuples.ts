/**
 * In which order TextWorld looks at facts of different types. A condition asks for arguments of certain types; facts of those very types come first, then
 * those of their subtypes, breadth first. Where a type has grandchildren, TextWorld visits them once more, so that their facts match (and are listed) twice.
 */
import { refuse } from './twl2.ts';

const MOST_TUPLES = 20_000;

const known = new WeakMap<ReadonlyMap<string, string>, Map<string, readonly string[]>>();

/** Tuples of types, joined by blanks, in TextWorld's order. `parents`: type -> its parent. */
export function typeTuples(types: readonly string[], parents: ReadonlyMap<string, string>): readonly string[] {
  let cache = known.get(parents);
  if (cache === undefined) known.set(parents, (cache = new Map()));
  const key = types.join(' ');
  let tuples = cache.get(key);
  if (tuples === undefined) cache.set(key, (tuples = walk(types, parents)));
  return tuples;
}

function walk(types: readonly string[], parents: ReadonlyMap<string, string>): string[] {
  const children = new Map<string, string[]>();
  for (const type of parents.keys()) {
    if (type === 'object') continue;
    // A type that is its own ancestor is among its own children.
    const seen = new Set<string>();
    for (let above = parents.get(type); above !== undefined && !seen.has(above); above = parents.get(above)) {
      seen.add(above);
      children.set(above, [...(children.get(above) ?? []), type]);
    }
  }
  for (const each of children.values()) each.sort();
  const expansions = (tuple: readonly string[]): string[][] =>
    tuple.flatMap((type, i) => (children.get(type) ?? []).map((child) => tuple.with(i, child)));
  const out = [types.join(' ')];
  const seen = new Set<string>();
  const queue = expansions(types);
  for (const tuple of queue) {
    out.push(tuple.join(' '));
    if (out.length > MOST_TUPLES) refuse(`a condition over (${types.join(', ')}) means more than ${MOST_TUPLES} combinations of types`);
    for (const next of expansions(tuple)) {
      const key = next.join(' ');
      if (seen.has(key)) continue;
      seen.add(key);
      queue.push(next);
    }
  }
  return out;
}
