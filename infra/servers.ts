/**
 * The servers for one machine: Temporal and an S3 server, found or started, and kept alive while somebody uses them. Start reading here.
 * It refuses to start what the environment says runs elsewhere, and to stop servers that another process still uses.
 */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { RatchetError } from '../core/errors.ts';
import { DEFAULT_NAMESPACE, DEFAULT_REGION, bucketFromEnvironment, s3FromEnvironment, temporalFromEnvironment } from './endpoints.ts';
import type { Endpoints, Environment, S3Endpoint, TemporalEndpoint } from './endpoints.ts';
import { ensureBucket, ensureTemporal } from './external.ts';
import { changeHome, freeBytes, homeCredentials, homePaths, makeHome, readCredentials, readHome } from './home.ts';
import type { Credentials, HomeRecord, ServerName, ServerRecord, ServerState, ServersUser } from './home.ts';
import { endServer, logTail, serverHealthy, startServer } from './local-servers.ts';
import { LOOPBACK } from './ports.ts';
import { isAlive, thisProcess } from './processes.ts';
import type { OnProgress } from './progress.ts';
import { TEMPORAL, VERSITYGW } from './programs.ts';
import { resolveProgram } from './resolve.ts';
import type { FoundProgram } from './resolve.ts';
import { createSupervisor } from './supervisor.ts';
import type { ProcessEvent } from './supervisor.ts';

export { endpointEnvironment, endpointsFromEnvironment } from './endpoints.ts';
export type { Endpoints } from './endpoints.ts';
export { ratchetHome } from './home.ts';
export type { ProcessEvent } from './supervisor.ts';

export interface EnsureOptions {
  /** Directory of data, logs and credentials; see `ratchetHome`. */
  home: string;
  onProgress: OnProgress;
  /** Names servers that run elsewhere, the cache and the release site. Absent: this process's. */
  env?: Environment;
  /** For the time of one command: nobody else should count on them; see `serversBorrowed`. */
  borrow?: boolean;
  /** Not wanted any more: what was started meanwhile is ended, and Stopped is thrown. Once the servers are there only `stop` ends them. */
  signal?: AbortSignal;
}

export interface Servers {
  endpoints: Endpoints;
  /** Of the servers on this machine; absent for those that run elsewhere. Changes with a restart. */
  readonly pids: { temporal?: number; s3?: number };
  /** Every death, restart and surrender. Returns a function that ends the listening. */
  onExit(listener: (event: ProcessEvent) => void): () => void;
  /** Ends this use, and the servers with it unless another living process uses them. */
  stop(): Promise<void>;
  /** Ends this use and leaves the servers running, unwatched until somebody uses them again. */
  release(): Promise<void>;
}

/** What one of the servers is doing, for whoever did not start it. */
export interface ServerStatus {
  /** `external`: named by the environment; not looked at here. `down`: recorded as running, but dead, and nobody watches. */
  state: ServerState | 'external' | 'down' | 'absent';
  reason: string | null;
  pid: number | null;
  restarts: number;
}

export interface ServersStatus {
  temporal: ServerStatus;
  s3: ServerStatus;
  /** Free bytes where the servers keep their data; null where nothing is kept. `full`: restarts wait for space. */
  disk: { freeBytes: number; full: boolean } | null;
}

const NAMES: readonly ServerName[] = ['s3', 'temporal'];
/** Below this a database or a log can fail to grow in the middle of a start. */
const FULL_DISK_BYTES = 32 << 20;
/** A version is told in 50 ms, and Go ends within a second or two when it is interrupted; a download ends with this process. */
const ABANDON_BOUND_MS = 5_000;
/** Lines of a server's log that a failure to start shows. */
const SHOWN_LOG_LINES = 5;

/**
 * Temporal and S3, ready: reachable, with namespace, search attributes and bucket. Those that the environment names are checked, the others are
 * adopted where they run already or started, and kept alive until `stop`. Throws Unavailable with what was tried, BadInput for an address
 * that could not be one.
 */
export async function ensureServers({ home: directory, onProgress, env = process.env, borrow, signal }: EnsureOptions): Promise<Servers> {
  const home = resolve(directory);
  const named = { temporal: temporalFromEnvironment(env), s3: s3FromEnvironment(env) };
  const local = NAMES.filter((name) => !named[name]);
  const bucket = bucketFromEnvironment(env);
  if (named.s3) await ensureBucket(named.s3);
  if (named.temporal) await ensureTemporal(named.temporal);
  if (local.length === 0) return withoutServers({ temporal: named.temporal!, s3: named.s3! });

  await makeHome(home);
  const me: ServersUser = { ...(await thisProcess()), token: randomBytes(12).toString('hex'), ...(borrow && { borrows: true }) };
  const supervisor = createSupervisor();
  let finding: Promise<unknown> = Promise.resolve();
  try {
    const programs = programFinder(env, onProgress, signal);
    const running = await changeHome(home, (record) => enter(record, me, bucket));
    // In this order: the small one first. What cannot be had is known before anything is started.
    for (const name of local) if (!running.has(name)) await unlessAborted(signal, (finding = programs[name]()));

    let writing: Promise<void> = Promise.resolve();
    supervisor.onEvent((event) => {
      if (event.kind !== 'ready') onProgress({ step: event.name, detail: `${event.kind}: ${event.detail}` });
      writing = writing
        .then(() => writeEvent(home, event))
        .catch((error: unknown) => {
          // The disk may be full, which is what the event may be about: who supervises is told, the record stays behind.
          onProgress({ step: event.name, detail: `cannot be recorded: ${(error as Error).message}` });
        });
    });
    const supervised = local.map((name) =>
      supervisor.supervise({
        name,
        start: () => startServer(home, name, programs[name]),
        healthy: async () => {
          const record = (await readHome(home))?.[name];
          return record !== undefined && (await serverHealthy(record, name));
        },
        blocked: async () => {
          const free = await freeBytes(home);
          return free < FULL_DISK_BYTES ? diskFull(home, free) : null;
        },
      }),
    );
    const ready = local.map((name, i) =>
      supervised[i]!.ready.catch(async (error) => Promise.reject(await explained(home, name, error as Error))),
    );
    await unlessAborted(signal, Promise.all(ready));
    await writing;
    const endpoints = endpointsOf(named, await readHome(home), named.s3 ? null : await homeCredentials(home));
    if (!endpoints) throw new RatchetError('Unavailable', `the servers of ${home} ended while they were being started`);
    if (!named.s3) await ensureBucket(endpoints.s3);

    // Who asks a second time waits for the first: whoever ends the process then must not do it half-way.
    let leaving: Promise<void> | undefined;
    const leave = (stopUnused: boolean): Promise<void> =>
      (leaving ??= (async () => {
        await supervisor.stop({ leave: true });
        await writing;
        await leaveHome(home, me, stopUnused, onProgress);
      })());
    return {
      endpoints,
      get pids() {
        return Object.fromEntries(supervised.flatMap(({ name, pid }) => (pid === undefined ? [] : [[name, pid]])));
      },
      onExit: (listener) => supervisor.onEvent(listener),
      stop: () => leave(true),
      release: () => leave(false),
    };
  } catch (error) {
    // A program that is asked for its version or built at this moment would outlive a caller who ends now.
    await settled(finding, ABANDON_BOUND_MS);
    await supervisor.stop({ leave: true });
    await leaveHome(home, me, true, onProgress);
    throw error;
  }
}

/** Where the servers of this home are, if all of them that the environment does not name are running; else null. Starts nothing, asks nobody. */
export async function runningServers(home: string, env: Environment = process.env): Promise<Endpoints | null> {
  const named = { temporal: temporalFromEnvironment(env), s3: s3FromEnvironment(env) };
  const record = await readHome(home);
  for (const name of NAMES) if (!named[name] && !(await isAlive(record?.[name]?.process))) return null;
  return endpointsOf(named, record, named.s3 ? null : await readCredentials(home));
}

/**
 * Whether the servers that this home has are up for nobody but commands that borrow them: they end as soon as the last of these does. Where all users have died, the
 * last ones count: what commands that were killed have left behind is for the next one to end.
 */
export async function serversBorrowed(home: string, env: Environment = process.env): Promise<boolean> {
  if (temporalFromEnvironment(env) && s3FromEnvironment(env)) return false;
  const known = (await readHome(home))?.users ?? [];
  const alive = await living(known);
  const users = alive.length > 0 ? alive : known;
  return users.length > 0 && users.every(({ borrows }) => borrows);
}

/** Ends the servers of this home, whoever uses them; supervisors in other processes let them rest. Nothing to do where nothing runs. */
export async function stopServers(home: string): Promise<void> {
  if (!existsSync(homePaths(home).root)) return;
  await changeHome(home, (record) => endAll(resolve(home), record));
}

/** What each server is doing and why, from the record, the processes and the disk. */
export async function serversStatus(home: string, env: Environment = process.env): Promise<ServersStatus> {
  const record = await readHome(home);
  const free = existsSync(homePaths(home).root) ? await freeBytes(homePaths(home).root) : null;
  const full = free !== null && free < FULL_DISK_BYTES;
  const watched = (await living(record?.users ?? [])).length > 0;
  const of = async (name: ServerName, isNamed: boolean): Promise<ServerStatus> => {
    const known = record?.[name];
    if (isNamed || !known) return { state: isNamed ? 'external' : 'absent', reason: null, pid: null, restarts: 0 };
    const { state, reason, restarts } = known;
    if (await isAlive(known.process)) return { state, reason, pid: known.process!.pid, restarts };
    const dead = { pid: null, restarts };
    if (state === 'stopped' || state === 'failed') return { state, reason, ...dead };
    if (!watched) return { state: 'down', reason, ...dead };
    // On a full disk the supervisor cannot write down that it waits.
    if (full) return { state: 'waiting', reason: diskFull(home, free), ...dead };
    return { state: state === 'running' ? 'restarting' : state, reason, ...dead };
  };
  return {
    temporal: await of('temporal', temporalFromEnvironment(env) !== null),
    s3: await of('s3', s3FromEnvironment(env) !== null),
    disk: free === null ? null : { freeBytes: free, full },
  };
}

/** Resolves when the work has come to any end, or after the bound. */
async function settled(work: Promise<unknown>, boundMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const bound = new Promise<void>((resolve) => (timer = setTimeout(resolve, boundMs)));
  await Promise.race([Promise.allSettled([work]), bound]);
  clearTimeout(timer);
}

/** Throws Stopped as soon as the signal says so, whatever the work does. */
async function unlessAborted<T>(signal: AbortSignal | undefined, work: Promise<T>): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(new RatchetError('Stopped', 'the servers are not wanted any more'));
  if (signal?.aborted) abort();
  signal?.addEventListener('abort', abort);
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

function diskFull(home: string, free: number): string {
  return `disk full: ${free} bytes free in ${home}, ${FULL_DISK_BYTES} needed`;
}

async function living(users: readonly ServersUser[]): Promise<ServersUser[]> {
  const alive = await Promise.all(users.map((user) => isAlive(user)));
  return users.filter((_, i) => alive[i]);
}

/** Makes this process a user of the home. Returns the servers that run already. */
async function enter(record: HomeRecord, me: ServersUser, bucket: string): Promise<Set<ServerName>> {
  record.users = await living(record.users);
  const running = new Set<ServerName>();
  for (const name of NAMES) {
    const known = record[name];
    if (known && (await isAlive(known.process))) running.add(name);
    // Left by a crash: nobody knows its ports any more, and its restarts are history.
    else if (known && record.users.length === 0) Object.assign(known, { process: null, restarts: 0 });
  }
  record.users.push(me);
  record.wanted = true;
  record.bucket = bucket;
  return running;
}

async function leaveHome(home: string, me: ServersUser, stopUnused: boolean, onProgress: OnProgress): Promise<void> {
  try {
    await changeHome(home, async (record) => {
      record.users = await living(record.users.filter((user) => user.token !== me.token));
      if (stopUnused && record.users.length === 0) await endAll(home, record);
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    // What was to be done is done; the next to read the record finds dead processes in it, as after a crash.
    onProgress({ step: 'stop', detail: `cannot be recorded: ${(error as Error).message}` });
  }
}

async function endAll(home: string, record: HomeRecord): Promise<void> {
  record.wanted = false;
  record.users = [];
  await Promise.all(NAMES.map((name) => endServer(home, name, record)));
}

async function writeEvent(home: string, { name, kind, pid, detail }: ProcessEvent): Promise<void> {
  const states: Partial<Record<ProcessEvent['kind'], ServerState>> = {
    ready: 'running',
    exited: 'restarting',
    hung: 'restarting',
    waiting: 'waiting',
    failed: 'failed',
  };
  const state = states[kind];
  if (!state) return;
  await changeHome(home, async (record) => {
    const known = record[name as ServerName];
    // Another supervisor may be further already.
    const outdated = pid === null ? await isAlive(known?.process) : known?.process?.pid !== pid;
    if (known && record.wanted && !outdated) Object.assign(known, { state, reason: kind === 'ready' ? null : detail });
  });
}

/** Each program is looked for when it is first needed, and again if its file has gone since. */
function programFinder(
  env: Environment,
  onProgress: OnProgress,
  signal: AbortSignal | undefined,
): Record<ServerName, () => Promise<FoundProgram>> {
  const unreachable = new Set<string>();
  const finder = (program: typeof TEMPORAL) => {
    let found: FoundProgram | undefined;
    return async () => {
      if (!found || !existsSync(found.path)) found = await resolveProgram(program, { env, onProgress, unreachable, signal });
      return found;
    };
  };
  return { temporal: finder(TEMPORAL), s3: finder(VERSITYGW) };
}

function endpointsOf(
  named: { temporal: TemporalEndpoint | null; s3: S3Endpoint | null },
  record: HomeRecord | null,
  credentials: Credentials | null,
): Endpoints | null {
  const url = (port: number) => `http://${LOOPBACK}:${port}`;
  const temporalOf = ({ port, uiPort }: ServerRecord): TemporalEndpoint => ({
    address: `${LOOPBACK}:${port}`,
    namespace: DEFAULT_NAMESPACE,
    uiUrl: uiPort ? url(uiPort) : null,
    own: true,
  });
  const s3Of = ({ port }: ServerRecord, { bucket }: HomeRecord): S3Endpoint => ({
    endpoint: url(port),
    region: DEFAULT_REGION,
    bucket,
    ...credentials,
    forcePathStyle: true,
  });
  const temporal = named.temporal ?? (record?.temporal && temporalOf(record.temporal));
  const s3 = named.s3 ?? (record?.s3 && credentials && s3Of(record.s3, record));
  return temporal && s3 ? { temporal, s3 } : null;
}

async function explained(home: string, name: ServerName, error: Error): Promise<Error> {
  const tail = await logTail(home, name, SHOWN_LOG_LINES);
  if (!(error instanceof RatchetError)) return error;
  return new RatchetError(error.type, `${error.message}\nThe end of ${homePaths(home).log(name)}:\n${tail}`, { cause: error });
}

function withoutServers(endpoints: Endpoints): Servers {
  return { endpoints, pids: {}, onExit: () => () => {}, stop: async () => {}, release: async () => {} };
}
