/** The three ways in which a loop can grow: many iterations, many shards in one of them, many loops at once. Each gives figures and judges nothing. */
import type { RecordRef } from '../../artifacts/record.ts';
import { smallRecipe } from './fleet.ts';
import type { Execution, LimitsFleet } from './fleet.ts';
import type { Memory } from './worker.ts';

/** The sizes of a set of histories. */
export interface Histories {
  executions: number;
  /** The largest of them, which is what Temporal's limits are about. */
  mostEvents: number;
  mostBytes: number;
  events: number;
  bytes: number;
}

export interface ManyIterations {
  iterations: number;
  head: RecordRef;
  histories: Histories;
  /** Median time of an iteration in milliseconds, from its first event to its last: of the first tenth of them and of the last. */
  firstMs: number;
  lastMs: number;
  /** The worker's memory after so many iterations. */
  memory: ({ iteration: number } & Memory)[];
  children: number;
}

export async function manyIterations(fleet: LimitsFleet, iterations: number): Promise<ManyIterations> {
  const runId = `iterations-${iterations}`;
  const looks = new Set([0.05, 0.25, 0.5, 0.75, 1].map((share) => Math.ceil(share * iterations)));
  const memory: ManyIterations['memory'] = [];
  const { head } = await fleet.run(runId, smallRecipe(iterations, 1), async (iteration) => {
    if (looks.has(iteration)) memory.push({ iteration, ...(await fleet.memory()) });
  });
  const executions = await fleet.executions(runId, iterations + 1);
  const turns = executions.slice(1).map(({ tookMs }) => tookMs);
  const tenth = Math.max(1, Math.floor(iterations / 10));
  return {
    iterations,
    head,
    histories: histories(executions),
    firstMs: median(turns.slice(0, tenth)),
    lastMs: median(turns.slice(-tenth)),
    memory,
    children: Object.values((await fleet.report()).slots)
      .flat()
      .filter((slot) => slot?.pid).length,
  };
}

export interface ManyShards {
  shards: number;
  head: RecordRef;
  /** Of the loop's own executions, and of those that it handed shards to. */
  loop: Histories;
  children: Histories;
  tookMs: number;
}

export async function manyShards(fleet: LimitsFleet, shards: number): Promise<ManyShards> {
  const runId = `shards-${shards}`;
  const startedAt = performance.now();
  const { head } = await fleet.run(runId, smallRecipe(1, shards));
  const tookMs = performance.now() - startedAt;
  const executions = await fleet.executions(runId, 2);
  const own = (execution: Execution) => execution.workflow === runId;
  return {
    shards,
    head,
    loop: histories(executions.filter(own)),
    children: histories(executions.filter((execution) => !own(execution))),
    tookMs,
  };
}

export interface ManyLoops {
  loops: number;
  iterations: number;
  completed: number;
  heads: number;
  tookMs: number;
  histories: Histories;
  /** How late the worker's event loop came to its timers, in milliseconds. */
  eventLoopDelayMs: { max: number; p99: number };
  memory: { before: Memory; after: Memory };
}

/** Loops of one recipe and as many seeds, so that as many heads must come out. */
export async function manyLoops(fleet: LimitsFleet, loops: number, iterations = 2): Promise<ManyLoops> {
  const before = await fleet.memory();
  const startedAt = performance.now();
  const ids = Array.from({ length: loops }, (_, n) => `loops-${loops}-${n}`);
  const results = await Promise.all(ids.map((id, n) => fleet.run(id, smallRecipe(iterations, 1, n))));
  const tookMs = performance.now() - startedAt;
  const executions = await Promise.all(ids.map((id) => fleet.executions(id, iterations + 1)));
  return {
    loops,
    iterations,
    completed: results.filter((result) => result.iterations === iterations).length,
    heads: new Set(results.map(({ head }) => head.sha256)).size,
    tookMs,
    histories: histories(executions.flat()),
    eventLoopDelayMs: (await fleet.report()).eventLoopDelayMs,
    memory: { before, after: await fleet.memory() },
  };
}

function histories(executions: readonly Execution[]): Histories {
  const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
  const events = executions.map((execution) => execution.events);
  const bytes = executions.map((execution) => execution.bytes);
  return {
    executions: executions.length,
    mostEvents: Math.max(0, ...events),
    mostBytes: Math.max(0, ...bytes),
    events: sum(events),
    bytes: sum(bytes),
  };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
