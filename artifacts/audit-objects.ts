/**
 * The audit's walk over stored objects: from the references of the records through everything that JSON objects refer to. Each object is read once and
 * hashed; JSON and Parquet are opened, everything else is only hashed.
 */
import { parquetMetadata } from 'hyparquet';
import { canonicalJson, digestJson } from '../core/digest.ts';
import { RatchetError } from '../core/errors.ts';
import { isDigest, isEpisodeSet, isEvaluated, isEvaluation, isGathered, isModel, isObject, isPlan, isRef, walk } from './audit-shapes.ts';
import type { Account, EpisodeSet, Evaluated, Evaluation, Link, Plan } from './audit-shapes.ts';
import { forEachBounded } from './bounded.ts';
import { CorruptObject } from './corrupt-object.ts';
import { EPISODE_COLUMNS } from './episodes-file.ts';
import { objectKey, type ArtifactStore, type CallOptions } from './store.ts';
import { readTable } from './table.ts';

/** One thing that is wrong: what it is about, where, and how it should be. */
export interface Problem {
  what: string;
  key: string;
  expected: string;
  found: string;
}

/** What the Parquet tables of one shard really hold. */
export interface TableFacts {
  rows: number;
  /** Only of episode tables. */
  counts: Account | null;
  /** Who acted in the completed episodes. */
  policies: string[];
  /** An episode id that occurs twice, or null. */
  duplicate: string | null;
}

/** Everything that the walk learnt, by digest of the object. */
export interface Findings {
  problems: Problem[];
  /** Size of every object that was read and hashes to its name. */
  sound: Map<string, number>;
  bytes: number;
  /** Objects that need not be there, because the run gave them up, and those of them that are not. */
  givenUp: ReadonlyMap<string, number>;
  absent: Set<string>;
  tables: Map<string, TableFacts>;
  sets: Map<string, EpisodeSet>;
  plans: Map<string, Plan>;
  evaluations: Map<string, Evaluation>;
  /** Statements met in records and objects, with the key of where they stand. */
  evaluated: { key: string; value: Evaluated }[];
  gathered: { key: string; value: { set: { sha256: string }; account: Account } }[];
}

/** Objects under way at a time: enough to keep a disk or network busy. */
const READS_AT_ONCE = 8;
/** JSON and Parquet up to here are opened; with `READS_AT_ONCE` of them the audit stays below 1 GiB. Larger ones are hashed and reported as not opened. */
const LARGEST_OPENED_BYTES = 64 * 1024 * 1024;

export function newFindings(): Findings {
  return {
    problems: [],
    sound: new Map(),
    bytes: 0,
    givenUp: new Map(),
    absent: new Set(),
    tables: new Map(),
    sets: new Map(),
    plans: new Map(),
    evaluations: new Map(),
    evaluated: [],
    gathered: [],
  };
}

/** Notes what a JSON value at `key` states, and returns what it refers to. */
export function study(findings: Findings, key: string, value: unknown): Link[] {
  const links: Link[] = [];
  walk(value, (found) => {
    if (isRef(found)) links.push(found);
    if (isModel(found)) {
      const { config, weights, tokenizer } = found.files;
      const named = digestJson([config.sha256, weights.sha256, tokenizer.sha256]);
      if (named !== found.sha256) findings.problems.push({ what: 'name of a model', key, expected: named, found: found.sha256 });
    }
    if (isGathered(found)) findings.gathered.push({ key, value: found });
    if (isEvaluated(found)) {
      findings.evaluated.push({ key, value: found });
      if (isDigest(found.episodes)) links.push({ key: objectKey(found.episodes), sha256: found.episodes, bytes: null });
    }
  });
  return links;
}

/** Visits everything that `roots` lead to. Level by level, so that problems come in the same order every time however the reads interleave. */
export async function visitAll(
  store: ArtifactStore,
  roots: Link[],
  findings: Findings,
  onObject: (visited: number, known: number) => void,
  options: CallOptions,
): Promise<void> {
  const known = new Map<string, Link>();
  const repeated: Link[] = [];
  const fresh = (links: Link[]) =>
    links.filter((link) => {
      const name = `${link.key} ${link.sha256}`;
      if (known.has(name)) repeated.push(link);
      else known.set(name, link);
      return known.get(name) === link;
    });
  let visited = 0;
  let level = fresh(roots);
  while (level.length > 0) {
    const problems: Problem[][] = level.map(() => []);
    const next: Link[][] = level.map(() => []);
    await forEachBounded(level.entries(), READS_AT_ONCE, async ([at, link]) => {
      const opened = await open(store, link, problems[at] as Problem[], findings, options);
      if (opened) next[at] = opened;
      onObject(++visited, known.size);
    });
    findings.problems.push(...problems.flat());
    level = fresh(next.flat());
  }
  for (const { key, sha256, bytes } of repeated) {
    const size = findings.sound.get(sha256);
    if (size !== undefined && bytes !== null && bytes !== size) {
      findings.problems.push({ what: 'size in a reference', key, expected: `${size} bytes`, found: `${bytes} bytes` });
    }
  }
}

async function open(
  store: ArtifactStore,
  link: Link,
  problems: Problem[],
  findings: Findings,
  options: CallOptions,
): Promise<Link[] | null> {
  const { key, sha256 } = link;
  if (key !== objectKey(sha256)) problems.push({ what: 'name of an object', key, expected: objectKey(sha256), found: key });
  if (findings.givenUp.has(sha256) && (await store.size(key, options)) === null) {
    findings.absent.add(sha256);
    return null;
  }
  const bytes = link.bytes ?? (await store.size(key, options));
  const content = bytes === null ? null : await read(store, { key, sha256, bytes }, problems, options);
  if (bytes === null) problems.push({ what: 'object', key, expected: `bytes with SHA-256 ${sha256}`, found: 'it is missing' });
  if (bytes === null || content === null || findings.sound.has(sha256)) return null;
  findings.sound.set(sha256, bytes);
  findings.bytes += bytes;
  try {
    if (content.kind === 'parquet') findings.tables.set(sha256, await factsOf(content.bytes));
    if (content.kind === 'json') return openJson(key, sha256, content.bytes, findings);
  } catch (error) {
    if (!(error instanceof RatchetError)) throw error;
    problems.push({ what: 'table', key, expected: 'a readable Parquet table', found: error.message });
  }
  return null;
}

type Content = { kind: 'json' | 'parquet'; bytes: Uint8Array } | { kind: 'other' };

/** Hashes the object as it comes and keeps it if it is to be opened; null when it is damaged. */
async function read(
  store: ArtifactStore,
  ref: { key: string; sha256: string; bytes: number },
  problems: Problem[],
  options: CallOptions,
): Promise<Content | null> {
  let kind: 'json' | 'parquet' | 'other' | null = null;
  const kept: Uint8Array[] = [];
  try {
    for await (const chunk of store.getStream(ref, options)) {
      kind ??= chunk[0] === 0x7b || chunk[0] === 0x5b ? 'json' : chunk[0] === 0x50 ? 'parquet' : 'other'; // {, [ and P (of PAR1)
      if (kind !== 'other' && ref.bytes <= LARGEST_OPENED_BYTES) kept.push(chunk);
    }
  } catch (error) {
    if (!(error instanceof CorruptObject)) throw error;
    problems.push({ what: 'object', key: error.key, expected: error.expected, found: error.found });
    return null;
  }
  if (kind !== 'json' && kind !== 'parquet') return { kind: 'other' };
  const bytes = Buffer.concat(kept);
  if (bytes.length < ref.bytes) {
    problems.push({
      what: 'size of an object to open',
      key: ref.key,
      expected: `at most ${LARGEST_OPENED_BYTES} bytes`,
      found: `${ref.bytes} bytes`,
    });
    return null;
  }
  return kind === 'parquet' && bytes.toString('latin1', 0, 4) !== 'PAR1' ? { kind: 'other' } : { kind, bytes };
}

/** Bytes that begin like JSON and are not are somebody's binary format: their digest is all there is to check. */
function openJson(key: string, sha256: string, bytes: Uint8Array, findings: Findings): Link[] {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return [];
    throw error;
  }
  if (isObject(value)) {
    if (isEpisodeSet(value)) findings.sets.set(sha256, value);
    else if (isPlan(value)) findings.plans.set(sha256, value);
    else if (isEvaluation(value)) findings.evaluations.set(sha256, value);
  }
  return study(findings, key, value);
}

async function factsOf(file: Uint8Array): Promise<TableFacts> {
  let rows: number;
  let columns: string;
  try {
    const { num_rows, schema } = parquetMetadata(new Uint8Array(file).buffer);
    rows = Number(num_rows);
    columns = schema
      .slice(1)
      .map(({ name }) => name)
      .join();
  } catch (error) {
    throw new RatchetError('Corrupt', (error as Error).message, { cause: error });
  }
  const facts: TableFacts = { rows, counts: null, policies: [], duplicate: null };
  if (columns !== Object.keys(EPISODE_COLUMNS).join()) return facts;
  const table = await readTable(EPISODE_COLUMNS, file);
  const ended = (kind: string) => table.ending.filter((ending) => ending === kind).length;
  const completed = table.ending.map((ending) => ending === 'completed');
  facts.counts = {
    dispatched: rows,
    completed: ended('completed'),
    failed: ended('failed'),
    abandoned: ended('abandoned'),
    successes: table.outcome.reduce((sum, outcome, row) => sum + (completed[row] ? outcome : 0), 0),
    turnCount: table.turns.reduce((sum, turns) => sum + turns, 0),
  };
  facts.policies = [...new Set(table.policy.filter((_, row) => completed[row]))].sort();
  const seen = new Set<string>();
  facts.duplicate = table.episode.find((id) => seen.size === seen.add(id).size) ?? null;
  return facts;
}

/** A manifest that must be canonical JSON; null after reporting why it is not. */
export async function readCanonical(
  store: ArtifactStore,
  key: string,
  what: string,
  problems: Problem[],
  call: CallOptions,
): Promise<object | null> {
  const bytes = await store.readBytes(key, call);
  const expected = 'canonical JSON (RFC 8785)';
  if (!bytes) {
    problems.push({ what, key, expected, found: 'it is missing' });
    return null;
  }
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    const value: unknown = JSON.parse(text);
    if (isObject(value) && canonicalJson(value) === text) return value;
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TypeError)) throw error;
    problems.push({ what, key, expected, found: error.message });
    return null;
  }
  problems.push({ what, key, expected, found: `${bytes.length} bytes of another form` });
  return null;
}
