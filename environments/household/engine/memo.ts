/** Keeps the latest results of a pure function of a text: games of one data set share their rules and most of their words. */

/** `most`: results that are kept. What the function throws is not kept. */
export function memo<T>(most: number, make: (text: string) => T): (text: string) => T {
  const kept = new Map<string, T>();
  return (text) => {
    let result = kept.get(text);
    if (result === undefined) {
      result = make(text);
      kept.set(text, result);
      if (kept.size > most) kept.delete(kept.keys().next().value as string);
    }
    return result;
  };
}
