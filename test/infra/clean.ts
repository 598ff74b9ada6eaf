/** What the tests of infra/ share: an environment that names no servers, directories that vanish, and waiting for a condition with a bound. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Environment } from '../../infra/endpoints.ts';

/** This process's environment without the servers that the test command brought up, so that servers of one's own are started. */
export function cleanEnvironment(extra: Environment = {}): Environment {
  const env: Environment = { ...process.env };
  for (const name of Object.keys(env)) if (/^(TEMPORAL_|AWS_|RATCHET_(S3_|BUCKET|HOME|RELEASES))/.test(name)) delete env[name];
  return { ...env, ...extra };
}

/** A new directory that is removed after the tests of the file. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'ratchet-infra-'));
  after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Polls until the condition holds; fails with `what` after `boundMs`. Returns how long it took. */
export async function until(what: string, condition: () => boolean | Promise<boolean>, boundMs = 20_000): Promise<number> {
  const start = performance.now();
  while (!(await condition())) {
    if (performance.now() - start > boundMs) throw new Error(`${what}: not within ${boundMs} ms`);
    await delay(10);
  }
  return performance.now() - start;
}
