/**
 * Plain-text tables: aligned columns, no borders. A table that is wider than the terminal goes without its optional columns, and if that does not do,
 * becomes one block of lines per row; nothing is cut off.
 */

export interface Column<Row> {
  title: string;
  cell(row: Row): string;
  /** Numbers read best aligned at their end. */
  align?: 'left' | 'right';
  /** Left out where the table would be too wide with it. */
  optional?: boolean;
}

const GAP = '  ';

/** Lines without trailing spaces. `width` in characters; absent: as wide as it needs. */
export function table<Row>(columns: readonly Column<Row>[], rows: readonly Row[], width = Infinity): string[] {
  const cells = rows.map((row) => columns.map((column) => column.cell(row)));
  const widths = columns.map(({ title }, i) => Math.max(title.length, ...cells.map((line) => (line[i] as string).length)));
  const total = widths.reduce((sum, each) => sum + each, 0) + GAP.length * (columns.length - 1);
  if (total > width) {
    const needed = columns.filter(({ optional }) => !optional);
    return needed.length < columns.length ? table(needed, rows, width) : blocks(columns, cells);
  }
  const line = (texts: readonly string[]) =>
    texts
      .map((text, i) => (columns[i]?.align === 'right' ? text.padStart(widths[i] as number) : text.padEnd(widths[i] as number)))
      .join(GAP)
      .trimEnd();
  return [line(columns.map(({ title }) => title)), ...cells.map(line)];
}

function blocks<Row>(columns: readonly Column<Row>[], cells: readonly string[][]): string[] {
  const titles = Math.max(...columns.map(({ title }) => title.length));
  return cells.flatMap((line, row) => [
    ...(row > 0 ? [''] : []),
    ...columns.map(({ title }, i) => `${title.padEnd(titles)}${GAP}${line[i] as string}`.trimEnd()),
  ]);
}
