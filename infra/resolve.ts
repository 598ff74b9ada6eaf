/**
 * Finds a server program: on the PATH, in Ratchet's cache, in the project's official release, else by building it with Go, in this order.
 * It refuses any binary whose version is not good enough, and says everything that was tried when nothing worked.
 */
import { createHash, randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { access, readFile, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, delimiter, dirname, join } from 'node:path';
import { cacheDirectory } from '../core/cache-directory.ts';
import { RatchetError } from '../core/errors.ts';
import type { Environment } from './endpoints.ts';
import { buildWithGo, goVersion } from './go-build.ts';
import type { BuildOptions } from './go-build.ts';
import { withLock } from './lock.ts';
import type { OnProgress } from './progress.ts';
import type { ServerProgram } from './programs.ts';
import { ReleaseFailure, fetchRelease, releaseSite } from './release.ts';
import { checkVersion } from './version.ts';

export interface FoundProgram {
  path: string;
  version: string;
  from: 'PATH' | 'cache' | 'release' | 'build';
}

export interface ResolveOptions {
  env: Environment;
  onProgress: OnProgress;
  /** Release sites that did not answer in this run; filled and heeded here, so that a blocked network is waited for once. */
  unreachable?: Set<string>;
  /** Aborting ends a download or build that is under way. */
  signal?: AbortSignal | undefined;
}

/** A build by another process is worth waiting for: as long as a build may take. */
const PREPARING_BOUND_MS = 45 * 60_000;

/** Where the cache keeps this program: the name changes with the version and with anything in go.mod or go.sum. */
export async function cachedPath(program: ServerProgram, env: Environment): Promise<string> {
  const hash = createHash('sha256');
  for (const name of ['go.mod', 'go.sum']) hash.update(await readFile(join(program.toolsModule, name)));
  const digest = hash.digest('hex').slice(0, 12);
  return join(cacheDirectory(env), `${program.name}-${program.version}-${digest}-${process.platform}-${process.arch}`);
}

/** What is there without fetching or building anything; null with the reasons in `tried` otherwise. */
export async function findProgram(program: ServerProgram, env: Environment, tried: string[] = []): Promise<FoundProgram | null> {
  return (await onPath(program, env, tried)) ?? (await inCache(program, env, tried));
}

/** Throws Unavailable, with all that was tried and what to install. */
export async function resolveProgram(
  program: ServerProgram,
  { env, onProgress, unreachable = new Set(), signal }: ResolveOptions,
): Promise<FoundProgram> {
  const tried: string[] = [];
  const found = await findProgram(program, env, tried);
  if (found) return found;
  const path = await cachedPath(program, env);
  const onWait = ({ pid }: { pid: number }) => onProgress({ step: `wait for ${program.name}`, detail: `process ${pid} is preparing it` });
  try {
    return await withLock(`${path}.lock`, { boundMs: PREPARING_BOUND_MS, onWait }, async () => {
      // Whoever held the lock before has perhaps done it, or was killed in the middle.
      const meanwhile = await inCache(program, env, []);
      await removeDrafts(path);
      return (
        meanwhile ??
        (await fromRelease(program, path, { env, onProgress, unreachable, signal }, tried)) ??
        (await fromGo(program, path, { env, onProgress, signal }, tried))
      );
    });
  } catch (error) {
    if (error !== NOTHING_WORKED && !(error instanceof Error && 'code' in error)) throw error;
    if (error !== NOTHING_WORKED) tried.push(`cache: ${(error as Error).message}`);
    throw new RatchetError('Unavailable', explain(program, env, tried));
  }
}

const NOTHING_WORKED = new Error('nothing worked');

async function onPath(program: ServerProgram, env: Environment, tried: string[]): Promise<FoundProgram | null> {
  for (const directory of (env['PATH'] ?? '').split(delimiter)) {
    if (!directory) continue;
    const path = join(directory, program.name);
    try {
      await access(path, constants.X_OK);
      if (!(await stat(path)).isFile()) continue;
    } catch {
      continue;
    }
    const check = await checkVersion(program, path, false);
    if (check.ok) return { path, version: check.version, from: 'PATH' };
    tried.push(`PATH: ${check.reason}`);
    return null;
  }
  tried.push(`PATH: no ${program.name}`);
  return null;
}

async function inCache(program: ServerProgram, env: Environment, tried: string[]): Promise<FoundProgram | null> {
  const path = await cachedPath(program, env);
  try {
    await access(path, constants.X_OK);
  } catch {
    tried.push(`cache: no ${path}`);
    return null;
  }
  const check = await checkVersion(program, path, true);
  if (check.ok) return { path, version: check.version, from: 'cache' };
  tried.push(`cache: ${check.reason}`);
  return null;
}

async function fromRelease(
  program: ServerProgram,
  path: string,
  options: ResolveOptions & { unreachable: Set<string> },
  tried: string[],
): Promise<FoundProgram | null> {
  const site = releaseSite(options.env);
  if (site === null) {
    tried.push('release: switched off by RATCHET_RELEASES=off');
    return null;
  }
  if (options.unreachable.has(site)) {
    tried.push(`release: ${site} did not answer a moment ago`);
    return null;
  }
  const draft = draftOf(path);
  try {
    await fetchRelease(program, site, draft, options.onProgress, options.signal);
    return await adopt(program, draft, path, 'release', tried);
  } catch (error) {
    if (!(error instanceof ReleaseFailure)) throw error;
    if (error.unreachable) options.unreachable.add(site);
    options.onProgress({ step: `download ${program.name}`, detail: `not possible: ${error.message}` });
    tried.push(`release: ${error.message}`);
    return null;
  } finally {
    await rm(draft, { force: true });
  }
}

async function fromGo(program: ServerProgram, path: string, options: BuildOptions, tried: string[]): Promise<FoundProgram> {
  const found = await goVersion(options.env);
  if (!found.ok) {
    tried.push(`build: ${found.reason}`);
    throw NOTHING_WORKED;
  }
  const draft = draftOf(path);
  try {
    await buildWithGo(program, draft, options);
    const built = await adopt(program, draft, path, 'build', tried);
    if (built) return built;
  } catch (error) {
    tried.push(`build: with Go ${found.version}: ${(error as Error).message}`);
  } finally {
    await rm(draft, { force: true });
  }
  throw NOTHING_WORKED;
}

/** Takes a finished binary into the cache, if it is what it should be. */
async function adopt(
  program: ServerProgram,
  draft: string,
  path: string,
  from: 'release' | 'build',
  tried: string[],
): Promise<FoundProgram | null> {
  const check = await checkVersion(program, draft, true);
  if (!check.ok) {
    tried.push(`${from}: ${check.reason}`);
    return null;
  }
  await rename(draft, path);
  return { path, version: check.version, from };
}

/** Only the holder of the lock makes drafts, so any that is found was left by a holder that died. */
async function removeDrafts(path: string): Promise<void> {
  for (const name of await readdir(dirname(path))) {
    if (name.startsWith(`${basename(path)}.draft-`)) await rm(join(dirname(path), name), { recursive: true, force: true });
  }
}

function draftOf(path: string): string {
  return `${path}.draft-${randomBytes(6).toString('hex')}`;
}

function explain(program: ServerProgram, env: Environment, tried: string[]): string {
  const address = program.name === 'temporal' ? 'TEMPORAL_ADDRESS=host:port' : 'AWS_ENDPOINT_URL_S3=https://…';
  return [
    `${program.title} (${program.name} ${program.version}) is needed and could not be had. Tried in this order:`,
    `  address: ${program.name === 'temporal' ? 'TEMPORAL_ADDRESS is' : 'RATCHET_S3_ENDPOINT, AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL are'} not set`,
    ...tried.map((line) => `  ${line.replaceAll('\n', '\n    ')}`),
    `Any one of these helps: access to ${releaseSite(env) ?? 'the releases (unset RATCHET_RELEASES)'}; Go ${program.goVersion} or later on the PATH (1.21 and later fetch it by`,
    `themselves) with access to a Go module proxy; ${program.name} ${program.version} on the PATH; a server that runs elsewhere, named by ${address}.`,
  ].join('\n');
}
