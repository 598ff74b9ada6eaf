/**
 * Builds a program with Go from its committed tools module, whose go.sum fixes every source. It refuses to run without bound, and to
 * leave anything at the destination that was not built to the end.
 */
import { execFile, spawn } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import type { Environment } from './endpoints.ts';
import { thinned } from './progress.ts';
import type { OnProgress } from './progress.ts';
import type { ServerProgram } from './programs.ts';

const run = promisify(execFile);
/** Reading a version; the first call of a Go that fetches another toolchain is made in the module's directory and may take longer than a moment. */
const GO_VERSION_BOUND_MS = 20_000;
/** From empty caches 2 shared cores took 4 min for the larger one; a slow network and a slow machine together get this much. */
const BUILD_BOUND_MS = 45 * 60_000;
/** From the interrupt that ends a build that took too long until it is killed. */
const INTERRUPT_BOUND_MS = 5_000;
/** The last lines of Go's output are kept for the message of a failure. */
const KEPT_LINES = 12;

/** From this version on, Go fetches a newer toolchain that a module asks for. */
const LEAST_GO: readonly [number, number] = [1, 21];

/** The version of Go on the PATH, such as `1.26.8`, or why there is none that can build. */
export async function goVersion(env: Environment): Promise<{ ok: true; version: string } | { ok: false; reason: string }> {
  try {
    const { stdout } = await run('go', ['version'], { env: env as NodeJS.ProcessEnv, timeout: GO_VERSION_BOUND_MS });
    const match = /go version go(\d+)\.(\d+)(\S*)/.exec(stdout);
    if (!match) return { ok: false, reason: `go version says ${JSON.stringify(stdout.trim())}` };
    const [major, minor] = [Number(match[1]), Number(match[2])];
    const version = `${major}.${minor}${match[3]}`;
    if (major < LEAST_GO[0] || (major === LEAST_GO[0] && minor < LEAST_GO[1]))
      return { ok: false, reason: `Go ${version} is older than ${LEAST_GO.join('.')}` };
    return { ok: true, version };
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    return { ok: false, reason: missing ? 'no go on the PATH' : `go version failed: ${(error as Error).message.split('\n')[0]}` };
  }
}

export interface BuildOptions {
  env: Environment;
  onProgress: OnProgress;
  /** Aborting ends Go and all that it started. */
  signal?: AbortSignal | undefined;
}

/** Builds to `destination`. Throws an Error whose message ends with the last lines that Go printed. */
export async function buildWithGo(program: ServerProgram, destination: string, { env, onProgress, signal }: BuildOptions): Promise<void> {
  const step = `build ${program.name} with Go`;
  const report = thinned(onProgress);
  onProgress({ step, detail: 'fetching sources (the first time takes minutes)' });
  let modules = 0;
  const listed = await go(program, ['list', '-deps', program.goPackage], { env, signal }, (line) => {
    if (line.startsWith('go: downloading ')) report({ step, detail: `sources: ${line.slice(16)}`, done: ++modules });
  });
  const total = listed.filter((line) => !line.startsWith('go: ')).length;
  let done = 0;
  onProgress({ step, detail: 'packages', done, total });
  try {
    const build = ['build', '-v', '-trimpath', '-ldflags', program.ldflags, '-o', destination, program.goPackage];
    await go(program, build, { env, signal }, (line) => {
      if (!line.startsWith('go: ')) done = Math.min(done + 1, total);
      report({ step, detail: 'packages', done, total });
    });
  } catch (error) {
    await rm(destination, { force: true });
    throw error;
  }
  onProgress({ step, detail: 'packages', done: total, total });
}

/** Runs Go in the program's tools module; every line of its output goes to `onLine` and is returned. */
async function go(
  program: ServerProgram,
  args: string[],
  { env, signal }: Pick<BuildOptions, 'env' | 'signal'>,
  onLine: (line: string) => void,
): Promise<string[]> {
  const child = spawn('go', args, {
    cwd: program.toolsModule,
    // A workspace file above this directory, or flags meant for other builds, would change what is built.
    env: { ...(env as NodeJS.ProcessEnv), CGO_ENABLED: '0', GOWORK: 'off', GOFLAGS: '-mod=readonly' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const lines: string[] = [];
  const keep = (line: string): void => {
    lines.push(line);
    onLine(line);
  };
  createInterface({ input: child.stdout }).on('line', keep);
  createInterface({ input: child.stderr }).on('line', keep);
  let timedOut = false;
  // Go ends its compilers and removes its work directory when it is interrupted.
  const interrupt = () => child.kill('SIGINT');
  signal?.addEventListener('abort', interrupt);
  const timers = [
    setTimeout(() => {
      timedOut = true;
      interrupt();
      timers.push(setTimeout(() => child.kill('SIGKILL'), INTERRUPT_BOUND_MS));
    }, BUILD_BOUND_MS),
  ];
  try {
    const code = await new Promise<number | string>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (exitCode, signal) => resolve(exitCode ?? signal ?? 'unknown'));
    });
    if (code === 0) return lines;
    const why = timedOut ? `took longer than ${BUILD_BOUND_MS / 60_000} minutes` : `ended with ${code}`;
    throw new Error(`go ${args[0]} ${why}:\n${lines.slice(-KEPT_LINES).join('\n')}`);
  } finally {
    signal?.removeEventListener('abort', interrupt);
    for (const timer of timers) clearTimeout(timer);
  }
}
