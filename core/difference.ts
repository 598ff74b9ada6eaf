/** Where two JSON values differ, as paths that a person can follow. */

export interface Difference {
  /** From the given root, e.g. `output.policy.sha256` or `body.panels[2]`. */
  path: string;
  /** JSON, or `nothing` where the value is absent. */
  a: string;
  b: string;
}

/** Every place at which `a` and `b` differ, in the order of `a`. Lazy: the first costs no more than the way to it. */
export function* differences(a: unknown, b: unknown, path: string): Generator<Difference, void, void> {
  if (typeof a === 'object' && a !== null && typeof b === 'object' && b !== null && Array.isArray(a) === Array.isArray(b)) {
    for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
      const at = Array.isArray(a) ? `${path}[${key}]` : path === '' ? key : `${path}.${key}`;
      yield* differences((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key], at);
    }
  } else if (a !== b && JSON.stringify(a) !== JSON.stringify(b)) {
    yield { path, a: JSON.stringify(a) ?? 'nothing', b: JSON.stringify(b) ?? 'nothing' };
  }
}
