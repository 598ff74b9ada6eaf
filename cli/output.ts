/** What commands write: text for people, JSON for programs, never both. Standard output is for results, standard error for everything else. */

/** Widest text that is laid out, whatever the terminal. */
export const MOST_COLUMNS = 140;

/** Columns of the terminal; absent where the output is not one (a file keeps whole lines). */
export function columns(): number | undefined {
  return process.stdout.isTTY ? Math.min(MOST_COLUMNS, process.stdout.columns || 80) : undefined;
}

export function print(...lines: string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

export function note(...lines: string[]): void {
  process.stderr.write(`${lines.join('\n')}\n`);
}

/** How often a line in place is drawn: faster than the eye asks for would only cost. */
const REDRAW_MS = 250;

/** Progress on one line of a terminal, which the last call clears; silent where standard error is none. */
export function inPlace(): (text: string, last: boolean) => void {
  let shownAtMs = -Infinity;
  return (text, last) => {
    if (!process.stderr.isTTY || (!last && performance.now() - shownAtMs < REDRAW_MS)) return;
    shownAtMs = performance.now();
    process.stderr.write(`\r\u001b[K${last ? '' : text}`);
  };
}
