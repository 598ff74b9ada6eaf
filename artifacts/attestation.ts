/**
 * Attestations as signed statements: an in-toto Statement (v1) about one record, in a DSSE envelope, signed with Ed25519. The record says what was
 * computed; the statement says when, where and with what it was closed, and by its signature who says so. This file signs, opens and checks them; where
 * they lie is the business of `run-log.ts`.
 *
 * Formats: https://github.com/in-toto/attestation (Statement v1), https://github.com/secure-systems-lab/dsse (envelope and pre-authentication encoding).
 */
import { createHash, createPublicKey, generateKeyPairSync, createPrivateKey, sign, verify, type KeyObject } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { canonicalJson, type Sha256 } from '../core/digest.ts';
import { badInput, RatchetError } from '../core/errors.ts';
import type { Attestation } from './record.ts';

export const STATEMENT_TYPE = 'https://in-toto.io/Statement/v1';
/** What the predicate of our statements means: the fields of `Attestation` but the record, which is the subject. */
export const PREDICATE_TYPE = 'urn:ratchet:record-closed:v1';
export const PAYLOAD_TYPE = 'application/vnd.in-toto+json';

/** Of attestations, unless the predicate says otherwise (`retention.ts`). */
export interface Statement<Predicate = Omit<Attestation, 'record'>> {
  _type: typeof STATEMENT_TYPE;
  /** What it is about, for attestations the record: its key in the store and its digest. */
  subject: { name: string; digest: { sha256: Sha256 } }[];
  predicateType: string;
  predicate: Predicate;
}

/** DSSE envelope; `payload` and `sig` in base64. */
export interface Envelope {
  payloadType: typeof PAYLOAD_TYPE;
  payload: string;
  signatures: { keyid: Sha256; sig: string }[];
}

/** `runs/<run>/keys/<keyid>.json`: the public half of a key that signed, so that a copy of the store can be checked anywhere. */
export interface PublishedKey {
  keyid: Sha256;
  /** SPKI in PEM. */
  publicKey: string;
}

export interface SigningKey extends PublishedKey {
  privateKey: KeyObject;
}

/** SHA-256 of the public key's SPKI in DER: names a key. */
export function keyIdOf(publicKey: KeyObject): Sha256 {
  return createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('hex');
}

/** A public key from PEM. Throws BadInput, naming `where` and where it is `from`, for anything but an Ed25519 key; what it holds instead may be a secret. */
export function readPublicKey(pem: string, where: string, from: string): KeyObject {
  try {
    const key = createPublicKey(pem);
    if (key.asymmetricKeyType === 'ed25519') return key;
  } catch {
    // Said below: whatever is wrong with it, what is needed is the same.
  }
  throw badInput(where, from, 'an Ed25519 public key in PEM (`ratchet keys` prints one)');
}

const OWNER_ONLY_FILE = 0o600;
const OWNER_ONLY_DIRECTORY = 0o700;

/**
 * The signing key in `file`, which is made on first use and readable by its owner only. Two processes that come first at once end with one key. Throws
 * BadInput for a file that holds another kind of key, Unavailable for a place where none can be read or written.
 */
export function signingKey(file: string): SigningKey {
  let pem: string;
  try {
    mkdirSync(dirname(file), { recursive: true, mode: OWNER_ONLY_DIRECTORY });
    const made = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' });
    writeFileSync(file, made, { mode: OWNER_ONLY_FILE, flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw unusable(file, error);
  }
  try {
    pem = readFileSync(file, 'utf8');
  } catch (error) {
    throw unusable(file, error);
  }
  let privateKey: KeyObject;
  try {
    privateKey = createPrivateKey(pem);
  } catch (error) {
    throw badInput('signing key', file, `an Ed25519 private key in PEM (${(error as Error).message})`);
  }
  if (privateKey.asymmetricKeyType !== 'ed25519') throw badInput('signing key', file, 'an Ed25519 private key in PEM');
  const publicKey = createPublicKey(privateKey);
  return { privateKey, keyid: keyIdOf(publicKey), publicKey: publicKey.export({ type: 'spki', format: 'pem' }).toString() };
}

function unusable(file: string, error: unknown): RatchetError {
  return new RatchetError('Unavailable', `signing key ${file}: ${(error as Error).message}`, { cause: error });
}

/** What is signed: DSSE's pre-authentication encoding of type and payload. */
function preAuthentication(payload: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `), payload]);
}

/** The statement that `attestation` makes about the record at `recordKey`, signed. The same input and key give the same bytes (Ed25519 draws nothing). */
export function signAttestation(attestation: Attestation, recordKey: string, key: SigningKey): Envelope {
  const { record, ...predicate } = attestation;
  return signStatement({ name: recordKey, sha256: record.sha256 }, PREDICATE_TYPE, predicate, key);
}

/** A statement about one thing in the store, signed. */
export function signStatement(
  about: { name: string; sha256: Sha256 },
  predicateType: string,
  predicate: object,
  key: SigningKey,
): Envelope {
  const statement: Statement<object> = {
    _type: STATEMENT_TYPE,
    subject: [{ name: about.name, digest: { sha256: about.sha256 } }],
    predicateType,
    predicate,
  };
  const payload = Buffer.from(canonicalJson(statement));
  const sig = sign(null, preAuthentication(payload), key.privateKey).toString('base64');
  return { payloadType: PAYLOAD_TYPE, payload: payload.toString('base64'), signatures: [{ keyid: key.keyid, sig }] };
}

/** The statement inside, its signature unchecked. Throws Corrupt, naming `where`, when the envelope or the statement has another form. */
export function statementIn<Predicate = Omit<Attestation, 'record'>>(
  envelope: Envelope,
  where: string,
  predicateType: string = PREDICATE_TYPE,
): Statement<Predicate> {
  const corrupt = (what: string) => new RatchetError('Corrupt', `${where}: ${what}`);
  if (envelope.payloadType !== PAYLOAD_TYPE || typeof envelope.payload !== 'string' || !Array.isArray(envelope.signatures))
    throw corrupt('not a DSSE envelope of an in-toto statement');
  const payload = Buffer.from(envelope.payload, 'base64');
  if (payload.toString('base64') !== envelope.payload) throw corrupt('its payload is not base64');
  let statement: Statement<Predicate>;
  try {
    statement = JSON.parse(payload.toString()) as Statement<Predicate>;
  } catch (error) {
    throw corrupt(`its payload is not JSON (${(error as Error).message})`);
  }
  const [subject] = Array.isArray(statement?.subject) ? statement.subject : [];
  if (statement?._type !== STATEMENT_TYPE || statement.predicateType !== predicateType || typeof statement.predicate !== 'object')
    throw corrupt(`its payload is not a statement of type ${predicateType}`);
  if (typeof subject?.name !== 'string' || typeof subject.digest?.sha256 !== 'string')
    throw corrupt('its statement names nothing that it is about');
  return statement;
}

/** The key ids whose signature of the envelope holds under `keys`. */
export function validSigners(envelope: Envelope, keys: ReadonlyMap<Sha256, KeyObject>): Sha256[] {
  const signed = preAuthentication(Buffer.from(envelope.payload, 'base64'));
  return envelope.signatures
    .filter(({ keyid, sig }) => {
      const key = keys.get(keyid);
      // Another spelling of the same base64 is not what was written.
      const bytes = Buffer.from(String(sig), 'base64');
      return key !== undefined && bytes.toString('base64') === sig && verify(null, signed, key, bytes);
    })
    .map(({ keyid }) => keyid);
}
