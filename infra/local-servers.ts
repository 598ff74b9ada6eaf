/**
 * Starts one of this machine's two servers in a home directory, or finds the one that an earlier process left running there.
 * It refuses to start a second server on the same data, to listen on anything but the loopback address, and to change the port of a running home.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { open, readFile, rename, stat } from 'node:fs/promises';
import { RatchetError } from '../core/errors.ts';
import { DEFAULT_NAMESPACE, DEFAULT_REGION } from './endpoints.ts';
import { changeHome, homeCredentials, homePaths, portsOf } from './home.ts';
import type { HomeRecord, ServerName, ServerRecord } from './home.ts';
import { LOOPBACK, freePort, waitUntilFree } from './ports.ts';
import { endProcess, identify, isAlive, processesWithArguments } from './processes.ts';
import type { ProcessIdentity } from './processes.ts';
import type { FoundProgram } from './resolve.ts';

/** What workflows are found by; registered when the server starts, because starting a workflow with an unregistered one is refused. */
export const SEARCH_ATTRIBUTES = {
  RatchetPhase: 'Keyword',
  RatchetIteration: 'Int',
  RatchetRecipe: 'Keyword',
  RatchetBestSuccess: 'Double',
} as const;

/**
 * The defaults of the development server are made for trying things out: 20 internal tasks a second, which is 100 ms per activity, and timers that are
 * up to a second late. The write-ahead log makes it five times faster again; both are as safe as the defaults against the death of the process.
 */
const TEMPORAL_TUNING = [
  'history.transferProcessorMaxPollRPS=2000',
  'history.timerProcessorMaxPollRPS=2000',
  'history.visibilityProcessorMaxPollRPS=2000',
  'history.timerProcessorMaxTimeShift="20ms"',
  // Nothing on this machine should call home.
  'frontend.enableServerVersionCheck=false',
];
const TEMPORAL_PRAGMAS = ['journal_mode=wal', 'synchronous=normal'];

/** A dead process's port is free at once, or after the last of its connections: this long under the lock, then the supervisor tries again. */
const RESTART_LINGER_MS = 10_000;
/** Nobody knows the ports of a home that was at rest, so it need not wait long for them. */
const START_LINGER_MS = 2_000;
/** One that was well before and does not answer for this long at adoption is taken for hung. */
const ADOPTION_PROBE_MS = 10_000;
const HEALTH_BOUND_MS = 5_000;
const STOP_GRACE_MS = 10_000;
/** A log larger than this is set aside at the next start, and the one set aside before is dropped. */
const LOG_BOUND_BYTES = 20 << 20;
/** The end of a log that tells why a server died at its start. */
const LOG_TAIL_BYTES = 4_096;

/** What is in the command line of this home's server and of no other process. */
function ownArguments(home: string, name: ServerName): string[] {
  return name === 'temporal' ? ['start-dev', homePaths(home).temporalDatabase] : ['posix', homePaths(home).s3Data];
}

/**
 * One attempt for the supervisor: adopts the recorded server, else starts a new one on the remembered port. Throws Stopped where the servers are
 * not wanted any more, Unavailable where the port stays taken, and what `program` throws, which is asked only when one must be started.
 */
export async function startServer(
  home: string,
  name: ServerName,
  program: () => Promise<FoundProgram>,
): Promise<ChildProcess | ProcessIdentity> {
  const adopted = await changeHome(home, (record) => adopt(home, name, record));
  if (adopted) return adopted;
  // May build for minutes: not under the lock.
  const found = await program();
  const credentials = name === 's3' ? await homeCredentials(home) : null;
  return await changeHome(home, async (record) => {
    const meanwhile = await adopt(home, name, record);
    if (meanwhile) return meanwhile;
    // Started by a process that died before it could write the record down: its ports are unknown, so it makes room.
    for (const orphan of await processesWithArguments(ownArguments(home, name))) await endProcess(orphan, STOP_GRACE_MS);
    const server = await assignPorts(record, name, found);
    if (name === 's3' && (await lacksExtendedAttributes(home))) server.sidecar = true;
    const environment: NodeJS.ProcessEnv = { PATH: process.env['PATH'], HOME: process.env['HOME'] };
    if (credentials) Object.assign(environment, { ROOT_ACCESS_KEY: credentials.accessKeyId, ROOT_SECRET_KEY: credentials.secretAccessKey });
    const child = await spawnLogged(home, name, server, environment);
    // Where spawning fails there is no pid, and the child's `error` event tells the supervisor.
    server.process = child.pid === undefined ? null : await identify(child.pid);
    record[name] = server;
    return child;
  });
}

/** The recorded server if it lives and answers or may yet; a hung one is ended, which is ours to do because it is provably the one we started. */
async function adopt(home: string, name: ServerName, record: HomeRecord): Promise<ProcessIdentity | null> {
  if (!record.wanted) throw new RatchetError('Stopped', `${name} of ${home} was stopped on request`);
  const known = record[name];
  if (!known?.process || !(await isAlive(known.process))) return null;
  // One that is still starting gets the supervisor's patience.
  if (known.state === 'starting' || (await answers(known, name))) return known.process;
  await endProcess(known.process, STOP_GRACE_MS);
  return null;
}

/** Ends this home's server, recorded or not. */
export async function endServer(home: string, name: ServerName, record: HomeRecord): Promise<void> {
  const known = record[name];
  if (known?.process) await endProcess(known.process, STOP_GRACE_MS);
  for (const orphan of await processesWithArguments(ownArguments(home, name))) await endProcess(orphan, STOP_GRACE_MS);
  if (known) Object.assign(known, { process: null, state: 'stopped', reason: null });
}

async function answers(server: ServerRecord, name: ServerName): Promise<boolean> {
  const deadline = performance.now() + ADOPTION_PROBE_MS;
  do {
    if (await serverHealthy(server, name)) return true;
  } while (performance.now() < deadline && (await isAlive(server.process)));
  return false;
}

/** Keeps remembered ports, for clients of a running home know them. At its first start a home moves to others when somebody else has taken them. */
async function assignPorts(record: HomeRecord, name: ServerName, found: FoundProgram): Promise<ServerRecord> {
  const known = record[name];
  // `process` is null only before the first start of this use of the home.
  const restart = Boolean(known?.process);
  const base = {
    process: null,
    state: 'starting',
    reason: null,
    restarts: restart ? known!.restarts + 1 : 0,
    binary: found.path,
    version: found.version,
    ...(known?.sidecar && { sidecar: true }),
  } as const;
  if (known) {
    const ports = portsOf(known);
    const free = await Promise.all(ports.map((port) => waitUntilFree(port, restart ? RESTART_LINGER_MS : START_LINGER_MS)));
    if (free.every(Boolean)) return { ...known, ...base };
    if (restart)
      throw new RatchetError('Unavailable', `port ${ports[free.indexOf(false)]} of ${LOOPBACK} is still taken by another program`);
  }
  const ports = [record.temporal, record.s3].flatMap((other) => (other ? portsOf(other) : []));
  const next = async (): Promise<number> => {
    const port = await freePort(ports);
    ports.push(port);
    return port;
  };
  return { ...base, port: await next(), ...(name === 'temporal' && { uiPort: await next(), httpPort: await next() }) };
}

async function spawnLogged(home: string, name: ServerName, server: ServerRecord, env: NodeJS.ProcessEnv): Promise<ChildProcess> {
  const log = homePaths(home).log(name);
  if ((await sizeOf(log)) > LOG_BOUND_BYTES) await rename(log, `${log}.1`);
  const file = await open(log, 'a', 0o600);
  try {
    await file.write(`--- ${new Date().toISOString()} start of ${name} ${server.version} on port ${server.port}\n`);
    const args = name === 'temporal' ? temporalArguments(home, server) : s3Arguments(home, server);
    // Its own group: Ctrl-C in the terminal is for the program that then stops the servers in order.
    return spawn(server.binary, args, { cwd: homePaths(home).root, env, detached: true, stdio: ['ignore', file.fd, file.fd] });
  } finally {
    await file.close();
  }
}

function temporalArguments(home: string, { port, uiPort, httpPort }: ServerRecord): string[] {
  const options: [string, string | number][] = [
    ['--ip', LOOPBACK],
    ['--port', port],
    ['--http-port', httpPort!],
    ['--ui-ip', LOOPBACK],
    ['--ui-port', uiPort!],
    ['--db-filename', homePaths(home).temporalDatabase],
    ...TEMPORAL_PRAGMAS.map((pragma): [string, string] => ['--sqlite-pragma', pragma]),
    ...TEMPORAL_TUNING.map((value): [string, string] => ['--dynamic-config-value', value]),
    ...Object.entries(SEARCH_ATTRIBUTES).map(([key, type]): [string, string] => ['--search-attribute', `${key}=${type}`]),
    ['--log-level', 'warn'],
    ['--color', 'never'],
  ];
  // Neither the person's own Temporal settings nor a news feed belong here.
  return ['server', 'start-dev', '--disable-config-file', '--disable-config-env', '--ui-disable-news-fetch', ...options.flat().map(String)];
}

function s3Arguments(home: string, { port, sidecar }: ServerRecord): string[] {
  const { s3Data, s3Sidecar } = homePaths(home);
  const front = ['--port', `${LOOPBACK}:${port}`, '--region', DEFAULT_REGION, '--health', '/health', '--quiet', '--keep-alive'];
  return [...front, 'posix', '--dir-perms', '0700', '--file-perms', '0600', ...(sidecar ? ['--sidecar', s3Sidecar] : []), s3Data];
}

/** Whether the server answers: the gateway at its health address, Temporal's frontend with the namespace, which it reads from its database. */
export async function serverHealthy({ port, httpPort }: ServerRecord, name: ServerName): Promise<boolean> {
  const url = `http://${LOOPBACK}:${name === 'temporal' ? `${httpPort}/api/v1/namespaces/${DEFAULT_NAMESPACE}` : `${port}/health`}`;
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(HEALTH_BOUND_MS) });
    await response.arrayBuffer();
    return response.ok;
  } catch {
    // Not answering is the answer.
    return false;
  }
}

/** The last lines that a server wrote, for the message of a failure. */
export async function logTail(home: string, name: ServerName, lines = 5): Promise<string> {
  const path = homePaths(home).log(name);
  if (!existsSync(path)) return '';
  const text = (await readFile(path)).subarray(-LOG_TAIL_BYTES).toString('utf8');
  return text.trimEnd().split('\n').slice(-lines).join('\n');
}

/** The gateway itself knows best: it refuses to start where it cannot keep metadata in extended attributes, and says so. */
async function lacksExtendedAttributes(home: string): Promise<boolean> {
  return (await logTail(home, 's3', 20)).includes('xattrs are not supported');
}

async function sizeOf(path: string): Promise<number> {
  return existsSync(path) ? (await stat(path)).size : 0;
}
