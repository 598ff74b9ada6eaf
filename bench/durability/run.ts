/**
 * What durability costs: the same recipe through Temporal and its workers (`ratchet start`) and in one process (`bench/inline-loop.ts`), in turns on the
 * same servers, each round with another seed so that nothing is remembered. Prints the wall times and their ratio, and itemises the durable run: how long
 * activities waited for a worker, how long no activity ran at all, and the requests to the store on both sides (of the workers and of the one process; until
 * answers began, summed over what went on at once). Writes `durability-cost.json`.
 *
 *   node bench/durability/run.ts [--scale micro] [--recipe agentprm-household] [--rounds 1] [--seed 1] [--set field=value ...] [--out docs]
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Client, Connection } from '@temporalio/client';
import { endpointEnvironment } from '../../infra/endpoints.ts';
import { freePort, LOOPBACK } from '../../infra/ports.ts';
import { ensureServers } from '../../infra/servers.ts';
import { ALLOCATOR_ENVIRONMENT } from '../../learning/compute/allocator.ts';
import { median } from '../learning/pairing.ts';
import { activitiesOf, idleSeconds } from './history.ts';
import type { ActivitySums } from './history.ts';

const { values } = parseArgs({
  options: {
    recipe: { type: 'string', default: 'agentprm-household' },
    scale: { type: 'string', default: 'micro' },
    rounds: { type: 'string', default: '1' },
    seed: { type: 'string', default: '1' },
    set: { type: 'string', multiple: true, default: [] },
    out: { type: 'string' },
  },
});

const ROOT = join(import.meta.dirname, '../..');
const home = mkdtempSync(join(tmpdir(), 'ratchet-bench-durability-'));
const metrics = `${LOOPBACK}:${await freePort()}`;
const env = { ...process.env, RATCHET_HOME: home, RATCHET_METRICS: metrics };

/** Workers tell their metrics once a second. */
const TOLD_WITHIN_MS = 2_500;

interface Requests {
  requests: number;
  seconds: number;
}
/** What the workers have asked of the store so far. */
async function workersRequests(): Promise<Requests> {
  await delay(TOLD_WITHIN_MS);
  const text = await (await fetch(`http://${metrics}/metrics`)).text();
  const sum = (name: string) =>
    [...text.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\d+)`, 'gm'))].reduce((total, [, value]) => total + Number(value), 0);
  return { requests: sum('ratchet_store_requests_total'), seconds: sum('ratchet_store_milliseconds_total') / 1000 };
}

/** Runs a program of the repository and returns its seconds and what it printed, which is shown, too. Throws where it fails. */
async function timed(args: string[], more: Record<string, string | undefined> = {}): Promise<{ seconds: number; printed: string }> {
  const start = performance.now();
  const child = spawn(process.execPath, args, { cwd: ROOT, env: { ...env, ...more }, stdio: ['ignore', 'pipe', 'inherit'] });
  let printed = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    printed += text;
    process.stdout.write(text);
  });
  const code = await new Promise((resolve) => child.once('close', resolve));
  if (code !== 0) throw new Error(`${args.join(' ')} ended with ${String(code)}`);
  return { seconds: (performance.now() - start) / 1000, printed };
}

interface Round {
  seed: number;
  inline: { seconds: number; store: Requests };
  durable: { seconds: number; store: Requests; activities: Record<string, ActivitySums>; idleSeconds: number; workflowSeconds: number };
}

const ratchet = (...args: string[]) => execFileSync(process.execPath, ['cli/ratchet.js', ...args], { cwd: ROOT, env, stdio: 'inherit' });

const rounds: Round[] = [];
ratchet('up');
try {
  const servers = await ensureServers({ home, onProgress: () => undefined });
  const endpoints = endpointEnvironment(servers.endpoints);
  const connection = await Connection.connect({ address: servers.endpoints.temporal.address });
  const client = new Client({ connection });
  for (let round = 0; round < Number(values.rounds); round++) {
    const seed = Number(values.seed) + round;
    const what = [
      '--recipe',
      values.recipe,
      '--scale',
      values.scale,
      '--seed',
      String(seed),
      ...values.set.flatMap((one) => ['--set', one]),
    ];
    const inlineRound = async () => {
      const { seconds, printed } = await timed(['bench/inline-loop.ts', ...what, '--id', `inline-${seed}`], {
        ...endpoints,
        ...ALLOCATOR_ENVIRONMENT,
      });
      const [, requests, spent] = /^store: (\d+) requests, ([\d.]+) s$/m.exec(printed) ?? [];
      return { seconds, store: { requests: Number(requests), seconds: Number(spent) } };
    };
    const durableRound = async () => {
      const before = await workersRequests();
      const { seconds } = await timed(['cli/ratchet.js', 'start', ...what, '--id', `durable-${seed}`]);
      const after = await workersRequests();
      return { seconds, store: { requests: after.requests - before.requests, seconds: after.seconds - before.seconds } };
    };
    // Who begins changes from round to round: caches of the system are warmer for the second.
    const first = round % 2 === 0 ? await inlineRound() : undefined;
    const durable = await durableRound();
    const inline = first ?? (await inlineRound());
    const history = await activitiesOf(client, `durable-${seed}`);
    rounds.push({ seed, inline, durable: { ...durable, activities: history.sums, ...idleSeconds(history) } });
  }
  await connection.close();
  await servers.release();
} finally {
  ratchet('down');
  rmSync(home, { recursive: true, force: true });
}

const ratio = median(rounds.map(({ inline, durable }) => durable.seconds / inline.seconds));
console.log(
  `\n| seed | one process, s | durable, s | durable over one process | no activity ran, s | requests to the store (one process / durable) | their seconds |`,
);
console.log('|---|---|---|---|---|---|---|');
for (const { seed, inline, durable } of rounds)
  console.log(
    `| ${[
      seed,
      inline.seconds.toFixed(1),
      durable.seconds.toFixed(1),
      `${(durable.seconds / inline.seconds).toFixed(3)}`,
      durable.idleSeconds.toFixed(1),
      `${inline.store.requests} / ${durable.store.requests}`,
      `${inline.store.seconds.toFixed(1)} / ${durable.store.seconds.toFixed(1)}`,
    ].join(' | ')} |`,
  );
console.log('\n| activity (first round) | how many | waited for a worker, s | ran, s |\n|---|---|---|---|');
for (const [name, { count, waited, ran }] of Object.entries(rounds[0]!.durable.activities).toSorted(([, a], [, b]) => b.ran - a.ran))
  console.log(`| ${name} | ${count} | ${waited.toFixed(2)} | ${ran.toFixed(2)} |`);
console.log(`\ndurable over one process: ${ratio.toFixed(3)} (median of ${rounds.length}); load now ${loadavg()[0]!.toFixed(1)}`);
if (values.out !== undefined)
  writeFileSync(
    join(values.out, 'durability-cost.json'),
    `${JSON.stringify({ recipe: values.recipe, scale: values.scale, ratio, rounds }, null, 2)}\n`,
  );
