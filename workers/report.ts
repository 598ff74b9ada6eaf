/**
 * What a worker process tells about itself, once a second, in `<home>/workers/<pid>.json`: its roles, its slots with their children, and how long its
 * event loop was kept waiting. For people, `ratchet doctor` and tests; nothing depends on it.
 */
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { Queue } from '../activities/stage.ts';
import { isAlive, thisProcess } from '../infra/processes.ts';
import type { ProcessIdentity } from '../infra/processes.ts';
import type { SlotStatus } from '../learning/compute/pool.ts';

const INTERVAL_MS = 1_000;
/** The histogram's own timer: fine enough to see the delays that matter (tens of milliseconds), too coarse to cost anything. */
const RESOLUTION_MS = 10;

export interface WorkerReport {
  process: ProcessIdentity;
  /** Host and pid, as Temporal shows the worker. */
  identity: string;
  roles: Queue[];
  fleet: string;
  state: 'running' | 'draining';
  /** The build id, as Temporal shows it. */
  build: string;
  slots: Partial<Record<Queue, SlotStatus[]>>;
  /** How much later than due the event loop came to its timers, in milliseconds, since the worker was ready. Temporal expects it to be free. */
  eventLoopDelayMs: { max: number; p99: number };
  /** ISO 8601, UTC. */
  at: string;
}

export interface Reporter {
  /** Settles when the last report is removed. */
  stop(): Promise<void>;
}

/** `describe` gives what changes; `told` hears every report. */
export async function startReporter(
  home: string,
  fixed: Pick<WorkerReport, 'identity' | 'roles' | 'fleet' | 'build'>,
  describe: () => Pick<WorkerReport, 'state' | 'slots'>,
  told: (report: WorkerReport) => void,
  warn: (message: string) => void,
): Promise<Reporter> {
  const directory = join(home, 'workers');
  const path = join(directory, `${process.pid}.json`);
  const me = await thisProcess();
  await mkdir(directory, { recursive: true });
  for (const { file, report } of await read(directory)) {
    if (!(await isAlive(report.process))) await rm(join(directory, file), { force: true });
  }
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  delay.enable();
  const write = async (): Promise<void> => {
    const late = (nanoseconds: number): number => Math.max(0, Math.round(nanoseconds / 1e6) - RESOLUTION_MS);
    const report: WorkerReport = {
      process: me,
      ...fixed,
      ...describe(),
      eventLoopDelayMs: { max: late(delay.max), p99: late(delay.percentile(99)) },
      at: new Date().toISOString(),
    };
    told(report);
    await writeFile(`${path}.new`, `${JSON.stringify(report, null, 2)}\n`);
    await rename(`${path}.new`, path);
  };
  // A report that cannot be written (a full disk) is a report missing, nothing worse.
  const attempt = () => write().catch((error: unknown) => warn(`${path} cannot be written: ${String(error)}`));
  let writing = attempt();
  await writing;
  const timer = setInterval(() => {
    writing = writing.then(attempt);
  }, INTERVAL_MS);
  return {
    stop: async () => {
      clearInterval(timer);
      delay.disable();
      await writing;
      await rm(path, { force: true });
    },
  };
}

/** The reports of the worker processes that live on this machine and use this home. */
export async function readWorkerReports(home: string): Promise<WorkerReport[]> {
  const all = await read(join(home, 'workers'));
  const alive = await Promise.all(all.map(({ report }) => isAlive(report.process)));
  return all.flatMap(({ report }, i) => (alive[i] ? [report] : []));
}

/** Names of the workers of this home that died before they could remove their report. */
export async function readDeadIdentities(home: string): Promise<Set<string>> {
  const all = await read(join(home, 'workers'));
  const alive = await Promise.all(all.map(({ report }) => isAlive(report.process)));
  return new Set(all.flatMap(({ report }, i) => (alive[i] ? [] : [report.identity])));
}

async function read(directory: string): Promise<{ file: string; report: WorkerReport }[]> {
  const files = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  const reports = files
    .filter((file) => file.endsWith('.json'))
    .map(async (file) => {
      try {
        return [{ file, report: JSON.parse(await readFile(join(directory, file), 'utf8')) as WorkerReport }];
      } catch (error) {
        // Its worker ended between the listing and the reading, or the disk was full when it was written.
        if ((error as NodeJS.ErrnoException).code === 'ENOENT' || error instanceof SyntaxError) return [];
        throw error;
      }
    });
  return (await Promise.all(reports)).flat();
}
