/**
 * Whole runs for tests: `ratchet start` as a user runs it, in a home of its own with its own servers, with strikes planned by progress count.
 * Reads what came out from the store of that home.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { headOf, readChain, type ChainLink } from '../../artifacts/run-log.ts';
import { storeConfigFromEnvironment } from '../../artifacts/store-config.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import { verifyRun, type VerifyReport } from '../../artifacts/verify.ts';
import { endpointEnvironment, ensureServers, serversStatus } from '../../infra/servers.ts';
import { readWorkerReports } from '../../workers/report.ts';
import { shareBundles } from './bundles.ts';
import type { Event, Strike } from './strike-at.ts';

const ROOT = join(import.meta.dirname, '..', '..');
/** A micro run takes some 20 s alone on two cores; kills add heartbeat timeouts of 10 s each, and other tests run beside it. */
const RUN_BOUND_MS = 240_000;

export interface Home {
  path: string;
  remove(): void;
}

export function newHome(): Home {
  const path = mkdtempSync(join(tmpdir(), 'ratchet-run-'));
  shareBundles(path);
  return { path, remove: () => rmSync(path, { recursive: true, force: true, maxRetries: 5 }) };
}

/** The environment of a user who has configured nothing but the home: no address of a server of the test run. */
export function bareEnvironment(home: Pick<Home, 'path'>, extra: Record<string, string> = {}): Record<string, string> {
  const kept = ['PATH', 'HOME', 'RATCHET_CACHE', 'XDG_CACHE_HOME', 'TMPDIR', 'LANG'];
  const env = Object.fromEntries(kept.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name] as string]])));
  return { ...env, RATCHET_HOME: home.path, ...extra };
}

export interface Started {
  pid: number;
  output: () => string;
  ended: () => boolean;
  exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

/** Spawns the CLI in a process group of its own; after `boundMs` it is killed. */
export function cli(home: Pick<Home, 'path'>, args: string[], extra: Record<string, string> = {}, boundMs = RUN_BOUND_MS): Started {
  const child = spawn(process.execPath, [join(ROOT, 'cli', 'ratchet.js'), ...args], {
    env: bareEnvironment(home, extra),
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  const timer = setTimeout(() => process.kill(-(child.pid as number), 'SIGKILL'), boundMs);
  let ended = false;
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.on('close', (code, signal) => {
      ended = true;
      clearTimeout(timer);
      resolve({ code, signal });
    });
  });
  return { pid: child.pid as number, output: () => output, ended: () => ended, exited };
}

/** Often enough to act within the step of training in which something happened. */
const LOOK_EVERY_MS = 5;

/** Waits until `happened`; fails with the run's output when the run ends first or `boundMs` pass. */
export async function waitFor(happened: () => boolean, what: string, run: Started, boundMs = RUN_BOUND_MS): Promise<void> {
  const deadline = performance.now() + boundMs;
  while (!happened()) {
    assert.ok(!run.ended() && performance.now() < deadline, `not seen: ${what}\n${run.output()}`);
    await delay(LOOK_EVERY_MS);
  }
}

/** The command of every run in these tests; all of one seed, so that all have the same head. */
export const MICRO = ['start', '--recipe', 'agentprm-household', '--scale', 'micro', '--seed', '1', '--id', 'run'];

/** The folder and environment of planned strikes. */
export function planStrikes(home: Home, strikes: Strike[]): { env: Record<string, string>; struck: (index: number) => boolean } {
  const folder = join(home.path, 'strikes');
  return { env: strikeEnvironment(folder, strikes), struck: (index) => existsSync(join(folder, `${index}.struck`)) };
}

/** Writes the plan into a folder; what a run needs in its environment to follow it. `movableClock`: its clock may be told to jump. */
export function strikeEnvironment(folder: string, strikes: Strike[], movableClock = false): Record<string, string> {
  mkdirSync(folder, { recursive: true });
  if (movableClock) writeFileSync(join(folder, 'clock'), '0');
  writeFileSync(join(folder, 'plan.json'), JSON.stringify(strikes));
  return { RATCHET_TEST_STRIKES: folder, NODE_OPTIONS: `--import=${join(import.meta.dirname, 'strike-at.ts')}` };
}

/** What the compute children of a run did, in the order of time. */
export function eventsOf(folder: string): Event[] {
  const path = join(folder, 'events.jsonl');
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1);
  return lines.map((line) => JSON.parse(line) as Event).sort((a, b) => a.t - b.t);
}

export interface Finished {
  chain: ChainLink[];
  head: string;
  report: VerifyReport;
}

/** Opens the store of a home whose servers are down, and reads and verifies the run in it. */
export async function readRun(home: Home, runId = 'run'): Promise<Finished> {
  const env = bareEnvironment(home);
  const servers = await ensureServers({ home: home.path, onProgress: () => {}, env });
  const store = ArtifactStore.connect(storeConfigFromEnvironment(endpointEnvironment(servers.endpoints)));
  try {
    const chain = await readChain(store, runId);
    const head = headOf(chain);
    assert.ok(head, 'the run has records');
    return { chain, head: head.sha256, report: await verifyRun(store, runId) };
  } finally {
    store.close();
    await servers.stop();
  }
}

/** Every process that belongs to a home: servers, workers, compute children. */
export async function processesOf(home: Home): Promise<number[]> {
  const pids: number[] = [];
  const status = await serversStatus(home.path, bareEnvironment(home));
  for (const server of [status.temporal, status.s3]) if (server.pid !== null && server.pid !== undefined) pids.push(server.pid);
  for (const report of await readWorkerReports(home.path)) {
    pids.push(report.process.pid);
    for (const slots of Object.values(report.slots)) for (const slot of slots) if (slot.pid) pids.push(slot.pid);
  }
  return pids;
}

/** Processes that were started with this home in their environment or arguments, whoever their parent is now (Linux). */
export function processesWithHome(home: Home): string[] {
  return pidsWith(home.path).map((pid) => `${pid}: ${readIfThere(`/proc/${pid}/cmdline`).replaceAll('\0', ' ')}`);
}

/** Their process ids. */
export function pidsWith(path: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((name) => ['environ', 'cmdline'].some((file) => readIfThere(`/proc/${name}/${file}`).includes(path)))
    .map(Number);
}

/** A process may end between being listed and being read. */
function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

export function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

export function logOf(home: Home, name: string): string {
  const path = join(home.path, 'logs', name);
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}
