/**
 * A bounded memory of objects by digest, least recently used first out. It only ever holds bytes that were hashed, and never hands out its own copy,
 * so no caller can change what another reads.
 */
import type { ArtifactRef } from '../core/nouns.ts';

export class ByteCache {
  readonly #capacity: number;
  readonly #entries = new Map<string, Uint8Array>();
  #held = 0;

  /** `capacity` in bytes; 0 keeps nothing. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get(ref: ArtifactRef): Uint8Array | null {
    const bytes = this.#entries.get(ref.sha256);
    if (!bytes || bytes.length !== ref.bytes) return null;
    this.#entries.delete(ref.sha256);
    this.#entries.set(ref.sha256, bytes);
    return bytes.slice();
  }

  set(ref: ArtifactRef, bytes: Uint8Array): void {
    if (bytes.length > this.#capacity || this.#entries.has(ref.sha256)) return;
    this.#entries.set(ref.sha256, bytes.slice());
    this.#held += bytes.length;
    for (const [digest, oldest] of this.#entries) {
      if (this.#held <= this.#capacity) break;
      this.#entries.delete(digest);
      this.#held -= oldest.length;
    }
  }
}
