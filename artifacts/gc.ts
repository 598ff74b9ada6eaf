/**
 * What a store holds that nothing needs any more, and its removal. Needed is what the manifests of any run or panel lead to (`reach.ts`), less what a run
 * gave up (`retention.ts`). Nothing is removed that is younger than the grace period, and nothing at all while something is missing of a run that keeps its bulk.
 *
 * It may run beside live runs and be killed at any moment. It works in two phases: what the first look finds is removed only if a second look, at
 * everything written since, finds it too, and if it is still old when its turn comes (`sweep.ts`). What a run gives up is stated before it is removed.
 */
import type { SigningKey } from './attestation.ts';
import { forEachBounded } from './bounded.ts';
import { Reach, type Listed } from './reach.ts';
import type { RecordRef } from './record.ts';
import { giveUp, givenUpKey, pinKey, readGivenUp, readGivenUpList } from './retention.ts';
import { checkpointsFolder, checkpointOwner, keysFolder, listRuns, parseRecord, recordsFolder, runKey, stagesFolder } from './run-log.ts';
import { objectKey, type ArtifactStore, type CallOptions } from './store.ts';
import { LEAST_GRACE_MS, Sweep } from './sweep.ts';
import { badInput } from '../core/errors.ts';
import { sha256, type Sha256 } from '../core/digest.ts';

/** A machine that was asleep over a long weekend may wake and commit what it stored before. */
export const DEFAULT_GRACE_MS = 7 * 24 * 3600_000;
/** Small requests under way at a time. */
const AT_ONCE = 8;
/** Enough of an object to see whether it is a checkpoint, and of what. */
const HEADER_BYTES = 256;
/** What others than its work write beside a run, and the keys that signed. */
const NOTES = ['pin.json', 'given-up.json', 'ended.json'];

/**
 * - `attempt`: stored by an attempt that was killed, failed or was overtaken before it committed what refers to it.
 * - `checkpoint`: of a stage that is over, or left by a killed attempt.
 * - `given up`: bulk of a run that gave it up.
 * - `probe`: of a check at launch that was killed.
 */
export type Why = 'attempt' | 'checkpoint' | 'given up' | 'probe';

export interface Removable {
  key: string;
  bytes: number;
  why: Why;
  /** Where it is known. */
  run: string | null;
}

export interface Amount {
  objects: number;
  bytes: number;
}

export interface GcReport {
  /** Every run in the store; `givenUp`: its bulk was, or would be, given up. */
  runs: { run: string; pinned: boolean; givenUp: boolean }[];
  /** Launched and without a record: whatever was stored since their launch is kept, because it may be theirs, and so is bulk that was given up: a fork needs its parent's. */
  unbegun: string[];
  kept: Amount;
  /** Not referred to, and younger than the grace period. */
  young: Amount;
  /** What may go; after `apply`, what went. */
  removed: Removable[];
  applied: boolean;
}

export interface GcOptions extends CallOptions {
  /** At least `LEAST_GRACE_MS`. */
  graceMs: number;
  /** Runs whose bulk is given up. */
  drop: readonly string[];
  /** Asked of each after looking through the store, which takes its time, and of all before any is stated; throws where one may not be dropped, which ends all. */
  mayDrop: (run: string) => Promise<void>;
  /** Null: only look. Else who removes, and the key that signs what is given up. */
  apply: { by: string; key: SigningKey } | null;
  onProgress?: (progress: { what: string; done: number; total: number }) => void;
}

/** Throws BadInput for too short a grace period or a run that cannot be dropped, Corrupt for a store in which something is missing, Unavailable while another removes; nothing is removed then. */
export async function collectGarbage(store: ArtifactStore, options: GcOptions): Promise<GcReport> {
  const { graceMs, apply } = options;
  if (!(graceMs >= LEAST_GRACE_MS)) throw badInput('grace period', graceMs, `at least ${LEAST_GRACE_MS} ms`);
  const call: CallOptions = options.signal ? { signal: options.signal } : {};
  // At once, to say so before the store is looked through.
  if (apply !== null) await (await Sweep.announce(store, call)).sweep.end();
  const reach = new Reach(store, call);
  const first = await look(store, reach, options, call);
  if (apply === null) return { ...first.report, applied: false };
  // All are asked of before any is stated, which cannot be taken back.
  for (const run of first.dropped.keys()) {
    await options.mayDrop(run);
    checkDrop([await folderOf(store, run, call)], [run], [], graceMs);
  }
  for (const [run, { head, bulk }] of first.dropped) await giveUp(store, run, { head, objects: bulk, by: apply.by }, apply.key, call);
  const found = new Set(first.report.removed.map(({ key }) => key));
  const second = await look(store, reach, { ...options, drop: [] }, call);
  const both = second.report.removed.filter(({ key }) => found.has(key));
  const removed = await sweep(store, both, second.heldSince, options, call);
  return { ...second.report, removed, applied: true };
}

/** Removes what is still as old as it was, checkpoints' manifests before their objects: what a manifest names must be there for as long as it is. */
async function sweep(
  store: ArtifactStore,
  removable: readonly Removable[],
  heldSince: number,
  { graceMs, onProgress }: GcOptions,
  call: CallOptions,
): Promise<Removable[]> {
  const removed: Removable[] = [];
  if (removable.length === 0) return removed;
  const { sweep: announced, startedAt } = await Sweep.announce(store, call);
  const oldest = Math.min(Date.now(), startedAt.getTime(), heldSince) - graceMs;
  const isObject = ({ key }: Removable) => key.startsWith('objects/');
  for (const batch of [removable.filter((each) => !isObject(each)), removable.filter(isObject)]) {
    await forEachBounded(batch, AT_ONCE, async (each) => {
      if (!(await announced.remove(each.key, oldest, call))) return;
      removed.push(each);
      onProgress?.({ what: 'removed', done: removed.length, total: removable.length });
    });
  }
  await announced.end();
  return removed.sort((a, b) => (a.key < b.key ? -1 : 1));
}

interface Dropped {
  head: RecordRef | null;
  bulk: Map<Sha256, number>;
}

interface Look {
  report: Omit<GcReport, 'applied'>;
  dropped: Map<string, Dropped>;
  /** Milliseconds since 1970: what was stored since is kept, however long ago that was. */
  heldSince: number;
}

/** What lies under a run's folder, by kind. */
interface RunFolder {
  run: string;
  launchedAt: Date | null;
  records: string[];
  stages: Set<string>;
  checkpoints: { key: string; intent: string; listed: Listed }[];
  /** Everything that may refer to objects, the above but checkpoints included. */
  manifests: string[];
  pinned: boolean;
  givenUp: boolean;
  /** When its work last wrote anything, in milliseconds since 1970 by the store's clock. */
  lastWrittenAt: number;
}

async function look(store: ArtifactStore, reach: Reach, options: GcOptions, call: CallOptions): Promise<Look> {
  const { graceMs, drop, onProgress } = options;
  // The objects first: what is stored and committed from here on is not among those that may go.
  await reach.list();
  const folders: RunFolder[] = [];
  for (const run of await listRuns(store, call)) folders.push(await folderOf(store, run, call));
  const unbegun = folders.filter(
    ({ run, launchedAt, records, givenUp }) => launchedAt && records.length === 0 && !givenUp && !drop.includes(run),
  );
  checkDrop(folders, drop, unbegun, graceMs);
  const heldSince = Math.min(Date.now(), ...unbegun.map(({ launchedAt }) => (launchedAt as Date).getTime()));
  const oldest = heldSince - graceMs;
  const isOld = ({ lastModified }: Listed) => lastModified.getTime() <= oldest;

  const needed = await panelsNeed(store, reach, call);
  const dropped = new Map<string, Dropped>();
  const bulkOf = new Map<Sha256, string>();
  const removed: Removable[] = [];
  for (const [at, folder] of folders.entries()) {
    onProgress?.({ what: 'runs looked through', done: at, total: folders.length });
    const { run } = folder;
    const stated = folder.givenUp ? await readGivenUp(store, run, call) : null;
    const gone = stated ? await readGivenUpList(store, stated, call) : new Map<Sha256, number>();
    const manifests = await reach.read(folder.manifests);
    const { head, lastOutcomeAt } = await recordsOf(store, folder, manifests, call);
    const over = ({ intent, listed }: RunFolder['checkpoints'][number]) =>
      folder.givenUp || drop.includes(run) || folder.stages.has(intent) || listed.lastModified.getTime() < lastOutcomeAt;
    const scaffolding = await reach.read(folder.checkpoints.filter((each) => !(over(each) && isOld(each.listed))).map(({ key }) => key));
    for (const each of folder.checkpoints)
      if (over(each) && isOld(each.listed)) removed.push({ key: each.key, bytes: each.listed.bytes, why: 'checkpoint', run });

    const reached = await reach.of(manifests, stated || drop.includes(run) ? null : gone);
    if (drop.includes(run) && !stated) {
      for (const digest of reached) if (!reach.isJson(digest)) gone.set(digest, (reach.listed.get(digest) as Listed).bytes);
      dropped.set(run, { head, bulk: gone });
    }
    for (const digest of gone.keys()) bulkOf.set(digest, run);
    for (const digest of reached) if (!gone.has(digest)) needed.add(digest);
    if (stated) needed.add(stated.list.sha256);
    for (const digest of await checkpointsNeed(reach, scaffolding)) needed.add(digest);
  }

  const kept: Amount = { objects: 0, bytes: 0 };
  const young: Amount = { objects: 0, bytes: 0 };
  const garbage: [Sha256, Listed][] = [];
  for (const [digest, listed] of reach.listed) {
    const held = needed.has(digest) || (unbegun.length > 0 && bulkOf.has(digest));
    const amount = held ? kept : isOld(listed) ? null : young;
    if (amount === null) garbage.push([digest, listed]);
    else {
      amount.objects++;
      amount.bytes += listed.bytes;
    }
  }
  await forEachBounded(garbage, AT_ONCE, async ([digest, { bytes }]) => {
    const key = objectKey(digest);
    const from = bulkOf.get(digest);
    const start = from === undefined && bytes > 0 ? await store.readStart(key, HEADER_BYTES, call) : null;
    const owner = start && checkpointOwner(start);
    removed.push({
      key,
      bytes,
      ...(from !== undefined ? { why: 'given up', run: from } : owner ? { why: 'checkpoint', run: owner } : { why: 'attempt', run: null }),
    });
  });
  for await (const { key, bytes, lastModified } of store.list('probe/', call))
    if (isOld({ bytes, lastModified })) removed.push({ key, bytes, why: 'probe', run: null });
  removed.sort((a, b) => (a.key < b.key ? -1 : 1));

  const runs = folders.map(({ run, pinned, givenUp }) => ({ run, pinned, givenUp: givenUp || drop.includes(run) }));
  return { report: { runs, unbegun: unbegun.map(({ run }) => run), kept, young, removed }, dropped, heldSince };
}

/** From the store alone: whoever schedules a run may be unknown here, but a run under way writes. What is so young would not be removed yet anyway. */
function checkDrop(folders: readonly RunFolder[], drop: readonly string[], unbegun: readonly RunFolder[], graceMs: number): void {
  for (const run of drop) {
    const folder = folders.find((each) => each.run === run);
    if (!folder) throw badInput('run', run, 'a run that is in the store (see `ratchet ls`)');
    if (folder.pinned) throw badInput('run', run, `a run that is not pinned; \`ratchet unpin ${run}\` first`);
    if (!folder.givenUp && folder.lastWrittenAt > Date.now() - graceMs)
      throw badInput(
        'run',
        run,
        `a run in which nothing was written for the grace period of ${graceMs / 3600_000} h; this one wrote at ${new Date(folder.lastWrittenAt).toISOString()}, so it may be under way, here or elsewhere`,
      );
  }
  const [waiting] = unbegun;
  // A fork writes what it goes on from into its first record; until then nothing in the store says whose objects it needs.
  if (drop.length > 0 && waiting)
    throw badInput(
      'run',
      drop[0],
      `nothing is given up while run ${waiting.run} is launched and has no record: it may go on from it. Start it, or drop it too`,
    );
}

/** When the work of a run last wrote anything (milliseconds since 1970, by the store's clock); 0 where there is none. */
export async function lastWrittenAt(store: ArtifactStore, run: string, call: CallOptions = {}): Promise<number> {
  return (await folderOf(store, run, call)).lastWrittenAt;
}

async function folderOf(store: ArtifactStore, run: string, call: CallOptions): Promise<RunFolder> {
  const folder: RunFolder = {
    run,
    launchedAt: null,
    records: [],
    stages: new Set(),
    checkpoints: [],
    manifests: [],
    pinned: false,
    givenUp: false,
    lastWrittenAt: 0,
  };
  const [stages, checkpoints, records] = [stagesFolder(run), checkpointsFolder(run), recordsFolder(run)];
  const root = runKey(run).slice(0, -'run.json'.length);
  for await (const { key, bytes, lastModified } of store.list(root, call)) {
    const name = key.slice(root.length);
    if (!NOTES.includes(name) && !key.startsWith(keysFolder(run)))
      folder.lastWrittenAt = Math.max(folder.lastWrittenAt, lastModified.getTime());
    if (key.startsWith(checkpoints)) {
      const intent = key.slice(checkpoints.length).split('/')[0] as string;
      folder.checkpoints.push({ key, intent, listed: { bytes, lastModified } });
      continue;
    }
    if (key === pinKey(run)) folder.pinned = true;
    else if (key === givenUpKey(run)) folder.givenUp = true;
    else folder.manifests.push(key);
    if (key === runKey(run)) folder.launchedAt = lastModified;
    if (key.startsWith(records)) folder.records.push(key);
    if (key.startsWith(stages)) folder.stages.add(key.slice(stages.length, -'.json'.length));
  }
  return folder;
}

/** The head of the chain, and when the newest outcome was written (milliseconds since 1970): stages that were under way before are over. */
async function recordsOf(
  store: ArtifactStore,
  { records }: RunFolder,
  manifests: readonly { key: string; bytes: Uint8Array }[],
  call: CallOptions,
): Promise<{ head: RecordRef | null; lastOutcomeAt: number }> {
  const bytesOf = new Map(manifests.map(({ key, bytes }) => [key, bytes]));
  let head: RecordRef | null = null;
  let outcome: string | null = null;
  for (const key of records.toSorted()) {
    const bytes = bytesOf.get(key) ?? new Uint8Array();
    const { index, kind } = parseRecord(key, bytes);
    head = { index, sha256: sha256(bytes) };
    if (kind === 'outcome') outcome = key;
  }
  const written = outcome === null ? null : await store.stat(outcome, call);
  return { head, lastOutcomeAt: written?.lastModified.getTime() ?? 0 };
}

/** Panels that were drawn by hand are kept with their games. */
async function panelsNeed(store: ArtifactStore, reach: Reach, call: CallOptions): Promise<Set<Sha256>> {
  const keys: string[] = [];
  for await (const { key } of store.list('panels/', call)) keys.push(key);
  return reach.of(await reach.read(keys), new Map());
}

/** The objects of checkpoints that are kept, and what their state mentions: candidates that an update has stored and not yet committed. */
async function checkpointsNeed(reach: Reach, scaffolding: readonly { key: string; bytes: Uint8Array }[]): Promise<Set<Sha256>> {
  // A checkpoint may be replaced by the next at any moment; it is then as if it had not been listed.
  const named = [
    ...new Set(
      scaffolding.flatMap(
        ({ bytes }) =>
          Buffer.from(bytes)
            .toString()
            .match(/\b[0-9a-f]{64}\b/g) ?? [],
      ),
    ),
  ];
  const inside = await reach.insideOf(named);
  const mentioned = { key: 'checkpoints', bytes: Buffer.from([...inside].join('\n')) };
  return new Set([...named, ...(await reach.of([mentioned], new Map()))]);
}
