/**
 * The directory in which one machine's servers live (`.ratchet/`): where each thing is kept, the record of what runs, and the S3 credentials.
 * It refuses to let anybody but the owner read it, and to write a file that a reader could see half of.
 */
import { randomBytes } from 'node:crypto';
import { chmod, link, mkdir, readFile, rename, rm, statfs, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { RatchetError } from '../core/errors.ts';
import type { Environment } from './endpoints.ts';
import { withLock } from './lock.ts';
import type { ProcessIdentity } from './processes.ts';

export type ServerName = 'temporal' | 's3';

/**
 * - `starting`: spawned, not yet answering. - `running`: answered. - `restarting`: died or hung, and is being started again.
 * - `waiting`: cannot be started until the cause in `reason` is gone. - `failed`: given up. - `stopped`: ended on request.
 */
export type ServerState = 'starting' | 'running' | 'restarting' | 'waiting' | 'failed' | 'stopped';

/** What is remembered of one server, so that another process, or a later one, finds it, adopts it or starts it again as it was. */
export interface ServerRecord {
  port: number;
  /** Ports of the web UI and of the HTTP API, which tells whether the frontend works; Temporal only. */
  uiPort?: number;
  httpPort?: number;
  process: ProcessIdentity | null;
  state: ServerState;
  /** Why it is in this state, where that needs saying. */
  reason: string | null;
  /** How often it was started again after dying or hanging, since it was last brought up on request. */
  restarts: number;
  binary: string;
  version: string;
  /** S3 only: metadata beside the objects instead of in extended attributes. Fixed with the first object. */
  sidecar?: boolean;
}

export interface ServersUser extends ProcessIdentity {
  token: string;
  /** It keeps nothing up for others: it needs the servers for the time of one command. */
  borrows?: boolean;
}

export interface HomeRecord {
  layout: 1;
  /** False after `stopServers`: supervisors then let the servers rest. */
  wanted: boolean;
  /** The processes that use these servers; the last one to leave ends them. */
  users: ServersUser[];
  bucket: string;
  temporal?: ServerRecord;
  s3?: ServerRecord;
}

export interface Credentials {
  accessKeyId: string;
  secretAccessKey: string;
}

/** Work under the lock is a few file operations and at most a bounded wait for a port or for a process to end. */
const LOCK_BOUND_MS = 90_000;
const OWNER_ONLY_FILE = 0o600;
const OWNER_ONLY_DIRECTORY = 0o700;

/** `$RATCHET_HOME`, else `.ratchet` in the current directory; absolute. */
export function ratchetHome(env: Environment = process.env, directory: string = process.cwd()): string {
  return resolve(directory, env['RATCHET_HOME'] || '.ratchet');
}

/** All ports of a server. */
export function portsOf({ port, uiPort, httpPort }: ServerRecord): number[] {
  return [port, uiPort, httpPort].filter((each) => each !== undefined);
}

export function homePaths(home: string) {
  const root = resolve(home);
  return {
    root,
    record: join(root, 'servers.json'),
    credentials: join(root, 'credentials.json'),
    /** The Ed25519 key that this machine signs attestations with. */
    signingKey: join(root, 'keys', 'signing.pem'),
    lock: join(root, 'lock'),
    temporalDatabase: join(root, 'temporal', 'temporal.db'),
    s3Data: join(root, 's3', 'data'),
    s3Sidecar: join(root, 's3', 'sidecar'),
    log: (name: ServerName) => join(root, 'logs', `${name}.log`),
  };
}

export async function makeHome(home: string): Promise<void> {
  const paths = homePaths(home);
  await mkdir(paths.root, { recursive: true, mode: OWNER_ONLY_DIRECTORY });
  // An older or a hand-made directory may be open to others.
  await chmod(paths.root, OWNER_ONLY_DIRECTORY);
  for (const part of ['temporal', 's3', 's3/data', 's3/sidecar', 'logs'])
    await mkdir(join(paths.root, part), { recursive: true, mode: OWNER_ONLY_DIRECTORY });
}

/** null where nothing was ever started here. Throws Corrupt for a record that is not one. */
export async function readHome(home: string): Promise<HomeRecord | null> {
  const path = homePaths(home).record;
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
  try {
    const record = JSON.parse(text) as HomeRecord;
    if (record.layout === 1 && Array.isArray(record.users)) return record;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw new RatchetError('Corrupt', `${path} is not a record of servers; stop the servers of this directory by hand, then remove the file`);
}

/** Reads, changes and writes the record while no other process does. Returns what `change` returns. */
export async function changeHome<T>(home: string, change: (record: HomeRecord) => T | Promise<T>): Promise<T> {
  const paths = homePaths(home);
  return await withLock(paths.lock, { boundMs: LOCK_BOUND_MS }, async () => {
    const record = (await readHome(home)) ?? { layout: 1, wanted: false, users: [], bucket: '' };
    const before = JSON.stringify(record);
    const result = await change(record);
    if (JSON.stringify(record) !== before) await writeWhole(paths.record, `${JSON.stringify(record, null, 2)}\n`);
    return result;
  });
}

/** The root credentials of this directory's S3 server: made once, at random, in a file that only its owner can read. */
export async function homeCredentials(home: string): Promise<Credentials> {
  const path = homePaths(home).credentials;
  const existing = await readCredentials(home);
  if (existing) {
    await chmod(path, OWNER_ONLY_FILE);
    return existing;
  }
  const made: Credentials = {
    accessKeyId: `RATCHET${randomBytes(7).toString('hex').toUpperCase()}`,
    secretAccessKey: randomBytes(30).toString('base64url'),
  };
  const draft = `${path}.${randomBytes(6).toString('hex')}`;
  await writeFile(draft, `${JSON.stringify(made, null, 2)}\n`, { mode: OWNER_ONLY_FILE, flag: 'wx' });
  try {
    // Unlike a rename, a link does not replace credentials that another process made meanwhile.
    await link(draft, path);
    return made;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    return (await readCredentials(home))!;
  } finally {
    await rm(draft, { force: true });
  }
}

export async function readCredentials(home: string): Promise<Credentials | null> {
  const path = homePaths(home).credentials;
  try {
    const { accessKeyId, secretAccessKey } = JSON.parse(await readFile(path, 'utf8')) as Partial<Credentials>;
    if (accessKeyId && secretAccessKey) return { accessKeyId, secretAccessKey };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw new RatchetError('Corrupt', `${path} holds no credentials; restore it, or remove it together with ${homePaths(home).s3Data}`);
}

/** Bytes that an unprivileged process can still write in the file system of this directory. */
export async function freeBytes(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize;
}

async function writeWhole(path: string, text: string): Promise<void> {
  const draft = `${path}.${randomBytes(6).toString('hex')}`;
  try {
    await writeFile(draft, text, { mode: OWNER_ONLY_FILE });
    await rename(draft, path);
  } finally {
    await rm(draft, { force: true });
  }
}
