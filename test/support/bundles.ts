/** Workflow bundles, which are named by digest, are built once for all homes of a test run (test/run.ts) instead of once for each. */
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';

/** To be called before the home is used. Without `RATCHET_TEST_BUNDLES`, where a single file runs by itself, the home builds its own. */
export function shareBundles(home: string): void {
  const shared = process.env['RATCHET_TEST_BUNDLES'];
  if (!shared) return;
  mkdirSync(home, { recursive: true });
  symlinkSync(shared, join(home, 'cache'));
}
