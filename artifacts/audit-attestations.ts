/**
 * The part of the audit that asks who says so: every attestation is a statement about a record that is there, signed by a key that lies beside it; with
 * trusted keys given, every record must have one that a trusted key signed. So is the statement, if there is one, that the run's bulk was given up. Without
 * trusted keys a forger may sign again with a key of his own.
 */
import type { KeyObject } from 'node:crypto';
import type { Sha256 } from '../core/digest.ts';
import { RatchetError } from '../core/errors.ts';
import { keyIdOf, readPublicKey, statementIn, validSigners, type Envelope, type PublishedKey } from './attestation.ts';
import { readCanonical, type Problem } from './audit-objects.ts';
import { givenUpIn, givenUpKey, readGivenUpList, type GivenUp } from './retention.ts';
import { attestationKey, attestationsFolder, keysFolder, recordKey } from './run-log.ts';
import type { ArtifactStore, CallOptions } from './store.ts';

export interface Signer {
  keyid: Sha256;
  /** Records with an attestation of this key. */
  records: number;
  /** Null where no trusted keys were given. */
  trusted: boolean | null;
}

/** A record of the chain that could be read. */
interface RecordRead {
  key: string;
  entry: { index: number };
  digest: Sha256;
}

/** The keys whose signatures count, and which of them the caller trusts (null: he named none). */
export interface Keys {
  keys: Map<Sha256, KeyObject>;
  trustedIds: Set<Sha256> | null;
}

/** The keys beside the run and those that the caller trusts. */
export async function keysOf(
  store: ArtifactStore,
  runId: string,
  trusted: readonly KeyObject[] | null,
  problems: Problem[],
  call: CallOptions,
): Promise<Keys> {
  const keys = await publishedKeys(store, runId, problems, call);
  for (const key of trusted ?? []) keys.set(keyIdOf(key), key);
  return { keys, trustedIds: trusted && new Set(trusted.map(keyIdOf)) };
}

/** The valid signers of an envelope; empty, after saying why, where it has none that counts. */
function signersOf(
  runId: string,
  envelope: Envelope,
  what: string,
  key: string,
  { keys, trustedIds }: Keys,
  problems: Problem[],
): Sha256[] {
  const signers = validSigners(envelope, keys);
  const report = (expected: string, found: string) => problems.push({ what, key, expected, found });
  const absent = absentSigner(envelope, keys);
  if (absent !== null)
    problems.push({
      what: 'public key',
      key: `${keysFolder(runId)}${absent}.json`,
      expected: `the key that signed ${key}`,
      found: 'it is missing',
    });
  else if (signers.length < envelope.signatures.length || signers.length === 0)
    report('a signature of a key in keys/', 'one that does not hold');
  else if (trustedIds && !signers.some((signer) => trustedIds.has(signer)))
    report('a signature of a trusted key', `signed by ${signers.join(', ')}`);
  else return signers;
  return [];
}

/** What the run gave up, by a signed statement that names a record of its chain; null where there is none that holds. */
export async function checkGivenUp(
  store: ArtifactStore,
  runId: string,
  chain: readonly RecordRead[],
  keys: Keys,
  problems: Problem[],
  call: CallOptions,
): Promise<{ stated: GivenUp; list: Map<Sha256, number> } | null> {
  const key = givenUpKey(runId);
  if ((await store.size(key, call)) === null) return null;
  const envelope = (await readCanonical(store, key, 'statement of what was given up', problems, call)) as Envelope | null;
  if (envelope === null) return null;
  try {
    const stated = givenUpIn(envelope, runId);
    if (signersOf(runId, envelope, 'signature of what was given up', key, keys, problems).length === 0) return null;
    const { head } = stated;
    const found = head && (chain.find(({ entry }) => entry.index === head.index)?.digest ?? 'it is missing');
    if (head && found && found !== head.sha256) {
      problems.push({
        what: 'record that bulk was given up at',
        key: recordKey(runId, head.index),
        expected: `SHA-256 ${head.sha256}`,
        found,
      });
    }
    return { stated, list: await readGivenUpList(store, stated, call) };
  } catch (error) {
    if (!(error instanceof RatchetError) || error.type !== 'Corrupt') throw error;
    problems.push({ what: 'statement of what was given up', key, expected: 'a signed statement and its list', found: error.message });
    return null;
  }
}

export async function checkAttestations(
  store: ArtifactStore,
  runId: string,
  chain: readonly RecordRead[],
  keys: Keys,
  problems: Problem[],
  call: CallOptions,
): Promise<{ signers: Signer[] }> {
  const { trustedIds } = keys;
  const recordAt = new Map(chain.map((record) => [record.key, record]));
  const vouched = new Set<string>();
  const records = new Map<Sha256, number>();

  for await (const { key } of store.list(attestationsFolder(runId), call)) {
    const envelope = (await readCanonical(store, key, 'attestation', problems, call)) as Envelope | null;
    if (envelope === null) continue;
    const report = (what: string, at: string, expected: string, found: string) => problems.push({ what, key: at, expected, found });
    try {
      const [subject] = statementIn(envelope, key).subject;
      const name = subject?.name ?? '';
      const signers = signersOf(runId, envelope, 'signature of an attestation', key, keys, problems);
      if (signers.length > 0) vouched.add(name);
      for (const signer of new Set(signers)) records.set(signer, (records.get(signer) ?? 0) + 1);
      const digest = recordAt.get(name)?.digest ?? 'it is missing';
      if (digest !== subject?.digest.sha256) report('attested record', name, `SHA-256 ${subject?.digest.sha256}, as in ${key}`, digest);
    } catch (error) {
      if (!(error instanceof RatchetError)) throw error;
      report('attestation', key, 'a signed statement about a record', error.message);
    }
  }
  if (trustedIds) {
    for (const { entry } of chain) {
      const key = recordKey(runId, entry.index);
      if (!vouched.has(key))
        problems.push({
          what: 'attestation',
          key: attestationKey(runId, entry.index),
          expected: `a trusted statement about ${key}`,
          found: 'there is none',
        });
    }
  }
  const signers = [...records].map(([keyid, count]) => ({ keyid, records: count, trusted: trustedIds && trustedIds.has(keyid) }));
  return { signers };
}

/** Whose key is not there; null where all are, or where a key that is there made the signature and its name was changed. */
function absentSigner(envelope: Envelope, keys: ReadonlyMap<Sha256, KeyObject>): Sha256 | null {
  const unknown = envelope.signatures.find(({ keyid }) => !keys.has(keyid));
  if (unknown === undefined) return null;
  const renamed = [...keys.keys()].some((keyid) => validSigners({ ...envelope, signatures: [{ ...unknown, keyid }] }, keys).length > 0);
  return renamed ? null : unknown.keyid;
}

/** The keys beside the run, each under its own id; what is not one is reported. */
async function publishedKeys(store: ArtifactStore, runId: string, problems: Problem[], call: CallOptions): Promise<Map<Sha256, KeyObject>> {
  const keys = new Map<Sha256, KeyObject>();
  for await (const { key } of store.list(keysFolder(runId), call)) {
    const published = (await readCanonical(store, key, 'public key', problems, call)) as PublishedKey | null;
    if (published === null) continue;
    try {
      const publicKey = readPublicKey(String(published.publicKey), key, 'publicKey');
      const keyid = keyIdOf(publicKey);
      const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
      if (keyid === published.keyid && key === `${keysFolder(runId)}${keyid}.json` && pem === published.publicKey)
        keys.set(keyid, publicKey);
      else problems.push({ what: 'public key', key, expected: `key ${keyid} under its own name`, found: `${published.keyid}` });
    } catch (error) {
      if (!(error instanceof RatchetError)) throw error;
      problems.push({ what: 'public key', key, expected: 'an Ed25519 public key', found: error.message });
    }
  }
  return keys;
}
