/**
 * Keyed randomness: every draw in Ratchet comes from a generator named by what it is for, never from time, worker, attempt or order of arrival.
 * It refuses unkeyed draws; there is no global generator.
 */
import { createHash } from 'node:crypto';

/** The name of a stream of draws, e.g. `[seed, 'collect', iteration, task, repeat]`. Two different keys give independent streams. */
export type RandomKey = readonly (string | number)[];

/** A stream of draws: sfc32 (Chris Doty-Humphrey's small fast chaotic generator, period about 2^127) seeded with SHA-256 of its key. */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter: number;

  constructor(key: RandomKey) {
    const digest = createHash('sha256').update(JSON.stringify(key)).digest();
    this.#a = digest.readInt32LE(0);
    this.#b = digest.readInt32LE(4);
    this.#c = digest.readInt32LE(8);
    this.#counter = digest.readInt32LE(12);
    for (let i = 0; i < 12; i++) this.uint32();
  }

  /** An integer in [0, 2^32). */
  uint32(): number {
    const t = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (this.#c << 21) | (this.#c >>> 11);
    this.#c = (this.#c + t) | 0;
    return t >>> 0;
  }

  /** A real in [0, 1) with 53 random bits. */
  uniform(): number {
    return ((this.uint32() >>> 5) * 67108864 + (this.uint32() >>> 6)) / 9007199254740992;
  }

  /** An integer in [0, n), without modulo bias to within 2^-53. `n` must be at least 1. */
  below(n: number): number {
    return Math.floor(this.uniform() * n);
  }

  /** A standard normal draw (Box-Muller, one of the pair). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  /** A standard Gumbel draw: adding it to log-probabilities and taking the k largest samples k distinct items without replacement. */
  gumbel(): number {
    return -Math.log(-Math.log(1 - this.uniform() + Number.MIN_VALUE));
  }

  /** One item of a non-empty list. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }

  /** A copy of the list in random order (Fisher-Yates). */
  shuffled<T>(items: readonly T[]): T[] {
    const out = items.slice();
    for (let i = out.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [out[i], out[j]] = [out[j] as T, out[i] as T];
    }
    return out;
  }
}
