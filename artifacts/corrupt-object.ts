/** The failure of a read whose bytes are not those that were asked for; apart from the store, so that the audit can name it field by field. */
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
