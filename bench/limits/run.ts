/**
 * What a loop that grows costs: histories against Temporal's limits (it warns at 10,240 events or 10 MiB and ends a workflow at 51,200 or 50 MiB), time per
 * iteration, memory of the worker. Real servers, worker and compute children; only the stages answer at once.
 *
 *   node bench/limits/run.ts [--only iterations|shards|loops] [--iterations 1000] [--shards 10000] [--loops 100] [--json FILE]
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { badInput } from '../../core/errors.ts';
import { startLimitsFleet } from './fleet.ts';
import { manyIterations, manyLoops, manyShards, type Histories } from './scenarios.ts';

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    iterations: { type: 'string', default: '1000' },
    shards: { type: 'string', default: '10000' },
    loops: { type: 'string', default: '100' },
    json: { type: 'string' },
  },
});
const SCENARIOS = { iterations: manyIterations, shards: manyShards, loops: manyLoops };
const names = Object.keys(SCENARIOS) as (keyof typeof SCENARIOS)[];
if (values.only !== undefined && !names.includes(values.only as 'loops'))
  throw badInput('--only', values.only, `one of ${names.join(', ')}`);

const MIB = 2 ** 20;
const mib = (bytes: number) => `${(bytes / MIB).toFixed(bytes < 10 * MIB ? 2 : 0)} MiB`;
const sizes = (of: string, { executions, mostEvents, mostBytes, events, bytes }: Histories) => ({
  histories: of,
  executions,
  'largest, events': mostEvents,
  'largest, bytes': mib(mostBytes),
  'all, events': events,
  'all, bytes': mib(bytes),
});
const figures: Record<string, unknown> = {};
for (const name of names) {
  if (values.only !== undefined && values.only !== name) continue;
  const size = Number(values[name]);
  // A worker of its own for each, so that its memory is that of this alone.
  const fleet = await startLimitsFleet();
  try {
    if (name === 'iterations') {
      const found = await manyIterations(fleet, size);
      figures[name] = found;
      console.log(`\n${size} iterations of one loop (head ${found.head.sha256.slice(0, 12)})`);
      console.table([sizes('of the loop, one per iteration', found.histories)]);
      console.log(`median time of an iteration: first tenth ${found.firstMs.toFixed(0)} ms, last tenth ${found.lastMs.toFixed(0)} ms`);
      console.table(
        found.memory.map(({ iteration, rssBytes, heapBytes }) => ({ iteration, 'worker, resident': mib(rssBytes), heap: mib(heapBytes) })),
      );
    }
    if (name === 'shards') {
      const found = await manyShards(fleet, size);
      figures[name] = found;
      console.log(`\n${size} shards in one iteration (head ${found.head.sha256.slice(0, 12)}), ${(found.tookMs / 1000).toFixed(0)} s`);
      console.table([sizes('of the loop', found.loop), sizes('that it handed shards to', found.children)]);
    }
    if (name === 'loops') {
      const found = await manyLoops(fleet, size);
      figures[name] = found;
      const { loops, iterations, completed, heads, tookMs, eventLoopDelayMs, memory } = found;
      console.log(
        `\n${loops} loops of ${iterations} iterations at once: ${completed} completed, ${heads} heads, ${(tookMs / 1000).toFixed(0)} s`,
      );
      console.table([sizes('of all loops', found.histories)]);
      console.log(`event loop of the worker: at most ${eventLoopDelayMs.max} ms late, 99 % below ${eventLoopDelayMs.p99} ms`);
      console.log(`worker, resident: ${mib(memory.before.rssBytes)} before, ${mib(memory.after.rssBytes)} after`);
    }
  } finally {
    await fleet.close();
  }
}
if (values.json) writeFileSync(values.json, `${JSON.stringify(figures, null, 2)}\n`);
