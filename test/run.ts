/**
 * The test command: checks types, lint and format, then runs every test file on real servers, which it brings up once for all of them.
 * Ends with `N passed, N failed, N skipped` alone on a line; exit code 0 only if something passed and nothing failed. Tests skip only what this
 * machine lacks, and say so.
 */
import { spawnSync } from 'node:child_process';
import { globSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { endpointEnvironment, ensureServers } from '../infra/servers.ts';

/** No single test file may take longer; a file that hangs is a failure, not a stuck build. */
const FILE_TIMEOUT_MS = 15 * 60_000;
/** Test files at a time: one per core of the smallest machine that is supported. */
const CONCURRENCY = 2;

/** What takes more than half a minute, the longest first: begun late, it would run on alone. The first takes as long as most others in the other place. */
const LONGEST = [
  'e2e/kills',
  'e2e/run',
  'e2e/outage',
  'e2e/steering',
  'workers/durability',
  'artifacts/gc',
  'e2e/cancelled',
  'workers/limits',
  'workers/versions',
].map((name) => join('test', `${name}.test.ts`));

const only = process.argv.slice(2);
let passed = 0;
let skipped = 0;
/** By name, said again at the end: among hundreds of lines a failed check of the format was not seen. */
const failed: string[] = [];

for (const [what, command, args] of [
  ['types', 'tsc', ['-p', '.']],
  ['lint', 'oxlint', []],
  ['format', 'prettier', ['--check', '--log-level', 'warn', '.']],
] as const) {
  if (only.length > 0) break;
  const { status } = spawnSync(join('node_modules', '.bin', command), args, { stdio: 'inherit' });
  if (status === 0) passed++;
  else failed.push(what);
  console.log(`${status === 0 ? '✔' : '✖'} ${what}`);
}

const home = mkdtempSync(join(tmpdir(), 'ratchet-test-'));
const servers = await ensureServers({ home, onProgress: ({ step, detail }) => console.log(`${step}: ${detail}`) });
Object.assign(process.env, endpointEnvironment(servers.endpoints));
// Hundreds of processes read the same modules, and dozens of homes need the same workflow bundle.
const bundles = join(home, 'bundles');
mkdirSync(bundles);
Object.assign(process.env, { NODE_COMPILE_CACHE: join(tmpdir(), 'node-compile-cache'), RATCHET_TEST_BUNDLES: bundles });
try {
  const all = globSync('test/**/*.test.ts').sort();
  const rank = (file: string): number => (LONGEST.includes(file) ? LONGEST.indexOf(file) : LONGEST.length);
  const files = only.length > 0 ? only : all.toSorted((a, b) => rank(a) - rank(b));
  const stream = run({ files, concurrency: CONCURRENCY, timeout: FILE_TIMEOUT_MS });
  stream.on('test:pass', (event) => {
    if (event.details.type === 'suite') return;
    if (event.skip !== undefined || event.todo !== undefined) {
      skipped++;
      console.log(`skipped: ${event.name}: ${event.skip ?? event.todo}`);
    } else passed++;
  });
  stream.on('test:fail', (event) => {
    // A suite fails with its tests, which are counted themselves; one that fails by itself (its body, its hooks) is counted too.
    const cause = (event.details.error as { failureType?: string } | undefined)?.failureType;
    if (event.details.type !== 'suite' || cause !== 'subtestsFailed') failed.push(`${event.name} (${event.file})`);
  });
  stream.compose(new spec()).pipe(process.stdout);
  await new Promise((resolve) => stream.once('close', resolve).once('end', resolve));
} finally {
  await servers.stop();
  rmSync(home, { recursive: true, force: true });
}
console.log(`\n${failed.map((name) => `failed: ${name}\n`).join('')}${passed} passed, ${failed.length} failed, ${skipped} skipped`);
process.exitCode = failed.length > 0 || passed === 0 ? 1 : 0;
