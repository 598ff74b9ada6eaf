/**
 * What `ratchet start` and `ratchet up` do alike: bring up the servers, keep a worker process alive beside them, and end both in order. One process per
 * home does this at a time; whoever comes second uses what the first one keeps up.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { RatchetError } from '../core/errors.ts';
import { withLock } from '../infra/lock.ts';
import { identify, isAlive, signal, thisProcess, type ProcessIdentity } from '../infra/processes.ts';
import type { OnProgress } from '../infra/progress.ts';
import { endpointEnvironment, ensureServers, type Endpoints, type ProcessEvent } from '../infra/servers.ts';
import { createSupervisor } from '../infra/supervisor.ts';
import { requireProvider } from '../learning/diagnose.ts';
import { workerConfig } from '../workers/config.ts';
import { readWorkerReports } from '../workers/report.ts';
import { QUEUES } from '../workflows/task-queues.ts';
import { PROGRAM_FOLDER } from './session.ts';

/** Who keeps the servers and workers of a home up. */
export interface HostRecord {
  process: ProcessIdentity;
  command: 'start' | 'up';
}

export interface Host {
  endpoints: Endpoints;
  /** Settles with the reason when the workers are given up after many failures in a row. */
  failed: Promise<RatchetError>;
  /** Workers drain with a checkpoint, then the servers end, unless somebody else uses them. */
  stop(): Promise<void>;
  /** For the impatient: workers end at once. Work since the last checkpoint is done again later. */
  hurry(): Promise<void>;
}

/** The lock is held for a few file operations. */
const LOCK_BOUND_MS = 10_000;
/** A worker waits 20 s for checkpoints and 6 s more to report the stop before it ends by itself. */
const DRAIN_BOUND_MS = 40_000;
/** A worker reports once a second; one that has not for this long hangs or is badly short of processor time. */
const REPORT_BOUND_MS = 30_000;
const LOG_BOUND_BYTES = 20 << 20;

function hostFile(home: string): string {
  return join(home, 'host.json');
}

export function logFile(home: string, name: 'workers' | 'up'): string {
  return join(home, 'logs', `${name}.log`);
}

/** The living process that keeps this home up; null where there is none. */
export async function runningHost(home: string): Promise<HostRecord | null> {
  try {
    const record = JSON.parse(await readFile(hostFile(home), 'utf8')) as HostRecord;
    return (await isAlive(record.process)) ? record : null;
  } catch (error) {
    // A half-written file belongs to a process that died while it wrote.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || error instanceof SyntaxError) return null;
    throw error;
  }
}

/** Makes this process the host. Throws Conflict naming the one that is there already. */
async function claim(home: string, command: HostRecord['command']): Promise<void> {
  await withLock(join(home, 'host.lock'), { boundMs: LOCK_BOUND_MS }, async () => {
    const other = await runningHost(home);
    if (other) throw new RatchetError('Conflict', `\`ratchet ${other.command}\` (pid ${other.process.pid}) keeps ${home} up already`);
    await writeFile(hostFile(home), JSON.stringify({ process: await thisProcess(), command } satisfies HostRecord), { mode: 0o600 });
  });
}

/** Servers and workers, ready for work. `onEvent` hears of every death and restart. */
export async function becomeHost(
  home: string,
  command: HostRecord['command'],
  { onProgress, onEvent }: { onProgress: OnProgress; onEvent: (event: ProcessEvent) => void },
): Promise<Host> {
  // What the workers would refuse is refused before anything starts.
  workerConfig(QUEUES);
  await requireProvider((detail) => onProgress({ step: 'provider', detail }));
  await mkdir(join(home, 'logs'), { recursive: true, mode: 0o700 });
  await claim(home, command);
  const servers = await ensureServers({ home, onProgress }).catch(async (error: unknown) => {
    await rm(hostFile(home), { force: true });
    throw error;
  });
  servers.onExit(onEvent);
  const supervisor = createSupervisor(onEvent);
  const stop = async (): Promise<void> => {
    await supervisor.stop();
    await servers.stop();
    await rm(hostFile(home), { force: true });
  };
  onProgress({ step: 'workers', detail: 'starting' });
  // One process for all roles, started again as a whole: there is never a second build beside it that a run could be kept on.
  const environment = { ...process.env, RATCHET_HOME: home, RATCHET_VERSIONING: '', ...endpointEnvironment(servers.endpoints) };
  let ready: ChildProcess | null = null;
  const workers = supervisor.supervise({
    name: 'workers',
    start: async () => {
      const child = await spawnWorkers(home, environment);
      child.on('message', () => (ready = child));
      return child;
    },
    healthy: async () => ready !== null && ready.exitCode === null && (await isReporting(home, ready.pid)),
    stopGraceMs: DRAIN_BOUND_MS,
  });
  try {
    await workers.ready;
  } catch (error) {
    await stop();
    const text = `the workers do not start; the end of ${logFile(home, 'workers')}:\n${await tail(logFile(home, 'workers'))}`;
    throw new RatchetError('Unavailable', text, { cause: error });
  }
  const failed = workers.ended.then((error) => error ?? new Promise<never>(() => undefined));
  return {
    endpoints: servers.endpoints,
    failed,
    stop,
    async hurry() {
      // Its compute children notice and end with it.
      const target = workers.pid === undefined ? null : await identify(workers.pid);
      if (target) await signal(target, 'SIGKILL');
    },
  };
}

/** One process for all roles. In a group of its own: Ctrl-C is for the host, which then lets the workers drain before it ends the servers. */
async function spawnWorkers(home: string, env: NodeJS.ProcessEnv): Promise<ChildProcess> {
  const path = logFile(home, 'workers');
  const before = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw error;
  });
  if (before && before.size > LOG_BOUND_BYTES) await rename(path, `${path}.1`);
  const log = await open(path, 'a', 0o600);
  try {
    return spawn(process.execPath, [join(PROGRAM_FOLDER, 'workers', 'all.ts')], {
      cwd: PROGRAM_FOLDER,
      env,
      detached: true,
      // The channel tells the worker when this process is killed: it then drains instead of working for nobody.
      stdio: ['ignore', log.fd, log.fd, 'ipc'],
    });
  } finally {
    await log.close();
  }
}

async function isReporting(home: string, pid: number | undefined): Promise<boolean> {
  const report = (await readWorkerReports(home)).find((each) => each.process.pid === pid);
  return report !== undefined && Date.now() - Date.parse(report.at) < REPORT_BOUND_MS;
}

/** The last lines of a log. */
export async function tail(path: string, lines = 8): Promise<string> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '';
    throw error;
  });
  return text.trimEnd().split('\n').slice(-lines).join('\n');
}
