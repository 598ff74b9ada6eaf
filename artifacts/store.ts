/**
 * The artifact store: immutable objects named by the SHA-256 of their bytes, and small manifests that are written once, on any S3-compatible server.
 * It never changes an object, never trusts bytes that it has not hashed, and puts no condition on a large body (refusals then arrive as broken
 * connections). Failures of the server or network are outwaited for a bounded time and then thrown as RatchetError('Unavailable').
 */
import {
  CreateBucketCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  type ListObjectsV2CommandOutput,
} from '@aws-sdk/client-s3';
import { createHash, randomUUID } from 'node:crypto';
import { canonicalJson, sha256 } from '../core/digest.ts';
import { badInput, RatchetError } from '../core/errors.ts';
import type { ArtifactRef } from '../core/nouns.ts';
import { ByteCache } from './byte-cache.ts';
import { CorruptObject, parseJson } from './corrupt-object.ts';
import { probeStore } from './probe.ts';
import { explained, failureOf, Patience, persevere, stillRacing } from './s3-failures.ts';
import { CONNECT_TIMEOUT_MS, DEFAULT_IDLE_TIMEOUT_MS, DEFAULT_PATIENCE_MS, checkKey, checkStoreConfig } from './store-config.ts';
import type { StoreConfig } from './store-config.ts';
import { countRequests, type StoreRequests } from './store-requests.ts';
import { outlastSweep, REFRESHED_AFTER_MS } from './sweep.ts';
import { LARGE_OBJECT_BYTES, spool, uploadInParts } from './upload.ts';

export interface CallOptions {
  /** Aborted when the result is no longer wanted; the call then throws the signal's reason. */
  signal?: AbortSignal;
}

/** The slowest transfer that still counts as one: 64 KiB per second. Bounds the whole time of reading an object. */
const SLOWEST_BYTES_PER_MS = 64;
/** Manifests are small by design; up to here every server tried refuses a second writer cleanly, from about 4 MiB on it cuts the connection. */
export const LARGEST_MANIFEST_BYTES = 1024 * 1024;

export function objectKey(digest: string): string {
  return `objects/${digest}`;
}

export class ArtifactStore {
  readonly config: Readonly<StoreConfig>;
  /** For messages: endpoint or region, bucket and prefix. */
  readonly where: string;
  readonly requests: Readonly<StoreRequests>;
  readonly #client: S3Client;
  readonly #prefix: string;
  readonly #patienceMs: number;
  readonly #idleTimeoutMs: number;
  readonly #cache: ByteCache;

  /** Sends nothing yet; `probe()` says whether the store works. Throws BadInput for a malformed address, bucket or prefix. */
  static connect(config: StoreConfig): ArtifactStore {
    checkStoreConfig(config);
    return new ArtifactStore(config);
  }

  private constructor(config: StoreConfig) {
    this.config = config;
    this.#prefix = config.prefix ? `${config.prefix.replace(/\/+$/, '')}/` : '';
    this.where = `${config.endpoint ?? `AWS S3 ${config.region}`}, bucket ${config.bucket}${this.#prefix && `, prefix ${this.#prefix}`}`;
    this.#patienceMs = config.patienceMs ?? DEFAULT_PATIENCE_MS;
    this.#idleTimeoutMs = config.idleTimeoutMs ?? DEFAULT_IDLE_TIMEOUT_MS;
    this.#cache = new ByteCache(config.cacheBytes ?? 0);
    this.#client = new S3Client({
      region: config.region,
      ...(config.endpoint && { endpoint: config.endpoint }),
      ...(config.credentials && { credentials: config.credentials }),
      forcePathStyle: config.forcePathStyle ?? config.endpoint !== undefined,
      // The retries are ours (s3-failures.ts): bounded in time, and aware of which refusals mean success.
      maxAttempts: 1,
      // Every read is checked against its SHA-256 here; a server's checksum would only turn damage into another kind of error.
      responseChecksumValidation: 'WHEN_REQUIRED',
      requestHandler: { connectionTimeout: CONNECT_TIMEOUT_MS, socketTimeout: this.#idleTimeoutMs },
    });
    this.requests = countRequests(this.#client);
  }

  close(): void {
    this.#client.destroy();
  }

  /** Stores bytes under their digest; bytes that are there already are not sent again, unless they have grown old (`sweep.ts` says why). */
  async put(bytes: Uint8Array, options: CallOptions = {}): Promise<ArtifactRef> {
    const digest = sha256(bytes);
    const ref = { key: objectKey(digest), sha256: digest, bytes: bytes.length };
    await this.#upload(ref, options.signal, () =>
      bytes.length > LARGE_OBJECT_BYTES
        ? uploadInParts(this.#client, this.#address(ref.key), ref.bytes, async (from, to) => bytes.subarray(from, to), options.signal)
        : this.#putWhole(ref, bytes, options.signal),
    );
    return ref;
  }

  /** Stores a JSON value in canonical form. */
  putJson(value: unknown, options: CallOptions = {}): Promise<ArtifactRef> {
    return this.put(Buffer.from(canonicalJson(value)), options);
  }

  /** Stores a stream of unknown length: it goes to a temporary file first, because its name is only known at its end. */
  async putStream(source: AsyncIterable<Uint8Array>, options: CallOptions = {}): Promise<ArtifactRef> {
    const file = await spool(source, this.config.spoolDirectory, options.signal);
    try {
      const ref = { key: objectKey(file.sha256), sha256: file.sha256, bytes: file.bytes };
      await this.#upload(ref, options.signal, async () =>
        ref.bytes > LARGE_OBJECT_BYTES
          ? uploadInParts(this.#client, this.#address(ref.key), ref.bytes, file.read, options.signal)
          : this.#putWhole(ref, await file.read(0, ref.bytes), options.signal),
      );
      return ref;
    } finally {
      await file.remove();
    }
  }

  /** The bytes that `ref` names, hashed. Throws Corrupt naming the key when they are missing or different. */
  async get(ref: ArtifactRef, options: CallOptions = {}): Promise<Uint8Array> {
    const cached = this.#cache.get(ref);
    if (cached) return cached;
    const deadline = new AbortController();
    const timer = setTimeout(() => deadline.abort(), this.#patienceMs + this.#idleTimeoutMs + ref.bytes / SLOWEST_BYTES_PER_MS);
    const signal = options.signal ? AbortSignal.any([options.signal, deadline.signal]) : deadline.signal;
    const bytes = new Uint8Array(ref.bytes);
    let offset = 0;
    try {
      for await (const chunk of this.getStream(ref, { signal })) {
        bytes.set(chunk, offset);
        offset += chunk.length;
      }
    } catch (error) {
      options.signal?.throwIfAborted();
      if (!deadline.signal.aborted) throw error;
      throw new RatchetError(
        'Unavailable',
        `reading ${ref.key} at ${this.where}: ${offset} of ${ref.bytes} bytes came; the connection is too slow`,
      );
    } finally {
      clearTimeout(timer);
    }
    this.#cache.set(ref, bytes);
    return bytes;
  }

  /**
   * The bytes that `ref` names, as they come. The digest is known after the last chunk only: Corrupt is thrown instead of finishing, so nothing may
   * be concluded from a stream that did not finish. A broken connection is taken up again where it broke.
   */
  async *getStream(ref: ArtifactRef, options: CallOptions = {}): AsyncGenerator<Uint8Array, void, void> {
    const { signal } = options;
    const hash = createHash('sha256');
    const patience = new Patience(this.#patienceMs, signal);
    let offset = 0;
    for (let first = true; first || offset < ref.bytes; first = false) {
      try {
        signal?.throwIfAborted();
        const answer = await this.#client.send(
          new GetObjectCommand({ ...this.#address(ref.key), ...(offset > 0 && { Range: `bytes=${offset}-` }) }),
          signal && { abortSignal: signal },
        );
        if (offset > 0 && !answer.ContentRange?.startsWith(`bytes ${offset}-`)) {
          throw new RatchetError('Unavailable', `reading ${ref.key} at ${this.where}: it broke off and the server ignores Range`);
        }
        const announced = answer.ContentLength;
        if (announced !== undefined && offset + announced !== ref.bytes)
          throw new CorruptObject(ref, `${offset + announced} bytes are stored`);
        for await (const chunk of (answer.Body ?? []) as AsyncIterable<Uint8Array>) {
          if (offset + chunk.length > ref.bytes) throw new CorruptObject(ref, 'more bytes are stored');
          offset += chunk.length;
          hash.update(chunk);
          patience.renew();
          yield chunk;
        }
        if (offset < ref.bytes) throw Object.assign(new Error('the connection ended early'), { code: 'ECONNRESET' });
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof RatchetError)) {
          const failure = failureOf(error);
          if (failure === 'absent') throw new CorruptObject(ref, 'it is missing');
          if (failure === 'refused' && offset > 0) throw new CorruptObject(ref, `only ${offset} bytes are stored`); // 416: nothing lies behind the offset
        }
        await this.#explain(`reading ${ref.key}`, patience.outlast(error));
      }
    }
    const digest = hash.digest('hex');
    if (digest !== ref.sha256) throw new CorruptObject(ref, `its bytes hash to ${digest}`);
  }

  /** The JSON value that `ref` names. Throws Corrupt when the bytes are damaged or are not JSON. */
  async getJson<T>(ref: ArtifactRef, options: CallOptions = {}): Promise<T> {
    return parseJson<T>(ref.key, await this.get(ref, options));
  }

  /**
   * Writes a small JSON manifest at a key where nothing may be yet. With equal bytes there already, `created` is false (someone, perhaps an earlier
   * attempt of the same work, was first, which is fine); with other bytes it throws Conflict. `created` is true only when the server said so.
   */
  async commit(key: string, value: unknown, options: CallOptions = {}): Promise<{ created: boolean }> {
    const bytes = Buffer.from(canonicalJson(value));
    if (bytes.length > LARGEST_MANIFEST_BYTES) {
      throw badInput(
        `size of manifest ${key}`,
        bytes.length,
        `at most ${LARGEST_MANIFEST_BYTES} bytes; store the content with put() and commit its ref`,
      );
    }
    const patience = new Patience(this.#patienceMs, options.signal);
    for (;;) {
      try {
        await this.#putOnce(key, bytes, { IfNoneMatch: '*' }, options.signal);
        return { created: true };
      } catch (error) {
        options.signal?.throwIfAborted();
        const failure = failureOf(error);
        if (failure === 'bug' || failure === 'denied' || failure === 'refused' || failure === 'bucketAbsent' || failure === 'absent') {
          throw explained(`committing ${key}`, this.where, error);
        }
        // Refused (412), raced (409) or nothing heard, which may be a refusal too: what is stored decides.
        const stored = await this.#tryRead(key, options.signal);
        if (stored && Buffer.compare(stored, bytes) === 0) return { created: false };
        if (stored)
          throw new RatchetError(
            'Conflict',
            `${key} at ${this.where} holds other content (${sha256(stored)}, not ${sha256(bytes)}); nothing was written`,
          );
        await this.#explain(`committing ${key}`, patience.outlast(failure === 'transient' ? error : stillRacing(key)));
      }
    }
  }

  /** The manifest at `key`, or null when there is none. Throws Corrupt when it is not JSON. */
  async readManifest<T>(key: string, options: CallOptions = {}): Promise<T | null> {
    const bytes = await this.readBytes(key, options);
    return bytes && parseJson<T>(key, bytes);
  }

  /** The raw bytes at `key`, unchecked because a manifest's key does not name its digest, or null when there are none. */
  readBytes(key: string, options: CallOptions = {}): Promise<Uint8Array | null> {
    return this.#persevere(`reading ${key}`, options.signal, () => this.#readOnce(key, options.signal));
  }

  /** Writes JSON at a key whatever is there: only for hints and notes on which no result depends. */
  writePointer(key: string, value: unknown, options: CallOptions = {}): Promise<void> {
    const bytes = Buffer.from(canonicalJson(value));
    return this.#persevere(`writing ${key}`, options.signal, () => this.#putOnce(key, bytes, {}, options.signal));
  }

  /** The size in bytes of what is at `key`, or null when nothing is. Says nothing about the bytes themselves. */
  async size(key: string, options: CallOptions = {}): Promise<number | null> {
    return (await this.stat(key, options))?.bytes ?? null;
  }

  /** Size and time of writing, by the server's clock, of what is at `key`, or null when nothing is. */
  stat(key: string, options: CallOptions = {}): Promise<{ bytes: number; lastModified: Date } | null> {
    return this.#persevere(`looking for ${key}`, options.signal, () => this.#statOnce(key, options.signal));
  }

  /** At most the first `bytes` (at least 1) of what is at `key`, unchecked; null when nothing is there. Empty objects are not asked for (S3 refuses). */
  readStart(key: string, bytes: number, options: CallOptions = {}): Promise<Uint8Array | null> {
    return this.#persevere(`reading ${key}`, options.signal, () => this.#readOnce(key, options.signal, { Range: `bytes=0-${bytes - 1}` }));
  }

  /** Every key that starts with `prefix`, in order of code points. */
  async *list(prefix: string, options: CallOptions = {}): AsyncGenerator<{ key: string; bytes: number; lastModified: Date }, void, void> {
    for await (const page of this.#pages({ Prefix: this.#prefix + prefix }, options.signal)) {
      for (const { Key, Size, LastModified } of page.Contents ?? []) {
        if (Key !== undefined) yield { key: Key.slice(this.#prefix.length), bytes: Size ?? 0, lastModified: LastModified ?? new Date(0) };
      }
    }
  }

  /** The folders directly below `prefix` (which ends with a slash), each with its closing slash, in order of code points. */
  async *listFolders(prefix: string, options: CallOptions = {}): AsyncGenerator<string, void, void> {
    for await (const page of this.#pages({ Prefix: this.#prefix + prefix, Delimiter: '/' }, options.signal)) {
      for (const { Prefix } of page.CommonPrefixes ?? []) if (Prefix !== undefined) yield Prefix.slice(this.#prefix.length);
    }
  }

  async *#pages(what: { Prefix: string; Delimiter?: string }, signal: AbortSignal | undefined): AsyncGenerator<ListObjectsV2CommandOutput> {
    let token: string | undefined;
    do {
      const request = new ListObjectsV2Command({
        Bucket: this.config.bucket,
        ...what,
        ...(token !== undefined && { ContinuationToken: token }),
      });
      const page = await this.#persevere(`listing ${what.Prefix}`, signal, () => this.#client.send(request, abortable(signal)));
      yield page;
      token = page.IsTruncated ? page.NextContinuationToken : undefined;
    } while (token !== undefined);
  }

  /** Removes what is at `key`; nothing there is fine. `still` is asked before every try, the repeated ones too. */
  async delete(key: string, options: CallOptions = {}, still = async (): Promise<boolean> => true): Promise<void> {
    await this.#persevere(`deleting ${key}`, options.signal, async () => {
      if (await still()) await this.#client.send(new DeleteObjectCommand(this.#address(key)), abortable(options.signal));
    });
  }

  /**
   * The check at launch: the server answers, takes the credentials, has the bucket or makes it, gives back what it was given, and lets exactly one of
   * two racing conditional writers win. Throws Unavailable saying what to change.
   */
  async probe(options: CallOptions = {}): Promise<void> {
    await probeStore(
      {
        where: this.where,
        listOne: () => this.#client.send(new ListObjectsV2Command({ Bucket: this.config.bucket, MaxKeys: 1 }), abortable(options.signal)),
        createBucket: () => this.#client.send(new CreateBucketCommand({ Bucket: this.config.bucket }), abortable(options.signal)),
        putIfAbsent: (key, bytes) => this.#putOnce(key, bytes, { IfNoneMatch: '*' }, options.signal),
        read: (key) => this.#readOnce(key, options.signal),
        delete: (key) => this.#client.send(new DeleteObjectCommand(this.#address(key)), abortable(options.signal)),
      },
      `probe/${randomUUID()}`,
      options.signal,
    );
  }

  async #upload(ref: ArtifactRef, signal: AbortSignal | undefined, send: () => Promise<void>): Promise<void> {
    const there = await this.stat(ref.key, signal && { signal });
    if (there?.bytes === ref.bytes && Date.now() - there.lastModified.getTime() < REFRESHED_AFTER_MS) return;
    await this.#persevere(`storing ${ref.key}`, signal, send);
    if (there === null) return;
    await outlastSweep(this, ref.key, signal ? { signal } : {});
    if ((await this.size(ref.key, signal && { signal })) === null) await this.#persevere(`storing ${ref.key}`, signal, send);
  }

  async #statOnce(key: string, signal: AbortSignal | undefined): Promise<{ bytes: number; lastModified: Date } | null> {
    try {
      const { ContentLength, LastModified } = await this.#client.send(new HeadObjectCommand(this.#address(key)), abortable(signal));
      return ContentLength === undefined ? null : { bytes: ContentLength, lastModified: LastModified ?? new Date(0) };
    } catch (error) {
      if (failureOf(error) === 'absent') return null;
      throw error;
    }
  }

  /** The server checks the digest too, so a body damaged on its way never lies under a name that promises other bytes. */
  #putWhole(ref: ArtifactRef, bytes: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    return this.#putOnce(ref.key, bytes, { ChecksumSHA256: Buffer.from(ref.sha256, 'hex').toString('base64') }, signal);
  }

  async #putOnce(
    key: string,
    bytes: Uint8Array,
    condition: { IfNoneMatch?: string; ChecksumSHA256?: string },
    signal: AbortSignal | undefined,
  ) {
    await this.#client.send(
      new PutObjectCommand({ ...this.#address(key), Body: bytes, ContentLength: bytes.length, ...condition }),
      abortable(signal),
    );
  }

  async #readOnce(key: string, signal: AbortSignal | undefined, range: { Range?: string } = {}): Promise<Uint8Array | null> {
    try {
      const answer = await this.#client.send(new GetObjectCommand({ ...this.#address(key), ...range }), abortable(signal));
      const chunks: Uint8Array[] = [];
      for await (const chunk of (answer.Body ?? []) as AsyncIterable<Uint8Array>) chunks.push(chunk);
      return Buffer.concat(chunks);
    } catch (error) {
      if (failureOf(error) === 'absent') return null;
      throw error;
    }
  }

  /** What is stored at `key`, or null when nothing is or nobody answers; the caller goes on trying either way. */
  async #tryRead(key: string, signal: AbortSignal | undefined): Promise<Uint8Array | null> {
    try {
      return await this.#readOnce(key, signal);
    } catch (error) {
      signal?.throwIfAborted();
      if (failureOf(error) === 'transient') return null;
      throw explained(`reading ${key}`, this.where, error);
    }
  }

  #persevere<T>(doing: string, signal: AbortSignal | undefined, attempt: () => Promise<T>): Promise<T> {
    return this.#explain(doing, persevere(this.#patienceMs, signal, attempt));
  }

  async #explain<T>(doing: string, work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      throw explained(doing, this.where, error);
    }
  }

  #address(key: string): { Bucket: string; Key: string } {
    checkKey(key);
    return { Bucket: this.config.bucket, Key: this.#prefix + key };
  }
}

function abortable(signal: AbortSignal | undefined): { abortSignal: AbortSignal } | undefined {
  return signal && { abortSignal: signal };
}
