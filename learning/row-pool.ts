/**
 * The rows of a decoder as they are given out and come back. With `reuse` a row that comes back keeps what it has read, and a prompt that begins like
 * something that any row has read starts from there: an agent that sends its whole history each turn pays for what is new. It decides only where a
 * prompt is read, never what; but shapes of arithmetic, and so last bits, then depend on who was there before.
 */
import type { Decoder } from './types.ts';

export class RowPool {
  readonly #decoder: Decoder;
  readonly #reuse: boolean;
  /** Without reuse in ascending order; with it the longest unused first. */
  readonly #free: number[];
  /** What each row has read; only with reuse. */
  readonly #paths: number[][];

  constructor(decoder: Decoder, reuse: boolean) {
    this.#decoder = decoder;
    this.#reuse = reuse;
    this.#free = Array.from({ length: decoder.rows }, (_, row) => row);
    this.#paths = this.#free.map(() => []);
  }

  get free(): number {
    return this.#free.length;
  }

  /** `count` free rows. The first has read the first `read` tokens of the prompt already, at most all but the last; the others nothing. */
  take(count: number, prompt: readonly number[]): { rows: number[]; read: number } {
    if (!this.#reuse) return { rows: this.#free.splice(0, count), read: 0 };
    const shared = this.#paths.map((path) => commonLength(path, prompt));
    const best = shared.reduce((a, length, row) => (length > shared[a]! ? row : a), 0);
    const read = shared[best]!;
    // A row whose whole path is shared is taken as it is; anything else is worth keeping for others as long as there are older rows.
    const first = this.#free.includes(best) && read === this.#paths[best]!.length ? best : this.#free[0]!;
    this.#free.splice(this.#free.indexOf(first), 1);
    const rows = [first, ...this.#free.splice(0, count - 1)];
    if (read === 0) this.#decoder.clear(first);
    else {
      this.#decoder.copy(best, first);
      this.#decoder.truncate(first, read);
    }
    this.#paths[first] = prompt.slice(0, read);
    for (const row of rows.slice(1)) this.#forget(row);
    return { rows, read };
  }

  /** The row has read these tokens now. */
  hasRead(row: number, ids: readonly number[]): void {
    if (this.#reuse) this.#paths[row]!.push(...ids);
  }

  copy(from: number, to: number): void {
    this.#decoder.copy(from, to);
    this.#paths[to] = [...this.#paths[from]!];
  }

  release(rows: readonly number[]): void {
    this.#free.push(...rows);
    if (this.#reuse) return;
    for (const row of rows) this.#forget(row);
    this.#free.sort((a, b) => a - b);
  }

  #forget(row: number): void {
    this.#decoder.clear(row);
    this.#paths[row] = [];
  }
}

/** How many first tokens of the path and of the prompt are the same; the prompt's last token is left to be read. */
function commonLength(path: readonly number[], prompt: readonly number[]): number {
  const most = Math.min(path.length, prompt.length - 1);
  let length = 0;
  while (length < most && path[length] === prompt[length]) length++;
  return length;
}
