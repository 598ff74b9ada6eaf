/** Digests of bytes and of JSON values. JSON is hashed in its canonical form (RFC 8785), so equal values have equal digests whoever wrote them. */
import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';

/** Lower-case hexadecimal SHA-256, 64 characters. */
export type Sha256 = string;

export function sha256(bytes: Uint8Array | string): Sha256 {
  return createHash('sha256').update(bytes).digest('hex');
}

/** RFC 8785 canonical JSON. Refuses values that JSON cannot hold (NaN, Infinity, functions): a record with one would not be checkable. */
export function canonicalJson(value: unknown): string {
  const text = canonicalize(value);
  if (text === undefined) throw new TypeError('canonicalJson: the value has no JSON form');
  return text;
}

export function digestJson(value: unknown): Sha256 {
  return sha256(canonicalJson(value));
}
