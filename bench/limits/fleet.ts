/**
 * One worker on real servers, with stages that answer at once, and what a run left behind: the size of every history, its times, the memory of the worker.
 * It measures and judges nothing.
 */
import { Client, Connection, type WorkflowHandle } from '@temporalio/client';
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { createRun, recordKey } from '../../artifacts/run-log.ts';
import { storeConfigFromEnvironment } from '../../artifacts/store-config.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import { digestJson } from '../../core/digest.ts';
import { endpointEnvironment, ensureServers } from '../../infra/servers.ts';
import type { Traces } from '../../infra/traces.ts';
import { loadRecipe } from '../../recipes/load.ts';
import type { Recipe } from '../../recipes/schema.ts';
import { readWorkerReports } from '../../workers/report.ts';
import type { WorkerReport } from '../../workers/report.ts';
import type { LoopInput, LoopResult } from '../../workflows/durable-loop.ts';
import type { improvementLoop } from '../../workflows/index.ts';
import { taskQueue } from '../../workflows/task-queues.ts';
import type { Memory } from './worker.ts';

/** How often a run is asked how far it is. */
const LOOK_EVERY_MS = 250;
/** Visibility follows the histories within a second or two; a busy machine gets this long. */
const VISIBILITY_BOUND_MS = 30_000;

/** One workflow execution after its end. */
export interface Execution {
  workflow: string;
  type: string;
  events: number;
  bytes: number;
  startedAtMs: number;
  tookMs: number;
}

export interface LimitsFleet {
  store: ArtifactStore;
  client: Client;
  /** Starts a run, anew or where its records end. `input`: what is not as for everybody. */
  start(runId: string, recipe: Recipe, input?: Partial<LoopInput>): Promise<WorkflowHandle<typeof improvementLoop>>;
  /** Starts a run; `result` settles with its end. `onIteration` is told of every closed iteration, soon after. */
  run(runId: string, recipe: Recipe, onIteration?: (iteration: number) => Promise<void>): Promise<LoopResult>;
  /** The executions of a run and of its children, in the order of their starts. Waits until `least` of them are known. */
  executions(runId: string, least: number): Promise<Execution[]>;
  memory(): Promise<Memory>;
  report(): Promise<WorkerReport>;
  /** `kill -9` of the worker; `wake` starts another, whose shards take at least so many milliseconds, and waits until it is ready. */
  kill(): Promise<void>;
  wake(shardMs?: number): Promise<void>;
  close(): Promise<void>;
}

/** A recipe of the smallest stages: `iterations`, each with `tasks` shards to collect. */
export function smallRecipe(iterations: number, tasks: number, seed = 1): Recipe {
  return loadRecipe('agentprm-household', {
    scale: 'micro',
    seed,
    overrides: [
      `iterations=${iterations}`,
      `collect.tasks=${tasks}`,
      'collect.repeats=1',
      'warmStart.demonstrations=1',
      `panels={train: ${1 + iterations * tasks}, validation: 1, seen: 1, unseen: 1}`,
      'update.steps=2',
      'pairTruth.pairs=0',
      'gate.strategies=[{kind: greedy}]',
      'report={strategies: [{kind: greedy}], panels: [unseen]}',
      'work.shardEpisodes=1',
      'work.liveEpisodes=1',
    ],
  });
}

/** `traces`: with what the runs are traced. */
export async function startLimitsFleet(traces: Traces | null = null): Promise<LimitsFleet> {
  const directory = await mkdtemp(join(tmpdir(), 'ratchet-limits-'));
  const servers = await ensureServers({
    home: join(directory, 'servers'),
    onProgress: ({ step, detail }) => console.error(`${step}: ${detail}`),
  });
  const environment = endpointEnvironment(servers.endpoints);
  const connection = await Connection.connect({ address: servers.endpoints.temporal.address });
  const { namespace } = servers.endpoints.temporal;
  const client = new Client({ connection, namespace, ...(traces && { interceptors: { workflow: [traces.client] } }) });
  const store = ArtifactStore.connect(storeConfigFromEnvironment(environment));
  const home = join(directory, 'home');
  const fleet = `limits-${process.pid}-${Date.now()}`;
  let worker: ChildProcess | null = null;
  let ended: Promise<never> = new Promise(() => {});
  const told = async <T>(): Promise<T> => (await Promise.race([once(worker as ChildProcess, 'message'), ended]))[0] as T;
  const wake = async (shardMs = 0): Promise<void> => {
    worker = fork(fileURLToPath(new URL('./worker.ts', import.meta.url)), {
      env: {
        ...process.env,
        ...environment,
        RATCHET_HOME: home,
        RATCHET_FLEET: fleet,
        RATCHET_LOG_LEVEL: 'WARN',
        RATCHET_LIMITS_SHARD_MS: `${shardMs}`,
      },
      execArgv: ['--expose-gc'],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    ended = once(worker, 'exit').then(([code]) => Promise.reject(new Error(`the worker ended with ${code}`)));
    ended.catch(() => {});
    await told();
  };
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    worker?.kill(signal);
    if (worker) await ended.catch(() => {});
    worker = null;
  };
  const start: LimitsFleet['start'] = async (runId, recipe, input = {}) => {
    await createRun(store, runId, recipe);
    return await client.workflow.start<typeof improvementLoop>('improvementLoop', {
      workflowId: runId,
      taskQueue: taskQueue('loop', fleet),
      args: [
        {
          runId,
          recipe,
          recipeSha256: digestJson(recipe),
          initial: null,
          state: null,
          control: { paused: false, stopping: false, amendments: [] },
          ...input,
        },
      ],
    });
  };
  await wake();
  return {
    store,
    client,
    start,
    async run(runId, recipe, onIteration) {
      const result = (await start(runId, recipe)).result();
      if (onIteration) await followed(store, runId, recipe.iterations, result, onIteration);
      return await result;
    },
    async executions(runId, least) {
      const query = `WorkflowId = '${runId}' OR RootWorkflowId = '${runId}'`;
      const deadline = performance.now() + VISIBILITY_BOUND_MS;
      for (;;) {
        const found = new Map<string, Execution>();
        for await (const { workflowId, runId: execution, type, historyLength, historySize, startTime, closeTime } of client.workflow.list({
          query,
        }))
          if (closeTime)
            found.set(execution, {
              workflow: workflowId,
              type,
              events: historyLength,
              bytes: historySize ?? 0,
              startedAtMs: startTime.getTime(),
              tookMs: closeTime.getTime() - startTime.getTime(),
            });
        if (found.size >= least) return [...found.values()].sort((a, b) => a.startedAtMs - b.startedAtMs);
        if (performance.now() > deadline) throw new Error(`${found.size} of ${least} executions of ${runId} are known to Temporal`);
        await delay(LOOK_EVERY_MS);
      }
    },
    async memory() {
      worker?.send('memory');
      return await told<Memory>();
    },
    async report() {
      const [report] = await readWorkerReports(home);
      if (!report) throw new Error('the worker has not reported');
      return report;
    },
    kill: () => end('SIGKILL'),
    wake,
    async close() {
      await end('SIGTERM');
      store.close();
      await connection.close();
      await servers.stop();
      await rm(directory, { recursive: true });
    },
  };
}

/** Calls `onIteration` for every iteration that is closed, until the last is or the run ends otherwise. */
async function followed(
  store: ArtifactStore,
  runId: string,
  iterations: number,
  result: Promise<unknown>,
  onIteration: (iteration: number) => Promise<void>,
): Promise<void> {
  for (let iteration = 0; iteration <= iterations; iteration++) {
    // Records: genesis, then an intent and an outcome for the warm start and for each iteration.
    while ((await store.size(recordKey(runId, 2 * iteration + 2))) === null) {
      const failed = result.then(
        () => null,
        (error: unknown) => ({ error }),
      );
      const looked = await Promise.race([failed, delay(LOOK_EVERY_MS)]);
      if (looked) throw looked.error;
    }
    await onIteration(iteration);
  }
}
