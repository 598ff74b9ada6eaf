/**
 * Looks at everything that a run needs from this machine and says what it found. Data for the command line.
 * It refuses to change anything: nothing is started, fetched, built or made.
 */
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { promisify } from 'node:util';
import { cacheDirectory } from '../core/cache-directory.ts';
import { s3FromEnvironment, temporalFromEnvironment } from './endpoints.ts';
import type { Environment } from './endpoints.ts';
import { checkTemporal, hasBucket } from './external.ts';
import { goVersion } from './go-build.ts';
import { freeBytes, portsOf, readHome } from './home.ts';
import { serverHealthy } from './local-servers.ts';
import { LOOPBACK, freePort, isFree } from './ports.ts';
import { isAlive } from './processes.ts';
import { TEMPORAL, VERSITYGW } from './programs.ts';
import type { ServerProgram } from './programs.ts';
import { releaseSite } from './release.ts';
import { findProgram } from './resolve.ts';
import { runningServers } from './servers.ts';

export interface Check {
  /** What was looked at, such as `disk`. Unique and stable. */
  name: string;
  /** `warning`: a run can start, but something may go wrong or take long. */
  state: 'ok' | 'warning' | 'failed';
  found: string;
  /** What to do about it; null where nothing needs doing. */
  fix: string | null;
}

const run = promisify(execFile);
/** Loading the native library from a slow disk. */
const LOAD_BOUND_MS = 30_000;
/** A tiny run keeps some 100 MB; below this a person should know. */
const LOW_DISK_BYTES = 2 * 2 ** 30;
/** Sources and intermediate files of both servers, as measured, rounded up. */
const BUILD_DISK_BYTES = 5 * 2 ** 30;

/** All checks, in the order in which a person would go through them. */
export async function diagnose(home: string, env: Environment = process.env): Promise<Check[]> {
  const named = { temporal: temporalFromEnvironment(env), s3: s3FromEnvironment(env) };
  return [
    nodeCheck(),
    await onnxRuntimeCheck(),
    await goCheck(env),
    named.temporal ? ok('temporal program', 'not needed: TEMPORAL_ADDRESS is set') : await programCheck(TEMPORAL, env),
    named.s3 ? ok('versitygw program', 'not needed: an S3 endpoint is set') : await programCheck(VERSITYGW, env),
    await diskCheck(home),
    await portsCheck(home),
    await temporalCheck(home, env),
    await s3Check(home, env),
  ];
}

function nodeCheck(): Check {
  const { engines } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { engines: { node: string } };
  const least = engines.node.replace(/^>=/, '');
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const [leastMajor = 0, leastMinor = 0] = least.split('.').map(Number);
  const enough = major > leastMajor || (major === leastMajor && minor >= leastMinor);
  return enough ? ok('node', process.versions.node) : failed('node', process.versions.node, `install Node ${least} or later`);
}

/** In a process of its own: a native library that does not fit the machine can end the process that loads it. */
async function onnxRuntimeCheck(): Promise<Check> {
  const script = "import('onnxruntime-node').then((o) => console.log(o.env.versions.node ?? o.env.versions.common))";
  try {
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script], {
      cwd: resolve(import.meta.dirname, '..'),
      timeout: LOAD_BOUND_MS,
    });
    return ok('onnxruntime', stdout.trim());
  } catch (error) {
    return failed('onnxruntime', firstLine(error), 'run `npm ci` again, with install scripts allowed');
  }
}

async function goCheck(env: Environment): Promise<Check> {
  const go = await goVersion(env);
  return go.ok ? ok('go', go.version) : ok('go', `${go.reason}; needed only where releases cannot be fetched`);
}

async function programCheck(program: ServerProgram, env: Environment): Promise<Check> {
  const name = `${program.name} program`;
  const tried: string[] = [];
  const found = await findProgram(program, env, tried);
  if (found) return ok(name, `${found.version} from ${found.from}: ${found.path}`);
  const site = releaseSite(env);
  const go = await goVersion(env);
  const ways = [...(site ? [`fetched from ${site}`] : []), ...(go.ok ? [`built with Go ${go.version} (minutes, once)`] : [])];
  if (ways.length === 0)
    return failed(
      name,
      tried.join('; '),
      `install ${program.name} ${program.version} or Go ${program.goVersion}, or unset RATCHET_RELEASES`,
    );
  const cache = existing(cacheDirectory(env));
  const short = go.ok && (await freeBytes(cache)) < BUILD_DISK_BYTES;
  const fix = short ? `a build needs ${gigabytes(BUILD_DISK_BYTES)} of free space` : null;
  return { name, state: 'warning', found: `not here yet; will be ${ways.join(', else ')} (${tried.join('; ')})`, fix };
}

async function diskCheck(home: string): Promise<Check> {
  const directory = existing(home);
  const free = await freeBytes(directory);
  const found = `${gigabytes(free)} free at ${directory}`;
  return free >= LOW_DISK_BYTES
    ? ok('disk', found)
    : { name: 'disk', state: 'warning', found, fix: `free some space: ${gigabytes(LOW_DISK_BYTES)} is comfortable` };
}

async function portsCheck(home: string): Promise<Check> {
  const record = await readHome(home);
  const taken: number[] = [];
  for (const server of [record?.temporal, record?.s3]) {
    if (!server || (await isAlive(server.process))) continue;
    for (const port of portsOf(server)) if (!(await isFree(port))) taken.push(port);
  }
  await freePort();
  if (taken.length === 0) return ok('ports', `free ports on ${LOOPBACK}`);
  return {
    name: 'ports',
    state: 'warning',
    found: `${taken.join(', ')} of this home taken by another program; others are chosen at the next start`,
    fix: 'nothing: others are chosen at the next start',
  };
}

async function temporalCheck(home: string, env: Environment): Promise<Check> {
  const name = 'temporal server';
  const named = temporalFromEnvironment(env);
  if (named) return await attempt(name, `answers at ${named.address}`, () => checkTemporal(named));
  const record = (await readHome(home))?.temporal;
  if (!record || !(await isAlive(record.process))) return ok(name, 'not running');
  const healthy = await serverHealthy(record, 'temporal');
  return healthy
    ? ok(name, `running at ${LOOPBACK}:${record.port}`)
    : failed(name, `process ${record.process!.pid} does not answer`, '`ratchet down`, then `ratchet up`');
}

async function s3Check(home: string, env: Environment): Promise<Check> {
  const name = 's3 server';
  const s3 = s3FromEnvironment(env) ?? (await runningServers(home, env))?.s3;
  if (!s3) return ok(name, 'not running');
  let there = false;
  const check = await attempt(name, `answers at ${s3.endpoint ?? `AWS S3 of ${s3.region}`}`, async () => {
    there = await hasBucket(s3);
  });
  return check.state === 'ok' ? ok(name, `${check.found}, bucket ${s3.bucket} ${there ? 'is there' : 'will be made'}`) : check;
}

async function attempt(name: string, found: string, probe: () => Promise<void>): Promise<Check> {
  try {
    await probe();
    return ok(name, found);
  } catch (error) {
    return failed(name, firstLine(error), 'check its address and credentials, and that it runs');
  }
}

function ok(name: string, found: string): Check {
  return { name, state: 'ok', found, fix: null };
}

function failed(name: string, found: string, fix: string): Check {
  return { name, state: 'failed', found, fix };
}

function firstLine(error: unknown): string {
  return ((error as Error).message.split('\n')[0] ?? '').slice(0, 300);
}

/** The directory itself, or the nearest one above it that is there. */
function existing(directory: string): string {
  let current = resolve(directory);
  while (!existsSync(current)) current = dirname(current);
  return current;
}

function gigabytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
