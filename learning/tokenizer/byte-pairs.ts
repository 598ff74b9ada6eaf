/**
 * Byte-pair encoding learned from word counts (arXiv 1508.07909, Algorithm 1): again and again the most frequent pair of neighbours becomes a token, of
 * equally frequent pairs the one with the lower ids. Words are never joined. Counts are kept up to date word by word, so a merge costs what it changes.
 */

export type Merge = [string, string];

/** GPT-2's printable stand-ins for the 256 bytes: byte b is written as the character at place b. */
export function byteCharacters(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return String.fromCharCode(printable ? byte : next++);
  });
}

interface Word {
  symbols: number[];
  count: number;
}

/** Pairs of token ids as one number: ids are below 2^24. */
const SPAN = 2 ** 24;
const keyOf = (a: number, b: number) => a * SPAN + b;

/**
 * Learns merges until the vocabulary is full or no pair occurs `minFrequency` times. `tokens` holds the special tokens and, from `alphabetStart`, the
 * byte characters; the new tokens are added to it.
 */
export function learnMerges(
  counts: ReadonlyMap<string, number>,
  tokens: string[],
  options: { vocabulary: number; minFrequency: number; alphabetStart: number },
): Merge[] {
  const bytes = byteCharacters();
  const ids = new Map(tokens.map((token, id) => [token, id] as const).slice(options.alphabetStart));
  const words: Word[] = [...counts].map(([text, count]) => ({
    symbols: [...Buffer.from(text)].map((byte) => ids.get(bytes[byte]!)!),
    count,
  }));
  const pairs = new Map<number, number>();
  const places = new Map<number, Set<Word>>();
  const change = (a: number, b: number, by: number, word: Word) => {
    const key = keyOf(a, b);
    pairs.set(key, (pairs.get(key) ?? 0) + by);
    if (by < 0) return key;
    const known = places.get(key);
    if (known) known.add(word);
    else places.set(key, new Set([word]));
    return key;
  };
  for (const word of words) for (let i = 1; i < word.symbols.length; i++) change(word.symbols[i - 1]!, word.symbols[i]!, word.count, word);
  const queue = new PairQueue();
  for (const [key, count] of pairs) queue.push(key, count);

  const merges: Merge[] = [];
  while (tokens.length < options.vocabulary) {
    const top = queue.pop();
    if (top === undefined || top.count < Math.max(1, options.minFrequency)) break;
    const count = pairs.get(top.key)!;
    // Counts fall while a pair waits; it is then put where it belongs. Where they rise, it is put in once more.
    if (count !== top.count) {
      if (count > 0 && count < top.count) queue.push(top.key, count);
      continue;
    }
    const [a, b] = [Math.floor(top.key / SPAN), top.key % SPAN];
    const text = tokens[a]! + tokens[b]!;
    let id = ids.get(text);
    if (id === undefined) {
      id = tokens.push(text) - 1;
      ids.set(text, id);
    }
    merges.push([tokens[a]!, tokens[b]!]);
    const risen = new Set<number>();
    for (const word of places.get(top.key) ?? []) {
      const { symbols } = word;
      const merged: number[] = [];
      for (let i = 0; i < symbols.length; i++) {
        if (symbols[i] !== a || symbols[i + 1] !== b) {
          merged.push(symbols[i]!);
          continue;
        }
        if (merged.length > 0) {
          change(merged.at(-1)!, a, -word.count, word);
          risen.add(change(merged.at(-1)!, id, word.count, word));
        }
        if (i + 2 < symbols.length) {
          change(b, symbols[i + 2]!, -word.count, word);
          risen.add(change(id, symbols[i + 2]!, word.count, word));
        }
        merged.push(id);
        i++;
      }
      word.symbols = merged;
    }
    pairs.set(top.key, 0);
    places.delete(top.key);
    for (const key of risen) {
      const now = pairs.get(key)!;
      if (now > 0) queue.push(key, now);
    }
  }
  return merges;
}

/** A binary heap: the highest count first, of equals the lowest key. */
class PairQueue {
  readonly #heap: { key: number; count: number }[] = [];

  #before(i: number, j: number): boolean {
    const [a, b] = [this.#heap[i]!, this.#heap[j]!];
    return a.count !== b.count ? a.count > b.count : a.key < b.key;
  }

  #swap(i: number, j: number): void {
    const heap = this.#heap;
    [heap[i], heap[j]] = [heap[j]!, heap[i]!];
  }

  push(key: number, count: number): void {
    let at = this.#heap.push({ key, count }) - 1;
    for (let parent = (at - 1) >> 1; at > 0 && this.#before(at, parent); at = parent, parent = (at - 1) >> 1) this.#swap(at, parent);
  }

  pop(): { key: number; count: number } | undefined {
    const top = this.#heap[0];
    const last = this.#heap.pop();
    if (top === undefined || last === undefined || this.#heap.length === 0) return top;
    this.#heap[0] = last;
    for (let at = 0; ;) {
      let best = at;
      for (const child of [2 * at + 1, 2 * at + 2]) if (child < this.#heap.length && this.#before(child, best)) best = child;
      if (best === at) return top;
      this.#swap(at, best);
      at = best;
    }
  }
}
