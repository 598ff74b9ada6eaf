/**
 * The audit of a run from the store alone: the chain of records, everything it leads to, and whether the numbers agree with the episodes. It needs no
 * Temporal and no worker, changes nothing, and trusts nothing that it has not hashed. A store that cannot be reached is Unavailable, never "wrong".
 */
import type { KeyObject } from 'node:crypto';
import { digestJson, sha256, type Sha256 } from '../core/digest.ts';
import { badInput, RatchetError } from '../core/errors.ts';
import type { ArtifactRef } from '../core/nouns.ts';
import { checkAttestations, checkGivenUp, keysOf, type Signer } from './audit-attestations.ts';
import { checkClaims } from './audit-claims.ts';
import { newFindings, readCanonical, study, visitAll, type Findings, type Problem } from './audit-objects.ts';
import { forEachBounded } from './bounded.ts';
import { isDigest, isModel, isObject, isRef, walk, type Link } from './audit-shapes.ts';
import type { RecordEntry, RecordRef, RunManifest, StageManifest } from './record.ts';
import type { GivenUp } from './retention.ts';
import { parseRecord, recordKey, recordsFolder, runKey, sealHolds, stageDigest, stageIntent, stagesFolder } from './run-log.ts';
import { objectKey, type ArtifactStore, type CallOptions } from './store.ts';

export type { Problem } from './audit-objects.ts';

export interface VerifyReport {
  runId: string;
  /** True when there are no problems. */
  ok: boolean;
  /** In order: the run, its records, stages, attestations, objects by distance from the records, and then what does not add up. */
  problems: Problem[];
  /** The last record, which stands for everything that was verified; null when there is none. */
  head: RecordRef | null;
  /** Iterations whose intent has no outcome: work under way, or abandoned. Not a problem. */
  unresolved: number[];
  /** Who signed the attestations: the key, how many records it speaks of, and whether it is one of the trusted keys given. */
  signers: Signer[];
  /** What the run gave up to make room (episodes, labels, weights), by whom and when, and how much of it is not there any more; null where it kept all. */
  givenUp: { by: string; at: string; host: string; list: Sha256; objects: number; bytes: number; absent: number } | null;
  counts: { records: number; stages: number; objects: number; bytes: number; episodes: number; evaluations: number };
}

export interface VerifyOptions extends CallOptions {
  /** The digest that the last record must have, as noted elsewhere; without it, records removed from the end are only noticed by their attestations. */
  head?: Sha256;
  /** Keys that the caller trusts: every record must then have an attestation with a signature of one of them. Without it a signature only has to hold. */
  trusted?: readonly KeyObject[];
  /** Told of every object that was found to be what its digest says. */
  onSound?: (ref: ArtifactRef) => void;
  /** Objects checked so far, of those known so far. */
  onProgress?: (progress: { done: number; total: number; bytes: number }) => void;
}

/** Small reads under way at a time. */
const MANIFESTS_AT_ONCE = 16;

/** A record that could be read. */
interface Read {
  key: string;
  entry: RecordEntry;
  digest: Sha256;
}

/** Throws BadInput when there is no such run, Unavailable when the store cannot be read; everything else is in the report. */
export async function verifyRun(store: ArtifactStore, runId: string, options: VerifyOptions = {}): Promise<VerifyReport> {
  const call: CallOptions = options.signal ? { signal: options.signal } : {};
  const findings = newFindings();
  const { problems } = findings;
  const roots: Link[] = [];

  const recipe = await checkRun(store, runId, findings, roots, call);
  const chain = await checkChain(store, runId, recipe, options.head, findings, roots, call);
  const stages = await checkStages(store, runId, chain, findings, roots, call);
  const keys = await keysOf(store, runId, options.trusted ?? null, problems, call);
  const { signers } = await checkAttestations(store, runId, chain, keys, problems, call);
  const givenUp = await checkGivenUp(store, runId, chain, keys, problems, call);
  if (!recipe && chain.length === 0 && stages === 0) throw badInput('run id', runId, 'a run that is in the store (see `ratchet ls`)');

  if (givenUp) {
    const { list } = givenUp.stated;
    // What the chain itself rests on cannot be given up: a statement that says so excuses nothing.
    const needed = new Set([recipe, ...chain.map(({ entry }) => (isRef(entry.stages) ? entry.stages.sha256 : null))]);
    findings.givenUp = new Map([...givenUp.list].filter(([digest]) => !needed.has(digest)));
    roots.push(list);
  }
  const onObject = (done: number, total: number) => options.onProgress?.({ done, total, bytes: findings.bytes });
  await visitAll(store, roots, findings, onObject, call);
  for (const [digest, bytes] of findings.sound) options.onSound?.({ key: objectKey(digest), sha256: digest, bytes });
  checkLineage(chain, findings);
  problems.push(...checkClaims(findings, panelsOf(chain)));

  const head = chain.at(-1);
  const outcomes = new Set(chain.filter(({ entry }) => entry.kind === 'outcome').map(({ entry }) => entry.iteration));
  let episodes = 0;
  for (const { counts } of findings.tables.values()) episodes += counts?.dispatched ?? 0;
  return {
    runId,
    ok: problems.length === 0,
    problems,
    head: head ? { index: head.entry.index, sha256: head.digest } : null,
    unresolved: chain.filter(({ entry }) => entry.kind === 'intent' && !outcomes.has(entry.iteration)).map(({ entry }) => entry.iteration),
    signers,
    givenUp: givenUp && givenUpReport(givenUp.stated, findings),
    counts: {
      records: chain.length,
      stages,
      objects: findings.sound.size,
      bytes: findings.bytes,
      episodes,
      evaluations: findings.evaluations.size,
    },
  };
}

function givenUpReport({ by, at, host, list, objects, bytes }: GivenUp, { absent }: Findings): VerifyReport['givenUp'] {
  return { by, at, host, list: list.sha256, objects, bytes, absent: absent.size };
}

/** The run's manifest: canonical, and its recipe under its own digest. Returns that digest, or null when there is no readable manifest. */
async function checkRun(store: ArtifactStore, runId: string, findings: Findings, roots: Link[], call: CallOptions): Promise<Sha256 | null> {
  const key = runKey(runId);
  const manifest = (await readCanonical(store, key, 'run manifest', findings.problems, call)) as RunManifest | null;
  if (manifest === null) return null;
  if (!isRef(manifest.recipe) || manifest.recipe.sha256 !== manifest.recipeSha256) {
    const expected = 'a reference to the recipe and its digest';
    findings.problems.push({ what: 'run manifest', key, expected, found: JSON.stringify(manifest).slice(0, 300) });
    return null;
  }
  roots.push(...study(findings, key, manifest));
  return manifest.recipeSha256;
}

/** Every record is canonical, in its place, follows the one before it, and comes in the order genesis, then intent and outcome of each iteration. */
async function checkChain(
  store: ArtifactStore,
  runId: string,
  recipe: Sha256 | null,
  head: Sha256 | undefined,
  findings: Findings,
  roots: Link[],
  call: CallOptions,
): Promise<Read[]> {
  const { problems } = findings;
  const folder = recordsFolder(runId);
  const chain: Read[] = [];
  let next = 0;
  for await (const { key } of store.list(folder, call)) {
    const index = keyIndex(key);
    if (!Number.isInteger(index) || key !== recordKey(runId, index)) {
      problems.push({ what: 'record', key, expected: 'only numbered records', found: 'another name' });
      continue;
    }
    if (index > next) {
      const what = index - next === 1 ? `record ${next}` : `records ${next} to ${index - 1}`;
      problems.push({ what, key: recordKey(runId, next), expected: 'a record, since later ones exist', found: 'it is missing' });
    }
    next = index + 1;
    const bytes = await store.readBytes(key, call);
    try {
      chain.push({ key, entry: parseRecord(key, bytes ?? new Uint8Array()), digest: sha256(bytes ?? '') });
    } catch (error) {
      if (!(error instanceof RatchetError) || error.type !== 'Corrupt') throw error;
      problems.push({ what: `record ${index}`, key, expected: 'the canonical JSON of a record', found: error.message });
    }
  }

  chain.forEach(({ key, entry }, at) => {
    const what = `record ${entry.index}`;
    const before = chain[at - 1];
    if (entry.index !== keyIndex(key)) problems.push({ what: 'place of a record', key, expected: `record ${keyIndex(key)}`, found: what });
    if (before && keyIndex(key) === keyIndex(before.key) + 1 && entry.previous !== before.digest) {
      const expected = `SHA-256 ${entry.previous}, which the record after it names`;
      problems.push({ what: `record ${before.entry.index}`, key: before.key, expected, found: `SHA-256 ${before.digest}` });
    }
    if (before && keyIndex(key) !== keyIndex(before.key) + 1) return roots.push(...study(findings, key, entry)); // the gap is reported
    const expected = successor(before?.entry);
    const found = `${entry.kind} of iteration ${entry.iteration}`;
    if (!expected.includes(found) && !(at === 0 && isFork(entry)))
      problems.push({ what: `order of ${what}`, key, expected: expected.join(' or '), found });
    roots.push(...study(findings, key, entry));
  });

  const genesis = chain[0]?.entry.kind === 'genesis' ? (chain[0].entry.body as { recipe?: unknown }) : null;
  if (genesis && recipe !== null && genesis.recipe !== undefined) {
    const found = isRef(genesis.recipe) ? genesis.recipe.sha256 : digestJson(genesis.recipe);
    if (found !== recipe) problems.push({ what: 'recipe of the genesis', key: chain[0]?.key ?? '', expected: recipe, found });
  }
  const last = chain.at(-1);
  if (head !== undefined && last?.digest !== head) {
    problems.push({ what: 'head', key: last?.key ?? recordKey(runId, 0), expected: head, found: last?.digest ?? 'no records' });
  }
  return chain;
}

function keyIndex(key: string): number {
  return Number(key.slice(key.lastIndexOf('/') + 1, -'.json'.length));
}

/** The genesis of a run that forked says what its parent had reached, and its first iteration is the next. */
function isFork({ kind, body }: RecordEntry): boolean {
  return kind === 'genesis' && isObject((body as { parent?: unknown }).parent);
}

/** What may follow: an outcome belongs to the intent just before it, and iterations are counted up by one. */
function successor(before: RecordEntry | undefined): string[] {
  if (!before) return ['genesis of iteration 0'];
  if (before.kind === 'intent') return [`outcome of iteration ${before.iteration}`];
  return [`intent of iteration ${before.kind === 'genesis' && !isFork(before) ? before.iteration : before.iteration + 1}`];
}

/** Every stage manifest is what its name and the chain say, and whatever an outcome refers to was given by a stage or by genesis. Returns their number. */
async function checkStages(
  store: ArtifactStore,
  runId: string,
  chain: Read[],
  findings: Findings,
  roots: Link[],
  call: CallOptions,
): Promise<number> {
  const { problems } = findings;
  const folder = stagesFolder(runId);
  const given = new Set<string>();
  const digests = new Map<string, Sha256>();
  const keys: string[] = [];
  for await (const { key } of store.list(folder, call)) keys.push(key);
  const manifests = new Map<string, StageManifest>();
  await forEachBounded(keys, MANIFESTS_AT_ONCE, async (key) => {
    const manifest = (await readCanonical(store, key, 'stage manifest', problems, call)) as StageManifest | null;
    if (manifest !== null) manifests.set(key, manifest);
  });
  for (const key of keys) {
    const manifest = manifests.get(key);
    if (!manifest) continue;
    const name = key.slice(folder.length, -'.json'.length);
    digests.set(name, stageDigest(manifest));
    if (!sealHolds(manifest))
      problems.push({ what: 'seal of a stage manifest', key, expected: 'the digest of the rest', found: 'another' });
    const intent = stageIntent(manifest.stage, manifest.input);
    if (intent !== name) problems.push({ what: 'name of a stage manifest', key, expected: intent, found: name });
    roots.push(...study(findings, key, manifest));
    for (const { sha256: digest } of refsOf(manifest.output)) given.add(digest);
  }
  for (const { key, entry } of chain) {
    if (entry.kind !== 'outcome') {
      if (entry.kind === 'genesis') for (const { sha256: digest } of refsOf(entry.body)) given.add(digest);
      continue;
    }
    const index = await stagesOf(store, entry, call);
    for (const [intent, digest] of index) {
      const found = digests.get(intent) ?? 'it is missing';
      const manifest = `${folder}${intent}.json`;
      if (found !== digest) problems.push({ what: 'stage manifest', key: manifest, expected: `digest ${digest}, as in ${key}`, found });
    }
    if (index.length === 0) continue; // its stages were remembered elsewhere, and it claims none
    const stray = refsOf(entry.body).find(({ sha256: digest }) => !given.has(digest));
    if (stray) problems.push({ what: 'origin of an object', key, expected: `a committed stage that gave ${stray.key}`, found: 'none did' });
  }
  return digests.size;
}

/** A damaged or missing index is reported by the walk over the objects, as every object is. */
async function stagesOf(store: ArtifactStore, entry: RecordEntry, call: CallOptions): Promise<[string, unknown][]> {
  if (!isRef(entry.stages)) return [];
  try {
    return Object.entries(await store.getJson<object>(entry.stages, call));
  } catch (error) {
    if (error instanceof RatchetError && error.type === 'Corrupt') return [];
    throw error;
  }
}

/** Each iteration starts from the policy that the one before ended with, and its rollouts are those of that policy. */
function checkLineage(chain: Read[], findings: Findings): void {
  const { problems, sets } = findings;
  let policy: Sha256 | null = null;
  let from: Sha256 | null = null;
  for (const { key, entry } of chain) {
    const body = entry.body as Record<string, unknown>;
    if (isFork(entry) && isModel(body['policy'])) policy = body['policy'].sha256;
    if (entry.kind === 'intent') {
      from = isModel(body['from']) ? body['from'].sha256 : null;
      if (policy !== null && from !== null && from !== policy) {
        problems.push({ what: 'policy that the iteration starts from', key, expected: policy, found: from });
      }
    }
    if (entry.kind === 'outcome') {
      if (isModel(body['policy'])) policy = body['policy'].sha256;
      const rollouts = isObject(body['rollouts']) && isRef(body['rollouts']['set']) ? sets.get(body['rollouts']['set'].sha256) : undefined;
      if (rollouts && from !== null && rollouts.policy !== from) {
        problems.push({ what: 'policy of the rollouts', key, expected: from, found: rollouts.policy });
      }
    }
  }
}

/** The digests of what genesis calls panels. */
function panelsOf(chain: Read[]): Set<string> {
  const genesis = chain[0]?.entry;
  const panels = genesis?.kind === 'genesis' ? (genesis.body as { panels?: unknown }).panels : null;
  return new Set([...refsOf(panels).map(({ sha256: digest }) => digest), ...digestsIn(panels)]);
}

function digestsIn(panels: unknown): string[] {
  return isObject(panels) ? Object.values(panels).filter(isDigest) : [];
}

function refsOf(value: unknown): { key: string; sha256: Sha256 }[] {
  const refs: { key: string; sha256: Sha256 }[] = [];
  walk(value, (found) => {
    if (isRef(found)) refs.push(found);
  });
  return refs;
}
