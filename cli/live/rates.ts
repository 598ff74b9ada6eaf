/** How long counted work will still take, from how fast it went lately. */

/** Rates are taken over this long: short enough to follow a change of pace, long enough to smooth shards that finish together. */
const WINDOW_MS = 30_000;
/** Less than this says nothing yet. */
const LEAST_MS = 2_000;

export class Rate {
  #samples: { atMs: number; done: number }[] = [];

  add(atMs: number, done: number): void {
    const last = this.#samples.at(-1);
    // Less than before: the work was taken up again from an earlier point.
    if (last && done < last.done) this.#samples = [];
    this.#samples.push({ atMs, done });
    while (this.#samples.length > 2 && (this.#samples[1] as { atMs: number }).atMs <= atMs - WINDOW_MS) this.#samples.shift();
  }

  /** Milliseconds from the last sample until `total` is reached; null while nobody can tell. */
  leftMs(total: number): number | null {
    const [first] = this.#samples;
    const last = this.#samples.at(-1);
    if (!first || !last) return null;
    if (last.done >= total) return 0;
    const [spanMs, gained] = [last.atMs - first.atMs, last.done - first.done];
    if (spanMs < LEAST_MS || gained <= 0) return null;
    return ((total - last.done) / gained) * spanMs;
  }
}
