/**
 * The log of a run in the store: its manifest, its chain of records, the committed results of its stages, and attestations beside them. Everything but
 * attestations is written once; writing the same again is fine, writing something else throws Conflict.
 */
import { canonicalJson, digestJson, sha256, type Sha256 } from '../core/digest.ts';
import { badInput, RatchetError } from '../core/errors.ts';
import { forEachBounded } from './bounded.ts';
import { signAttestation, statementIn, type Envelope, type PublishedKey, type SigningKey } from './attestation.ts';
import type { Attestation, ForkPoint, RecordEntry, RecordRef, RunManifest, StageIndex, StageManifest } from './record.ts';
import type { ArtifactStore, CallOptions } from './store.ts';

const RUNS = 'runs/';

/** Keys sort by index up to a million records, which is as many as 500,000 iterations have. */
const INDEX_DIGITS = 6;

/** Small reads under way at a time: a stage of 10,000 shards is indexed within seconds. */
const READS_AT_ONCE = 16;

function runFolder(runId: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(runId) || runId.includes('..')) {
    throw badInput('run id', runId, '1 to 100 letters, digits, dots, hyphens and underscores, beginning with a letter or digit');
  }
  return `${RUNS}${runId}/`;
}

export function runKey(runId: string): string {
  return `${runFolder(runId)}run.json`;
}

export function recordsFolder(runId: string): string {
  return `${runFolder(runId)}records/`;
}

export function recordKey(runId: string, index: number): string {
  return `${recordsFolder(runId)}${String(index).padStart(INDEX_DIGITS, '0')}.json`;
}

export function attestationsFolder(runId: string): string {
  return `${runFolder(runId)}attestations/`;
}

/** The public keys that signed the run's attestations. */
export function keysFolder(runId: string): string {
  return `${runFolder(runId)}keys/`;
}

export function stagesFolder(runId: string): string {
  return `${runFolder(runId)}stages/`;
}

/** What stages under way could go on from: a folder per stage call, named by its intent. */
export function checkpointsFolder(runId: string): string {
  return `${runFolder(runId)}checkpoints/`;
}

/** Stored before the bytes of a checkpoint, so that no other artifact and no other run can share the object, and removing it harms nobody. */
export function checkpointHeader(runId: string, intent: Sha256, step: number): string {
  return `ratchet checkpoint ${runId} ${intent} ${step}\n`;
}

/** The run whose checkpoint begins with these bytes, or null for any other object. */
export function checkpointOwner(start: Uint8Array): string | null {
  return /^ratchet checkpoint (\S+) [0-9a-f]{64} \d+\n/.exec(Buffer.from(start).toString('latin1'))?.[1] ?? null;
}

/** One empty note for each stage result of an iteration under way, so that its outcome finds them without looking through all of the run's. */
function notesFolder(runId: string, iteration: number): string {
  return `${runFolder(runId)}new/${iteration}/`;
}

/** Stands among an iteration's notes from its intent on: everything that is committed in it is noted. */
function begunKey(runId: string, iteration: number): string {
  return `${notesFolder(runId, iteration)}begun.json`;
}

export function stageKey(runId: string, stage: string, input: unknown): string {
  return `${stagesFolder(runId)}${stageIntent(stage, input)}.json`;
}

/** Names a stage call: the digest of what is to be done. */
export function stageIntent(stage: string, input: unknown): Sha256 {
  return digestJson({ stage, input });
}

/** Binds a run id to a resolved recipe and, for a fork, to what it goes on from. Throws Conflict when the run exists with another recipe. */
export async function createRun(
  store: ArtifactStore,
  runId: string,
  recipe: object,
  { parent, ...options }: CallOptions & { parent?: ForkPoint } = {},
): Promise<{ created: boolean }> {
  const key = runKey(runId);
  const ref = await store.putJson(recipe, options);
  try {
    const manifest: RunManifest = { recipe: ref, recipeSha256: ref.sha256, ...(parent && { parent }) };
    return await store.commit(key, manifest, options);
  } catch (error) {
    if (!(error instanceof RatchetError) || error.type !== 'Conflict') throw error;
    const existing = await readRun(store, runId, options);
    // A fork is found by its recipe, too.
    if (existing?.recipeSha256 === ref.sha256) return { created: false };
    throw new RatchetError(
      'Conflict',
      `run id: ${JSON.stringify(runId)} exists with another recipe (${existing?.recipeSha256.slice(0, 12)}, not ${ref.sha256.slice(0, 12)}); choose another run id or the same recipe`,
      { cause: error },
    );
  }
}

export function readRun(store: ArtifactStore, runId: string, options: CallOptions = {}): Promise<RunManifest | null> {
  return store.readManifest<RunManifest>(runKey(runId), options);
}

/** The ids of all runs in the store, sorted. */
export async function listRuns(store: ArtifactStore, options: CallOptions = {}): Promise<string[]> {
  const ids: string[] = [];
  for await (const folder of store.listFolders(RUNS, options)) ids.push(folder.slice(RUNS.length, -1));
  return ids;
}

/**
 * Adds a record to the chain; an outcome also gets the index of the stages that led to it. The same entry again gives the same answer; another entry at the same index, or one that does not continue what is stored,
 * throws Conflict and writes nothing.
 */
export async function appendRecord(store: ArtifactStore, runId: string, entry: RecordEntry, options: CallOptions = {}): Promise<RecordRef> {
  const { index, kind, previous, iteration } = entry;
  if (!Number.isInteger(index) || index < 0 || String(index).length > INDEX_DIGITS) {
    throw badInput('record index', index, `an integer from 0 with at most ${INDEX_DIGITS} digits`);
  }
  if ((index === 0) !== (kind === 'genesis') || (index === 0) !== (previous === null)) {
    throw badInput('record', { index, kind, previous }, 'record 0, and no other, is the genesis and has no previous record');
  }
  if (index > 0) {
    const before = await store.readBytes(recordKey(runId, index - 1), options);
    const digest = before && sha256(before);
    if (digest !== previous) {
      throw new RatchetError(
        'Conflict',
        `record ${index} of run ${runId} follows ${previous}; record ${index - 1} is ${digest ?? 'missing'}`,
      );
    }
  }
  if (kind === 'outcome') {
    const record = await closeIteration(store, runId, entry, options);
    await clearNotes(store, runId, iteration, options);
    return { index, sha256: digestJson(record) };
  }
  const { created } = await store.commit(recordKey(runId, index), entry, options);
  // Only where no stage can have been committed before, by code that notes nothing. Before the warm start's there is nothing to look through.
  if (kind === 'intent' && iteration > 0 && created) await store.writePointer(begunKey(runId, iteration), {}, options);
  return { index, sha256: digestJson(entry) };
}

/** The outcome as it is stored. Whichever attempt was first says which stages led to it: later ones may miss some and see some of the next iteration. */
async function closeIteration(store: ArtifactStore, runId: string, entry: RecordEntry, options: CallOptions): Promise<RecordEntry> {
  const stored = await closedAs(store, runId, entry, options);
  if (stored) return stored;
  const record = { ...entry, stages: await store.putJson(await newStages(store, runId, entry, options), options) };
  try {
    await store.commit(recordKey(runId, entry.index), record, options);
    return record;
  } catch (error) {
    if (!(error instanceof RatchetError) || error.type !== 'Conflict') throw error;
    // Another attempt was first after all, and took notes away while this one counted them.
    const first = await closedAs(store, runId, entry, options);
    if (!first) throw error;
    return first;
  }
}

/** The stored outcome that is `entry` in all but its stages, or null. */
async function closedAs(store: ArtifactStore, runId: string, entry: RecordEntry, options: CallOptions): Promise<RecordEntry | null> {
  const stored = await store.readManifest<RecordEntry>(recordKey(runId, entry.index), options);
  const same = stored && canonicalJson({ ...stored, stages: undefined }) === canonicalJson({ ...entry, stages: undefined });
  return same ? stored : null;
}

/**
 * The stages that were committed and are in no outcome before this one. All stages of an iteration are done before its outcome is written and none of the
 * next has begun, so this depends on the work alone.
 */
async function newStages(
  store: ArtifactStore,
  runId: string,
  { index, iteration }: RecordEntry,
  options: CallOptions,
): Promise<StageIndex> {
  const noted = (await store.size(begunKey(runId, iteration), options)) !== null;
  const fresh = noted ? await notes(store, runId, iteration, options) : await unnotedStages(store, runId, index, options);
  const stages: StageIndex = {};
  await forEachBounded(fresh, READS_AT_ONCE, async (intent) => {
    // A note without a result is of an attempt that was cut off in between, or never ended.
    const manifest = await store.readManifest<StageManifest>(`${stagesFolder(runId)}${intent}.json`, options);
    if (manifest) stages[intent] = stageDigest(manifest);
  });
  return stages;
}

async function notes(store: ArtifactStore, runId: string, iteration: number, options: CallOptions): Promise<string[]> {
  const folder = notesFolder(runId, iteration);
  const names: string[] = [];
  for await (const { key } of store.list(folder, options)) if (key !== begunKey(runId, iteration)) names.push(nameIn(folder, key));
  return names;
}

/** For an iteration that a version began which took no notes: looks through every stage and every earlier outcome of the run. */
async function unnotedStages(store: ArtifactStore, runId: string, index: number, options: CallOptions): Promise<string[]> {
  const known = new Set<string>();
  for (const { entry } of (await readChain(store, runId, options)).slice(0, index)) {
    if (entry.stages) for (const intent of Object.keys(await store.getJson<StageIndex>(entry.stages, options))) known.add(intent);
  }
  const folder = stagesFolder(runId);
  const names: string[] = [];
  for await (const { key } of store.list(folder, options)) if (!known.has(nameIn(folder, key))) names.push(nameIn(folder, key));
  return names;
}

/** The notes of a closed iteration; the sign that it took notes goes last, so that a second try finds all or none. */
async function clearNotes(store: ArtifactStore, runId: string, iteration: number, options: CallOptions): Promise<void> {
  const folder = notesFolder(runId, iteration);
  const names = await notes(store, runId, iteration, options);
  await forEachBounded(names, READS_AT_ONCE, (name) => store.delete(`${folder}${name}.json`, options));
  await store.delete(begunKey(runId, iteration), options);
}

function nameIn(folder: string, key: string): string {
  return key.slice(folder.length, -'.json'.length);
}

/** Names what a stage call gave, whatever it was computed under. */
export function stageDigest({ stage, input, output }: StageManifest): Sha256 {
  return digestJson({ stage, input, output });
}

/** The value with the digest of its canonical form beside it, so that a manifest that nothing else refers to cannot change unnoticed. */
export function sealed<T extends object>(value: T): T & { seal: Sha256 } {
  return { ...value, seal: digestJson(value) };
}

/** Whether a sealed value is what it was when it was sealed. */
export function sealHolds(value: object): boolean {
  const { seal, ...rest } = value as { seal?: unknown };
  return seal === digestJson(rest);
}

export interface ChainLink {
  entry: RecordEntry;
  ref: RecordRef;
}

/** All records of a run in order. Throws Corrupt naming the first record that is not the continuation of the one before it. */
export async function readChain(store: ArtifactStore, runId: string, options: CallOptions = {}): Promise<ChainLink[]> {
  const chain: ChainLink[] = [];
  for (let index = 0; ; index++) {
    const key = recordKey(runId, index);
    const bytes = await store.readBytes(key, options);
    if (!bytes) return chain;
    const entry = parseRecord(key, bytes);
    const previous = headOf(chain)?.sha256 ?? null;
    if (entry.index !== index) throw new RatchetError('Corrupt', `${key}: its index is ${entry.index}; expected ${index}`);
    if (entry.previous !== previous) throw new RatchetError('Corrupt', `${key}: it follows ${entry.previous}; expected ${previous}`);
    chain.push({ entry, ref: { index, sha256: sha256(bytes) } });
  }
}

/** A record from its stored bytes. Throws Corrupt unless they are the canonical JSON of a record: otherwise its digest would not be that of its content. */
export function parseRecord(key: string, bytes: Uint8Array): RecordEntry {
  let entry: RecordEntry;
  let canonical: string;
  try {
    entry = JSON.parse(Buffer.from(bytes).toString()) as RecordEntry;
    canonical = canonicalJson(entry);
  } catch (error) {
    throw new RatchetError('Corrupt', `${key}: not a record (${(error as Error).message})`, { cause: error });
  }
  const { index, kind, iteration, body } = entry ?? {};
  const complete =
    Number.isInteger(index) && ['genesis', 'intent', 'outcome'].includes(kind) && Number.isInteger(iteration) && typeof body === 'object';
  if (!complete || body === null)
    throw new RatchetError('Corrupt', `${key}: not a record; expected index, kind, previous, iteration and body`);
  if (!Buffer.from(canonical).equals(bytes)) throw new RatchetError('Corrupt', `${key}: not in canonical form (RFC 8785)`);
  return entry;
}

/** The last record, which stands for the whole chain; null for an empty one. */
export function headOf(chain: readonly ChainLink[]): RecordRef | null {
  return chain.at(-1)?.ref ?? null;
}

/**
 * Commits what a stage call of `iteration` gave. Two attempts of one call give the same output, so a second commit is fine; another output throws Conflict.
 * A result is not there without its note. `iteration`: null in calls of versions that took no notes.
 */
export async function commitStage(
  store: ArtifactStore,
  runId: string,
  iteration: number | null,
  manifest: StageManifest,
  options: CallOptions = {},
): Promise<{ created: boolean }> {
  const intent = stageIntent(manifest.stage, manifest.input);
  if (iteration !== null) await store.writePointer(`${notesFolder(runId, iteration)}${intent}.json`, {}, options);
  return await store.commit(`${stagesFolder(runId)}${intent}.json`, sealed(manifest), options);
}

/** What a stage call gave, or null when it has not been committed. */
export function readStage(
  store: ArtifactStore,
  runId: string,
  stage: string,
  input: unknown,
  options: CallOptions = {},
): Promise<StageManifest | null> {
  return store.readManifest<StageManifest>(stageKey(runId, stage, input), options);
}

export function attestationKey(runId: string, index: number): string {
  return `${attestationsFolder(runId)}${String(index).padStart(INDEX_DIGITS, '0')}.json`;
}

/** Signs and writes the attestation of a record, and the public half of the key before it; a later one of the same record replaces it. */
export async function attest(
  store: ArtifactStore,
  runId: string,
  attestation: Attestation,
  { keyid, publicKey, ...rest }: SigningKey,
  options: CallOptions = {},
): Promise<void> {
  await store.commit(`${keysFolder(runId)}${keyid}.json`, { keyid, publicKey } satisfies PublishedKey, options);
  const { index } = attestation.record;
  const envelope = signAttestation(attestation, recordKey(runId, index), { keyid, publicKey, ...rest });
  await store.writePointer(attestationKey(runId, index), envelope, options);
}

/** What the attestation of the record at `index` says, its signature unchecked (`verify` checks it), or null. */
export async function readAttestation(
  store: ArtifactStore,
  runId: string,
  index: number,
  options: CallOptions = {},
): Promise<Attestation | null> {
  const key = attestationKey(runId, index);
  const envelope = await store.readManifest<Envelope>(key, options);
  if (envelope === null) return null;
  const { subject, predicate } = statementIn(envelope, key);
  return { record: { index, sha256: subject[0]?.digest.sha256 ?? '' }, ...predicate };
}
