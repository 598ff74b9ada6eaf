/**
 * The checkpoints of one stage call: objects in the store and a small manifest for each, found again by whoever runs the same call next. Only
 * checkpoints of the same numeric fingerprint count, so that going on gives the same bytes as never having stopped. They are scaffolding: the
 * newest two are kept while the stage runs, and none when its output is committed; what a kill left over, `ratchet gc` removes. No record refers to them.
 */
import { checkpointHeader, checkpointsFolder } from '../artifacts/run-log.ts';
import type { ArtifactStore } from '../artifacts/store.ts';
import { sha256 } from '../core/digest.ts';
import { badInput, RatchetError } from '../core/errors.ts';
import type { ArtifactRef } from '../core/nouns.ts';
import type { Checkpoints } from './stage.ts';

/** So much work is lost to a kill at most, where saving costs little. Overridden, with the rule below, by `RATCHET_CHECKPOINT_INTERVAL_MS`. */
const LEAST_INTERVAL_MS = 5_000;
/** Sending checkpoints to the store takes at most one part in so many of the time, however large the model or slow the store. */
const COST_MULTIPLE = 30;
/** However slow the store is, no more than this is lost. */
const MOST_INTERVAL_MS = 10 * 60_000;
/** One save may have waited for a server that was being restarted; the cheaper of so many tells what saving costs. */
const COSTS_KEPT = 2;

/** How long to go on after checkpoints that took `costsMs` to save, in milliseconds. */
export function intervalAfter(costsMs: readonly number[]): number {
  const costMs = costsMs.length === 0 ? 0 : Math.min(...costsMs);
  return Math.min(MOST_INTERVAL_MS, Math.max(LEAST_INTERVAL_MS, COST_MULTIPLE * costMs));
}

/** The newest, and one more in case that one is damaged. */
const KEPT = 2;
/** Enough digits for any count of steps, so that the order of keys is the order of steps. */
const STEP_DIGITS = 12;

interface Manifest {
  object: ArtifactRef;
  step: number;
  fingerprint: string;
}

export interface CheckpointOptions {
  store: ArtifactStore;
  scope: string;
  intent: string;
  fingerprint: string;
  /** Null: as `intervalAfter` says. */
  intervalMs: number | null;
  /** True when a checkpoint is wanted now, whatever the interval. */
  wanted: () => boolean;
  /** Told after a checkpoint is safely stored. */
  onSaved: (step: number) => void;
  warn: (message: string) => void;
  signal: AbortSignal;
}

export class StageCheckpoints implements Checkpoints {
  readonly #options: CheckpointOptions;
  readonly #prefix: string;
  readonly #suffix: string;
  /** Keys of the manifests that are there, oldest first. */
  readonly #known: string[] = [];
  #lastAtMs = performance.now();
  /** Of the last saves, newest last. */
  #costsMs: number[] = [];

  constructor(options: CheckpointOptions) {
    this.#options = options;
    this.#prefix = `${checkpointsFolder(options.scope)}${options.intent}/`;
    this.#suffix = `-${sha256(options.fingerprint).slice(0, 8)}.json`;
  }

  async load(): Promise<{ step: number; bytes: Uint8Array } | null> {
    const { store, fingerprint, signal, warn } = this.#options;
    const keys: string[] = [];
    let foreign = 0;
    for await (const { key } of store.list(this.#prefix, { signal })) {
      if (key.endsWith(this.#suffix)) keys.push(key);
      else foreign++;
    }
    this.#known.push(...keys);
    for (const key of keys.toReversed()) {
      try {
        const manifest = await store.readManifest<Manifest>(key, { signal });
        if (manifest === null) continue; // Removed since it was listed.
        const bytes = unwrap(key, await store.get(manifest.object, { signal }), this.#headerOf(manifest.step));
        return { step: manifest.step, bytes };
      } catch (error) {
        if (!(error instanceof RatchetError) || error.type !== 'Corrupt') throw error;
        warn(`checkpoint ${key} is skipped: ${error.message}`);
      }
    }
    if (foreign > 0)
      warn(`${foreign} checkpoints below ${this.#prefix} were made under another numeric fingerprint than ${fingerprint}; starting over`);
    return null;
  }

  async save(step: number, bytes: Uint8Array): Promise<void> {
    if (!Number.isSafeInteger(step) || step < 0) throw badInput('step of a checkpoint', step, 'a whole number of at least 0');
    const { store, fingerprint, signal, onSaved } = this.#options;
    const key = `${this.#prefix}${String(step).padStart(STEP_DIGITS, '0')}${this.#suffix}`;
    const beganMs = performance.now();
    const object = await store.put(Buffer.concat([this.#headerOf(step), bytes]), { signal });
    await store.commit(key, { object, step, fingerprint } satisfies Manifest, { signal });
    this.#lastAtMs = performance.now();
    this.#costsMs = [...this.#costsMs, this.#lastAtMs - beganMs].slice(-COSTS_KEPT);
    onSaved(step);
    if (!this.#known.includes(key)) this.#known.push(key);
    for (const old of this.#known.splice(0, Math.max(0, this.#known.length - KEPT))) await this.#remove(old);
  }

  due(): boolean {
    const intervalMs = this.#options.intervalMs ?? intervalAfter(this.#costsMs);
    return this.#options.wanted() || performance.now() - this.#lastAtMs >= intervalMs;
  }

  /** Removes every checkpoint of this call, those of other attempts and fingerprints too: its output is committed. */
  async clear(): Promise<void> {
    const { store, signal } = this.#options;
    for await (const { key } of store.list(this.#prefix, { signal })) {
      await this.#remove(key);
    }
  }

  async #remove(key: string): Promise<void> {
    const { store, signal, warn } = this.#options;
    let object: ArtifactRef | undefined;
    try {
      object = (await store.readManifest<Manifest>(key, { signal }))?.object;
    } catch (error) {
      if (!(error instanceof RatchetError) || error.type !== 'Corrupt') throw error;
      warn(`checkpoint ${key} is removed without its object: ${error.message}`);
    }
    // The manifest first: what it names must be there for as long as it is.
    await store.delete(key, { signal });
    if (object !== undefined) await store.delete(object.key, { signal });
  }

  #headerOf(step: number): Buffer {
    return Buffer.from(checkpointHeader(this.#options.scope, this.#options.intent, step));
  }
}

function unwrap(key: string, stored: Uint8Array, header: Buffer): Uint8Array {
  if (Buffer.compare(stored.subarray(0, header.length), header) === 0) return stored.subarray(header.length);
  throw new RatchetError('Corrupt', `${key}: the object that it names belongs to another checkpoint`);
}
