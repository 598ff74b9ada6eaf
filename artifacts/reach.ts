/**
 * What the manifests of a store lead to, for whoever wants to remove the rest. It errs on the side of keeping: whatever mentions a digest anywhere in its
 * text refers to the object of that name, in whatever shape, so that a reference of a form that is not known here keeps its object too. Where something
 * that is referred to cannot be read it throws Corrupt instead of guessing: behind it may lie more. Only of a run that gives up its bulk what is missing is
 * passed over, and with it what nothing else leads to: so one damaged run does not keep a store from being collected. Its loss is told by `verify`.
 */
import { RatchetError } from '../core/errors.ts';
import type { Sha256 } from '../core/digest.ts';
import { isRef, walk } from './audit-shapes.ts';
import { forEachBounded } from './bounded.ts';
import { objectKey, type ArtifactStore, type CallOptions } from './store.ts';

/** Objects and manifests under way at a time. */
const READS_AT_ONCE = 16;
/** JSON is held in memory whole; no stage writes more than some megabytes. */
const LARGEST_JSON_BYTES = 256 * 1024 * 1024;
const DIGEST = /(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])/g;
const DIGEST_LENGTH = 64;

/** An object as it was listed. */
export interface Listed {
  bytes: number;
  lastModified: Date;
}

/** What an object refers to; `json` is false for all others, which refer to nothing. */
interface Opened {
  json: boolean;
  mentions: Sha256[];
  /** What it refers to and was not there when it was opened. */
  dangling: Sha256[];
}

export class Reach {
  readonly #store: ArtifactStore;
  readonly #call: CallOptions;
  /** Objects do not change, so each is opened once, however often the store is looked through. */
  readonly #opened = new Map<Sha256, Opened>();
  /** Every object that is in the store. */
  listed = new Map<Sha256, Listed>();

  constructor(store: ArtifactStore, call: CallOptions) {
    this.#store = store;
    this.#call = call;
  }

  /** Lists the objects anew. */
  async list(): Promise<void> {
    this.listed = new Map();
    for await (const { key, bytes, lastModified } of this.#store.list('objects/', this.#call)) {
      const digest = key.slice('objects/'.length);
      if (key === objectKey(digest) && digest.match(DIGEST)?.[0] === digest) this.listed.set(digest, { bytes, lastModified });
    }
  }

  /** Whether an object that was reached is JSON. */
  isJson(digest: Sha256): boolean {
    return this.#opened.get(digest)?.json ?? false;
  }

  /**
   * Every object that these manifests lead to, and those that are mentioned there and need not exist. `absent` are known to have been removed; null: any
   * may be missing. Throws Corrupt for a reference to an object that is neither there nor absent.
   */
  async of(manifests: readonly { key: string; bytes: Uint8Array }[], absent: ReadonlyMap<Sha256, number> | null): Promise<Set<Sha256>> {
    const reached = new Set<Sha256>();
    let level: Sha256[] = [];
    const note = (mentions: readonly Sha256[]) => {
      for (const digest of mentions) {
        if (reached.has(digest) || !this.listed.has(digest)) continue;
        reached.add(digest);
        level.push(digest);
      }
    };
    for (const { key, bytes } of manifests) {
      const { mentions, dangling } = this.#scan(bytes);
      await this.#require(key, dangling, absent);
      note(mentions);
    }
    while (level.length > 0) {
      const now = level;
      level = [];
      const found: Sha256[][] = [];
      await forEachBounded(now, READS_AT_ONCE, async (digest) => {
        const { mentions, dangling } = await this.#open(digest);
        await this.#require(objectKey(digest), dangling, absent);
        found.push(mentions);
      });
      for (const mentions of found) note(mentions);
    }
    return reached;
  }

  async #open(digest: Sha256): Promise<Opened> {
    const before = this.#opened.get(digest);
    if (before) return before;
    const opened = await this.#read(digest);
    this.#opened.set(digest, opened);
    return opened;
  }

  async #read(digest: Sha256): Promise<Opened> {
    const key = objectKey(digest);
    const { bytes } = this.listed.get(digest) as Listed;
    const start = bytes === 0 ? null : await this.#store.readStart(key, 1, this.#call);
    const first = start?.[0];
    if (first !== 0x7b && first !== 0x5b) return { json: false, mentions: [], dangling: [] }; // neither { nor [
    if (bytes > LARGEST_JSON_BYTES)
      throw new RatchetError('Corrupt', `${key}: JSON of ${bytes} bytes; at most ${LARGEST_JSON_BYTES} can be read`);
    const whole = await this.#store.get({ key, sha256: digest, bytes }, this.#call);
    return { json: true, ...this.#scan(whole) };
  }

  /** Every digest in a text, and those of references to what is not listed. */
  #scan(bytes: Uint8Array): { mentions: Sha256[]; dangling: Sha256[] } {
    const dangling: Sha256[] = [];
    try {
      walk(JSON.parse(Buffer.from(bytes).toString()), (found) => {
        if (isRef(found) && !this.listed.has(found.sha256)) dangling.push(found.sha256);
      });
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error; // Somebody's binary format that begins like JSON.
    }
    return { mentions: [...new Set(Buffer.from(bytes).toString('latin1').match(DIGEST) ?? [])], dangling };
  }

  /** Every reference must lead somewhere; asked for each run anew, since runs share objects and what one gave up another may not lack. */
  async #require(key: string, dangling: readonly Sha256[], absent: ReadonlyMap<Sha256, number> | null): Promise<void> {
    for (const digest of dangling) {
      if (this.listed.has(digest) || absent?.has(digest)) continue;
      // Stored since the objects were listed, or lost.
      const found = await this.#store.stat(objectKey(digest), this.#call);
      if (found) this.listed.set(digest, found);
      else if (absent !== null)
        throw new RatchetError('Corrupt', `${objectKey(digest)} is missing; ${key} refers to it. Nothing is removed from a damaged store`);
    }
  }

  /**
   * Every digest anywhere in the bytes of these objects, whatever they are: what a checkpoint may go on to refer to. One that is removed meanwhile, since
   * the next has taken its place, or that is damaged and will be passed over, needs nothing more than what was found in it.
   */
  async insideOf(digests: readonly Sha256[]): Promise<Set<Sha256>> {
    const found = new Set<Sha256>();
    await forEachBounded(digests, READS_AT_ONCE / 4, async (digest) => {
      const listed = this.listed.get(digest);
      if (!listed) return;
      let rest = '';
      try {
        for await (const chunk of this.#store.getStream({ key: objectKey(digest), sha256: digest, bytes: listed.bytes }, this.#call)) {
          const text = rest + Buffer.from(chunk).toString('latin1');
          for (const match of text.match(DIGEST) ?? []) found.add(match);
          rest = text.slice(-2 * DIGEST_LENGTH);
        }
      } catch (error) {
        if (!(error instanceof RatchetError) || error.type !== 'Corrupt') throw error;
      }
    });
    return found;
  }

  /** Reads manifests, those that were removed meanwhile left out. */
  async read(keys: readonly string[]): Promise<{ key: string; bytes: Uint8Array }[]> {
    const manifests: { key: string; bytes: Uint8Array }[] = [];
    await forEachBounded(keys, READS_AT_ONCE, async (key) => {
      const bytes = await this.#store.readBytes(key, this.#call);
      if (bytes) manifests.push({ key, bytes });
    });
    return manifests;
  }
}
