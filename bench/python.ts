/**
 * The Python environments of the benchmarks: a virtual environment per list of pinned packages, made once under `.ratchet/`. With `RATCHET_PYTHON`
 * that interpreter is used as it is, whatever it has installed. Nothing outside `bench/` needs Python.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(import.meta.dirname, '..');

function must(command: string, args: string[]): void {
  const { status, error } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? `exit code ${status}`}`);
}

/**
 * The interpreter of an environment with the packages that a requirements file pins, and those of `alone` without what they depend on. Takes minutes the
 * first time.
 */
export function pythonWith(requirements: string, alone: readonly string[] = []): string {
  const given = process.env['RATCHET_PYTHON'];
  if (given) return given;
  const digest = createHash('sha256').update(readFileSync(requirements)).update(alone.join(' ')).digest('hex').slice(0, 12);
  const folder = join(ROOT, '.ratchet', `python-${digest}`);
  const ready = join(folder, 'bin', 'python');
  if (existsSync(ready)) return ready;
  console.error(`making a Python environment with the packages of ${requirements} in ${folder}; this takes some minutes`);
  // Under another name until it is complete: an interrupted installation is never taken for an environment.
  const draft = `${folder}.draft`;
  rmSync(draft, { recursive: true, force: true });
  must('python3', ['-m', 'venv', draft]);
  const install = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check'];
  must(join(draft, 'bin', 'python'), [...install, '-r', requirements]);
  if (alone.length > 0) must(join(draft, 'bin', 'python'), [...install, '--no-deps', ...alone]);
  renameSync(draft, folder);
  return ready;
}

/** Runs a Python script to its end, its output shown; throws when it fails. */
export function runPython(requirements: string, script: string, args: string[]): void {
  must(pythonWith(requirements), [script, ...args]);
}
