/**
 * How storing and sweeping agree without locks. `put` does not send what is there already; so it could trust an object that nothing refers to, which a
 * sweep (`gc.ts`) removes a moment later. Two rules prevent that. An object that has grown old is stored anew, which makes it young, and a sweep looks at
 * the age of each object right before it removes it. Between that look and the removal a few milliseconds pass: therefore a sweep announces itself first,
 * and whoever has stored an old object anew while one is announced waits until it is over and makes sure that the object is still there.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { ArtifactStore, CallOptions } from './store.ts';

/** Of an announced sweep: present while one removes objects. */
export const SWEEP_KEY = 'gc/sweep.json';

/**
 * No shorter grace period than this may be asked for: between storing an object and committing what refers to it lies the end of a stage (seconds), or a
 * machine that slept through the night.
 */
export const LEAST_GRACE_MS = 24 * 3600_000;
/** An object of this age is stored anew where it is put again. Half of the least grace period, so that a put object has the other half to be referred to. */
export const REFRESHED_AFTER_MS = LEAST_GRACE_MS / 2;

/** What is announced holds for so long; a sweep that died is waited for no longer. */
const LEASE_MS = 30_000;
/** A removal begins only with so much of the lease left: one request, with the store's patience for it. */
const LEASE_RESERVE_MS = 25_000;
const POLL_MS = 100;
/** S3 refuses requests of clocks that differ by more than this: an announcement that has run out for longer is of a sweep that died. */
const CLOCK_SKEW_MS = 15 * 60_000;

interface Announcement {
  /** Milliseconds since 1970. */
  until: number;
}

/** The announcement of a sweep. Clocks of machines may differ by minutes; this one is told by its own to itself, and to others by lasting. */
export class Sweep {
  readonly #store: ArtifactStore;
  #until = 0;

  private constructor(store: ArtifactStore) {
    this.#store = store;
  }

  /** Announces a sweep. `startedAt`: now, by the store's clock. */
  static async announce(store: ArtifactStore, options: CallOptions): Promise<{ sweep: Sweep; startedAt: Date }> {
    const sweep = new Sweep(store);
    await sweep.renew(options);
    const written = await store.stat(SWEEP_KEY, options);
    return { sweep, startedAt: written?.lastModified ?? new Date(0) };
  }

  /** Called before every removal; writes only where little of the announced time is left. */
  async renew(options: CallOptions): Promise<void> {
    if (this.#until - Date.now() >= LEASE_RESERVE_MS) return;
    const until = Date.now() + LEASE_MS;
    await this.#store.writePointer(SWEEP_KEY, { until } satisfies Announcement, options);
    this.#until = until;
  }

  async end(): Promise<void> {
    await this.#store.delete(SWEEP_KEY);
  }
}

/** Waits while a sweep is announced, for at most `LEASE_MS` after its last sign of life. */
export async function outlastSweep(store: ArtifactStore, signal: AbortSignal | undefined): Promise<void> {
  let last: number | null = null;
  let seenAtMs = performance.now();
  for (;;) {
    const announced = await store.readManifest<Announcement>(SWEEP_KEY, signal && { signal });
    if (announced === null || Date.now() - announced.until > CLOCK_SKEW_MS) return;
    // By how long it lasts unchanged, not by its time: the clocks of two machines need not agree.
    if (announced.until !== last) {
      last = announced.until;
      seenAtMs = performance.now();
    } else if (performance.now() - seenAtMs > LEASE_MS) return;
    await delay(POLL_MS, undefined, signal && { signal });
  }
}
