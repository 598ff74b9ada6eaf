/** Runs the real command in a process of its own, as a person would, in a home of its own. */
import { spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const ENTRY = join(import.meta.dirname, '..', '..', 'cli', 'ratchet.js');

/** No command here trains; one that takes longer than this hangs. */
const TIMEOUT_MS = 60_000;

export interface Ended {
  code: number | null;
  out: string;
  err: string;
  ms: number;
}

/** A home that does not exist yet: a command that makes it has done more than look. */
export function freshHome(): string {
  return join(mkdtempSync(join(tmpdir(), 'ratchet-test-cli-')), 'home');
}

export async function ratchet(
  args: string[],
  options: { env?: NodeJS.ProcessEnv; input?: string; cwd?: string; node?: string } = {},
): Promise<Ended> {
  const started = performance.now();
  const child = spawn(options.node ?? process.execPath, [ENTRY, ...args], {
    env: { ...process.env, RATCHET_HOME: freshHome(), ...options.env },
    cwd: options.cwd ?? process.cwd(),
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
  let [out, err] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
  child.stdin.end(options.input ?? '');
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('close', resolve);
    child.on('error', reject);
  });
  return { code, out, err, ms: performance.now() - started };
}

/** The environment without any server, so that only the home could have one. */
export const NO_SERVERS: NodeJS.ProcessEnv = {
  TEMPORAL_ADDRESS: '',
  RATCHET_S3_ENDPOINT: '',
  AWS_ENDPOINT_URL_S3: '',
  AWS_ENDPOINT_URL: '',
};
