/** What ALFWorld calls the objects of a game: `mug 2` for `mug_bar__plus_01_dot_20...`. Source: its demangler, surprises included. */
const SPELLINGS = [
  ['_bar_', '|'],
  ['_minus_', '-'],
  ['_plus_', '+'],
  ['_dot_', '.'],
  ['_comma_', ','],
] as const;

/** Names for ids in the order of code points: within a class the first id gets the highest number; an id of no class gets a blank instead of a number. */
export function demangled(ids: readonly string[]): Map<string, string> {
  const kindOf = (id: string): string | null => {
    const end = id.indexOf('_bar_');
    return end < 0 ? null : id.slice(0, end) + (id.includes('basin') ? 'basin' : '');
  };
  const left = new Map<string, number>();
  for (const id of ids) {
    const kind = kindOf(id);
    if (kind !== null) left.set(kind, (left.get(kind) ?? 0) + 1);
  }
  return new Map(
    ids.map((id) => {
      const kind = kindOf(id);
      if (kind === null) return [id, `${SPELLINGS.reduce((text, [spelled, sign]) => text.replaceAll(spelled, sign), id)} `];
      const number = left.get(kind) as number;
      left.set(kind, number - 1);
      return [id, `${kind} ${number}`];
    }),
  );
}
