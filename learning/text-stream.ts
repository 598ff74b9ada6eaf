/**
 * Text from tokens as they come: a character is told when all of its bytes are there, and nothing is told that may yet turn out to be part of a stop
 * string. What is told, put together, is the text of all tokens up to the stop. It knows no tokenizer, only a function from ids to text.
 */

/** The character that decoders put in place of bytes that are no character (yet). */
const INCOMPLETE = '\uFFFD';

export class TextStream {
  readonly #decode: (ids: readonly number[]) => string;
  readonly #stops: readonly string[];
  readonly #longestStop: number;
  readonly #ids: number[] = [];
  /** Tokens from `#window` are decoded together; the text of those before `#read` is in `#text`. The overlap shows whether a space belongs between them. */
  #window = 0;
  #read = 0;
  #text = '';
  #told = 0;

  /** `stops`: not empty strings. The text ends before the first place where one of them begins. */
  constructor(decode: (ids: readonly number[]) => string, stops: readonly string[] = []) {
    this.#decode = decode;
    this.#stops = stops;
    this.#longestStop = Math.max(0, ...stops.map((stop) => stop.length));
  }

  /** Takes the next token; gives the text that is certain now, and the stop string that ended it, if one did (nothing may be pushed after that). */
  push(id: number): { text: string; stoppedBy: string | null } {
    this.#ids.push(id);
    const before = this.#decode(this.#ids.slice(this.#window, this.#read));
    const after = this.#decode(this.#ids.slice(this.#window));
    if (after.length <= before.length || after.endsWith(INCOMPLETE)) return { text: '', stoppedBy: null };
    this.#window = this.#read;
    this.#read = this.#ids.length;
    return this.#take(after.slice(before.length), false);
  }

  /** No token follows: gives what was held back. */
  end(): { text: string; stoppedBy: string | null } {
    const before = this.#decode(this.#ids.slice(this.#window, this.#read));
    return this.#take(this.#decode(this.#ids.slice(this.#window)).slice(before.length), true);
  }

  #take(more: string, last: boolean): { text: string; stoppedBy: string | null } {
    const from = Math.max(0, this.#text.length - this.#longestStop + 1);
    this.#text += more;
    const found = this.#stops
      .map((stop) => ({ stop, at: this.#text.indexOf(stop, from) }))
      .filter(({ at }) => at >= 0)
      .sort((a, b) => a.at - b.at)[0];
    const until = found ? found.at : last ? this.#text.length : this.#text.length - this.#heldBack();
    const text = this.#text.slice(this.#told, until);
    this.#told = until;
    return { text, stoppedBy: found?.stop ?? null };
  }

  /** Length of the longest end of the text that a stop string begins with. */
  #heldBack(): number {
    for (let length = Math.min(this.#longestStop - 1, this.#text.length); length > 0; length--) {
      const end = this.#text.slice(-length);
      if (this.#stops.some((stop) => stop.length > length && stop.startsWith(end))) return length;
    }
    return 0;
  }
}
