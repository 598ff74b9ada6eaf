/** The failures of a read whose bytes are not those that were asked for; apart from the store, so that the audit can name it field by field. */
import { RatchetError } from '../core/errors.ts';
import type { ArtifactRef } from '../core/nouns.ts';

/** A stored object that is not what its reference says. */
export class CorruptObject extends RatchetError {
  readonly key: string;
  readonly expected: string;
  readonly found: string;
  constructor(ref: ArtifactRef, found: string) {
    const expected = `${ref.bytes} bytes with SHA-256 ${ref.sha256}`;
    super('Corrupt', `${ref.key}: ${found}; expected ${expected}`);
    this.key = ref.key;
    this.expected = expected;
    this.found = found;
  }
}

/** Throws Corrupt, naming the key, for bytes that are not JSON in UTF-8. */
export function parseJson<T>(key: string, bytes: Uint8Array): T {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as T;
  } catch (error) {
    throw new RatchetError('Corrupt', `${key}: not JSON (${(error as Error).message})`, { cause: error });
  }
}
