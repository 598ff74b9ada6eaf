/**
 * What a server binary says about its version, and whether that will do. It refuses a binary that does not answer, or answers something else.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { ServerProgram } from './programs.ts';

const run = promisify(execFile);
/** Both answer in 50 ms when cached; the first read of 138 MB from a slow disk on a busy machine takes seconds. */
const VERSION_BOUND_MS = 20_000;

export type VersionCheck = { ok: true; version: string } | { ok: false; reason: string };

/** Runs `binary --version`. `exact` accepts only the pinned version (our own cache); otherwise the pinned one or a later one of the same major version. */
export async function checkVersion(program: ServerProgram, binary: string, exact: boolean): Promise<VersionCheck> {
  let output: string;
  try {
    ({ stdout: output } = await run(binary, ['--version'], { timeout: VERSION_BOUND_MS, killSignal: 'SIGKILL' }));
  } catch (error) {
    return { ok: false, reason: `${binary} --version failed: ${(error as Error).message.split('\n')[0]}` };
  }
  const version = parseVersion(program, output);
  if (version === null) {
    const shown = JSON.stringify(output.trim().split('\n')[0]?.slice(0, 80));
    return { ok: false, reason: `${binary} --version says ${shown}, which is not ${program.name}` };
  }
  if (exact ? version === program.version : isAtLeast(version, program.version)) return { ok: true, version };
  return {
    ok: false,
    reason: `${binary} is version ${version}, needed is ${program.version}${exact ? '' : ' or later of the same major version'}`,
  };
}

/** The version in the output of `--version`, without a leading v; null where the output is not that program's. */
export function parseVersion(program: ServerProgram, output: string): string | null {
  return program.versionPattern.exec(output)?.[1] ?? null;
}

/** Same major version and not older. A pre-release (`1.8.2-rc.1`) is older than its release. */
export function isAtLeast(version: string, minimum: string): boolean {
  const [found, wanted] = [parts(version), parts(minimum)];
  if (found.numbers[0] !== wanted.numbers[0]) return false;
  for (let i = 1; i < 3; i++) {
    const difference = (found.numbers[i] ?? 0) - (wanted.numbers[i] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return found.preRelease === '' || found.preRelease === wanted.preRelease;
}

function parts(version: string): { numbers: number[]; preRelease: string } {
  const [release = '', ...rest] = version.split('-');
  return { numbers: release.split('.').map(Number), preRelease: rest.join('-') };
}
