/**
 * What may go and what must stay of a run, as notes beside it: a pin, which keeps all of it, and the statement that its bulk (episodes, labels, weights)
 * was given up. The statement is signed and written before anything is removed, so `verify` can tell what was removed on purpose from what was lost.
 * Records, stage results and every JSON object (evaluations, panels, plans) always stay: the history of a run outlives its bulk.
 */
import { hostname } from 'node:os';
import { badInput, RatchetError } from '../core/errors.ts';
import type { Sha256 } from '../core/digest.ts';
import type { ArtifactRef } from '../core/nouns.ts';
import { signStatement, statementIn, type Envelope, type PublishedKey, type SigningKey } from './attestation.ts';
import { isDigest, isObject, isRef } from './audit-shapes.ts';
import type { RecordRef } from './record.ts';
import { keysFolder, runKey } from './run-log.ts';
import type { ArtifactStore, CallOptions } from './store.ts';

/** What the predicate of the statement means: the fields of `GivenUp`. Its subject is the list of what was given up. */
export const GIVEN_UP_TYPE = 'urn:ratchet:bulk-given-up:v1';

export interface Pin {
  by: string;
  /** ISO 8601, UTC. */
  at: string;
  reason: string | null;
}

/** `runs/<run>/given-up.json`: a signed statement that the objects in `list` need not be there any more. Written once, never taken back. */
export interface GivenUp {
  run: string;
  /** The newest record at that time. */
  head: RecordRef | null;
  /** A `GivenUpList`. */
  list: ArtifactRef;
  objects: number;
  bytes: number;
  at: string;
  host: string;
  by: string;
}

/** Digest and size of every object, by digest. */
export interface GivenUpList {
  givenUp: [Sha256, number][];
}

function beside(runId: string, name: string): string {
  return `${runKey(runId).slice(0, -'run.json'.length)}${name}`;
}

export function pinKey(runId: string): string {
  return beside(runId, 'pin.json');
}

export function givenUpKey(runId: string): string {
  return beside(runId, 'given-up.json');
}

/** A pin that is there already is kept. */
export async function pin(store: ArtifactStore, runId: string, by: string, reason: string | null, options: CallOptions = {}): Promise<Pin> {
  const there = await readPin(store, runId, options);
  if (there) return there;
  const made: Pin = { by, at: new Date().toISOString(), reason };
  await store.writePointer(pinKey(runId), made, options);
  return made;
}

export function unpin(store: ArtifactStore, runId: string, options: CallOptions = {}): Promise<void> {
  return store.delete(pinKey(runId), options);
}

export function readPin(store: ArtifactStore, runId: string, options: CallOptions = {}): Promise<Pin | null> {
  return store.readManifest<Pin>(pinKey(runId), options);
}

/** States that a run's bulk is given up. Where that was stated before (perhaps by a sweep that died), the earlier statement holds and is returned. */
export async function giveUp(
  store: ArtifactStore,
  runId: string,
  what: { head: RecordRef | null; objects: ReadonlyMap<Sha256, number>; by: string },
  key: SigningKey,
  options: CallOptions = {},
): Promise<GivenUp> {
  if (await readPin(store, runId, options)) throw badInput('run', runId, `a run that is not pinned; \`ratchet unpin ${runId}\` first`);
  const list: GivenUpList = { givenUp: [...what.objects].sort(([a], [b]) => (a < b ? -1 : 1)) };
  const ref = await store.putJson(list, options);
  const { keyid, publicKey } = key;
  await store.commit(`${keysFolder(runId)}${keyid}.json`, { keyid, publicKey } satisfies PublishedKey, options);
  const stated: GivenUp = {
    run: runId,
    head: what.head,
    list: ref,
    objects: what.objects.size,
    bytes: [...what.objects.values()].reduce((sum, bytes) => sum + bytes, 0),
    at: new Date().toISOString(),
    host: hostname(),
    by: what.by,
  };
  try {
    await store.commit(givenUpKey(runId), signStatement({ name: ref.key, sha256: ref.sha256 }, GIVEN_UP_TYPE, stated, key), options);
    return stated;
  } catch (error) {
    const first = error instanceof RatchetError && error.type === 'Conflict' ? await readGivenUp(store, runId, options) : null;
    if (first === null) throw error;
    return first;
  }
}

/** Throws BadInput for a run whose episodes, labels and weights were given up: its history can be read, but nothing goes on from it. */
export async function requireBulk(store: ArtifactStore, runId: string, options: CallOptions = {}): Promise<void> {
  const gone = await readGivenUp(store, runId, options);
  if (gone) throw badInput('run', runId, `a run that has its episodes and weights; ${gone.by} gave up those of this one on ${gone.at}`);
}

/** What was given up of a run, its signature unchecked (`verify` checks it), or null. Throws Corrupt where it has another form. */
export async function readGivenUp(store: ArtifactStore, runId: string, options: CallOptions = {}): Promise<GivenUp | null> {
  const key = givenUpKey(runId);
  const envelope = await store.readManifest<Envelope>(key, options);
  return envelope && givenUpIn(envelope, runId);
}

/** Throws Corrupt unless it is a statement about this run whose subject is its list. */
export function givenUpIn(envelope: Envelope, runId: string): GivenUp {
  const key = givenUpKey(runId);
  const { subject, predicate } = statementIn<GivenUp>(envelope, key, GIVEN_UP_TYPE);
  if (predicate.run !== runId || !isRef(predicate.list) || subject[0]?.digest.sha256 !== predicate.list.sha256)
    throw new RatchetError('Corrupt', `${key}: not a statement about what run ${runId} gave up`);
  return predicate;
}

/** The list behind the statement. Throws Corrupt where it is missing, damaged or another thing. */
export async function readGivenUpList(store: ArtifactStore, { list }: GivenUp, options: CallOptions = {}): Promise<Map<Sha256, number>> {
  const value: unknown = await store.getJson(list, options);
  const entries = isObject(value) ? value['givenUp'] : null;
  if (!Array.isArray(entries) || !entries.every((entry) => Array.isArray(entry) && isDigest(entry[0]) && Number.isSafeInteger(entry[1])))
    throw new RatchetError('Corrupt', `${list.key}: not a list of digests and sizes`);
  return new Map(entries as [Sha256, number][]);
}
