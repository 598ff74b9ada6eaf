/**
 * How storing and sweeping agree without locks. `put` does not send what is there already; so it could trust an object that nothing refers to, which a
 * sweep (`gc.ts`) removes a moment later. Two rules prevent that. An object that has grown old is stored anew, which makes it young, and a sweep looks at
 * the age of each object right before it removes it. Between that look and the removal a few milliseconds pass: therefore a sweep announces itself first,
 * and ends each look with its removal within the time announced; whoever has stored an old object anew while one is announced waits for as long and makes
 * sure that the object is still there. Two sweeps at once are refused: one could remove what was stored right after the other had removed it.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { RatchetError } from '../core/errors.ts';
import type { ArtifactStore, CallOptions } from './store.ts';

/** Of announced sweeps, one key each: present while one removes objects, and after one that died. Its time of writing is what it says. */
export const SWEEPS = 'gc/sweeps/';

/**
 * No shorter grace period than this may be asked for: between storing an object and committing what refers to it lies the end of a stage (seconds), or a
 * machine that slept through the night.
 */
export const LEAST_GRACE_MS = 24 * 3600_000;
/** An object of this age is stored anew where it is put again. Half of the least grace period, so that a put object has the other half to be referred to. */
export const REFRESHED_AFTER_MS = LEAST_GRACE_MS / 2;

/** An announcement holds for so long after it was written; a sweep that died is waited for no longer. */
const LEASE_MS = 30_000;
/** No removal is sent later than this after the announcement: the rest is for the server to apply it, and for its times, which are whole seconds. */
const USED_MS = 25_000;
/** A removal begins only with so much of that left: the store's patience for it. */
const RESERVE_MS = 20_000;
const POLL_MS = 250;

/** The announcement of a sweep. Ages are told by the store's clock alone, and how long something lasts by one machine's own: no two clocks need agree. */
export class Sweep {
  readonly #store: ArtifactStore;
  readonly #key = `${SWEEPS}${randomUUID()}.json`;
  #until = 0;
  #renewing: Promise<void> | null = null;

  private constructor(store: ArtifactStore) {
    this.#store = store;
  }

  /** Announces a sweep. `startedAt`: now, by the store's clock. Throws Unavailable while another is announced. */
  static async announce(store: ArtifactStore, options: CallOptions): Promise<{ sweep: Sweep; startedAt: Date }> {
    const sweep = new Sweep(store);
    return { sweep, startedAt: await sweep.#announce(options) };
  }

  /**
   * Removes what is at `key` unless it was written after `oldest` (milliseconds since 1970), and says whether it did. Every try looks again: where the
   * answer to an earlier one was lost, somebody may have stored the object again. Throws Unavailable where look and removal do not end in time.
   */
  async remove(key: string, oldest: number, options: CallOptions): Promise<boolean> {
    const until = await this.#renew(options);
    const bound = AbortSignal.timeout(Math.max(0, until - Date.now()));
    const signal = options.signal ? AbortSignal.any([options.signal, bound]) : bound;
    let removed = false;
    const isOld = async () => {
      const now = await this.#store.stat(key, { signal });
      // A machine that was asleep meanwhile: its timers have not run, its clock has.
      if (Date.now() >= until) throw new RatchetError('Unavailable', `removing ${key}: not done within ${USED_MS} ms; run it again`);
      const old = now !== null && now.lastModified.getTime() <= oldest;
      // Not there: an earlier try has removed it, or somebody else.
      if (now !== null) removed = old;
      return old;
    };
    await this.#store.delete(key, { signal }, isOld);
    return removed;
  }

  /** Not called after a failure: a removal may then still be on its way, and what is announced has to hold for its time. */
  async end(): Promise<void> {
    await this.#store.delete(this.#key);
  }

  /** Until when a removal that begins now may be sent, in milliseconds since 1970 by this machine's clock. Writes only where little of it is left. */
  async #renew(options: CallOptions): Promise<number> {
    if (this.#until - Date.now() < RESERVE_MS) {
      this.#renewing ??= this.#announce(options).then(
        () => void (this.#renewing = null),
        (error: unknown) => {
          this.#renewing = null;
          throw error;
        },
      );
      await this.#renewing;
    }
    return this.#until;
  }

  async #announce(options: CallOptions): Promise<Date> {
    const lapsed = Date.now() >= this.#until;
    const until = Date.now() + USED_MS;
    await this.#store.writePointer(this.#key, {}, options);
    const written = (await this.#store.stat(this.#key, options))?.lastModified ?? new Date(0);
    // Each writes first and looks then, so of two at least one sees the other.
    if (lapsed) await this.#requireAlone(written, options);
    this.#until = until;
    return written;
  }

  async #requireAlone(now: Date, options: CallOptions): Promise<void> {
    for await (const { key, lastModified } of this.#store.list(SWEEPS, options)) {
      if (key === this.#key) continue;
      if (now.getTime() - lastModified.getTime() > LEASE_MS) await this.#store.delete(key, options);
      else {
        await this.end();
        const until = new Date(lastModified.getTime() + LEASE_MS).toISOString();
        throw new RatchetError(
          'Unavailable',
          `another \`gc\` is removing objects from ${this.#store.where}, or ended a moment ago: it announced itself until ${until}, for longer if it lives; run this one after it`,
        );
      }
    }
  }
}

/**
 * Waits after `key` was stored anew while a sweep is announced, for at most one lease, however often that is renewed: a removal that looked at its age
 * before is over by then, and one that looks later sees that it is young.
 */
export async function outlastSweep(store: ArtifactStore, key: string, options: CallOptions, leaseMs = LEASE_MS): Promise<void> {
  const deadline = performance.now() + leaseMs;
  let stored: number | null = null;
  for (;;) {
    const announced: number[] = [];
    for await (const { lastModified } of store.list(SWEEPS, options)) announced.push(lastModified.getTime());
    if (announced.length === 0 || performance.now() >= deadline) return;
    // One that ran out before is of a sweep that died. An object that is gone again was met by a sweep that lives.
    stored ??= (await store.stat(key, options))?.lastModified.getTime() ?? null;
    if (stored !== null && announced.every((at) => (stored as number) - at > leaseMs)) return;
    await delay(POLL_MS, undefined, options.signal && { signal: options.signal });
  }
}
