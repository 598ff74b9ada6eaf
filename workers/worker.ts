/**
 * A worker process: hosts one or more roles, each a Temporal Worker on the task queue of its resource, over one connection. Stages run in compute children
 * (learning/compute/); this process only talks to Temporal, so its event loop stays free. It keeps nothing on disk that another worker would need.
 */
import { Client } from '@temporalio/client';
import { NativeConnection, Runtime, Worker } from '@temporalio/worker';
import type { InjectedSinks, Logger, NativeConnectionOptions } from '@temporalio/worker';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createRecordActivities, createStageActivities } from '../activities/activities.ts';
import type { Queue } from '../activities/stage.ts';
import { signingKey } from '../artifacts/attestation.ts';
import { noteEnding } from '../artifacts/ending.ts';
import { addRequests, requestsSince, type StoreRequests } from '../artifacts/store-requests.ts';
import { ArtifactStore } from '../artifacts/store.ts';
import { storeConfigFromEnvironment } from '../artifacts/store-config.ts';
import { badInput, RatchetError } from '../core/errors.ts';
import { connectionFailure, temporalConfig } from '../infra/temporal-config.ts';
import { startTraces, type Traces } from '../infra/traces.ts';
import { ComputePool } from '../learning/compute/pool.ts';
import { providerEnvironment } from '../learning/providers.ts';
import type { EndingSinks } from '../workflows/ending.ts';
import { taskQueue } from '../workflows/task-queues.ts';
import type { TraceSinks } from '../workflows/traces.ts';
import { buildId, workflowBundle } from './bundle.ts';
import type { WorkerConfig } from './config.ts';
import { giveBack } from './give-back.ts';
import { readDeadIdentities, startReporter } from './report.ts';
import { keepTakingOver } from './take-over.ts';
import { ownMetrics, telemetryOptions, workerLogger } from './telemetry.ts';

/** How long a starting worker goes on trying to reach Temporal: a supervised server that was just killed is back within this. */
const CONNECT_PATIENCE_MS = 30_000;
const CONNECT_PAUSE_MS = 500;
/** Beyond the wait for checkpoints (`stopBoundMs`), the time to report the stop; then the process ends whatever is left. Together below 30 s. */
const FORCE_MARGIN_MS = 6_000;
/** Heartbeats reach the server, and cancellations come back, at least this often; without it the SDK waits for 80 % of the heartbeat timeout. */
const HEARTBEAT_THROTTLE_MS = 1_000;
/**
 * A workflow is first offered to the worker that has it in memory. One that lives takes it within milliseconds; when it was killed, this is how long every
 * workflow that it held stands still. Too short only costs a replay.
 */
const STICKY_BOUND_MS = 3_000;

/** What the worker runs. */
export interface WorkerCode {
  /** Every stage and the queue that carries it. */
  stageQueues: Readonly<Record<string, Queue>>;
  /** file: URL of the module that compute children import. */
  jobModule: string;
  /** Path of the module that exports the workflows. */
  workflowsPath: string;
}

export interface RunningWorker {
  /** Settles when every role has ended: normally only after `drain`. Rejects when Temporal refuses the worker or the drain was cut off. */
  readonly ended: Promise<void>;
  /** Takes no more work, asks running stages for a checkpoint, waits for it within bounds. */
  drain(): void;
  /** Asks every running stage for a checkpoint; they go on. */
  checkpoint(): void;
}

/** Throws BadInput for addresses or credentials that cannot be meant and Unavailable when Temporal cannot be reached. */
export async function startWorker(config: WorkerConfig, code: WorkerCode): Promise<RunningWorker> {
  const roles = Object.keys(config.queues) as Queue[];
  const logger = workerLogger(config);
  // Signals are handled by the process (process.ts), for all roles together.
  const own = ownMetrics(installRuntime(config, logger));
  // Before anything is started: a store that cannot be meant would fail every stage.
  const storeConfig = storeConfigFromEnvironment(process.env);
  const { connectionOptions, namespace = 'default' } = temporalConfig();
  const build = await buildId(code.workflowsPath);
  const bundle = roles.includes('loop') ? await workflowBundle(code.workflowsPath, build, join(config.home, 'cache'), logger) : null;
  const connection = await connect(connectionOptions);

  const identity = `${hostname()}/${process.pid}`;
  const client = new Client({ connection, namespace });
  const queue = taskQueue('loop', config.fleet);
  // Before this worker takes anything on: where it has the pid of a dead one (in a container), what is held under their name is the dead one's.
  await giveBack(client, queue, await readDeadIdentities(config.home), identity).catch((error: unknown) =>
    logger.warn(`what a dead worker held cannot be given back; its missing heartbeats will do it: ${String(error)}`),
  );
  const store = ArtifactStore.connect(storeConfig);
  // Of this process and of its children, since they were told last.
  let untold: StoreRequests = {};
  let counted: StoreRequests = {};
  const onRequests = (more: StoreRequests): void => addRequests(untold, more);
  const traces = config.traces ? await startTraces('ratchet-worker', (message) => logger.warn(message)) : null;
  const sinks = { ...endingSinks(store), ...traceSinks(traces) };
  const pools: Partial<Record<Queue, ComputePool>> = {};
  const workers: Worker[] = [];
  for (const role of roles) {
    const { slots, lanes, memoryBytes, provider } = config.queues[role]!;
    const onLine = (slot: number, line: string): void => logger.info(line, { compute: `${role}/${slot}` });
    const env = providerEnvironment(provider);
    const pool = new ComputePool({ slots, lanes, memoryBytes, env, jobModule: code.jobModule, onLine });
    pools[role] = pool;
    // A device that is not there would fail every stage: nothing is taken on.
    if (provider.name !== 'cpu') await pool.warmUp();
    const names = Object.keys(code.stageQueues).filter((name) => code.stageQueues[name] === role);
    const { stallBoundMs, stopBoundMs } = config;
    workers.push(
      await Worker.create({
        connection,
        namespace,
        identity,
        workerDeploymentOptions: {
          version: { deploymentName: config.fleet, buildId: build },
          ...(config.versioning === 'pinned'
            ? { useWorkerVersioning: true, defaultVersioningBehavior: 'PINNED' }
            : { useWorkerVersioning: false }),
        },
        taskQueue: taskQueue(role, config.fleet),
        activities: {
          ...createStageActivities({ names, pool, stallBoundMs, stopBoundMs, onRequests }),
          ...(role === 'loop' && createRecordActivities(store, signingKey(config.signingKey))),
        },
        ...(role === 'loop' && bundle && { workflowBundle: { codePath: bundle.codePath }, sinks }),
        ...(traces && { interceptors: { activity: [traces.activity] } }),
        stickyQueueScheduleToStartTimeout: STICKY_BOUND_MS,
        // One stage call per compute child. The SDK reserves a slot before it asks for work, so nothing is taken that would have to wait here.
        maxConcurrentActivityTaskExecutions: slots,
        maxHeartbeatThrottleInterval: HEARTBEAT_THROTTLE_MS,
        // Activities learn of the shutdown at once: they are the ones who know how to stop, and bound their own wait.
        shutdownGraceTime: 0,
        shutdownForceTime: stopBoundMs + FORCE_MARGIN_MS,
      }),
    );
  }

  let stopTakingOver = (): void => undefined;
  if (bundle !== null) {
    const pinned = config.versioning === 'pinned';
    stopTakingOver = await keepTakingOver({ client, queue, build, codePath: bundle.codePath, pinned, logger });
  }

  let state: 'running' | 'draining' = 'running';
  const drain = (): void => {
    if (state === 'draining') return;
    state = 'draining';
    stopTakingOver();
    for (const worker of workers) if (worker.getState() === 'RUNNING') worker.shutdown();
  };
  const runs = workers.map((worker) =>
    worker.run().catch((error: unknown) => {
      // One role that fails takes the others with it: the supervisor starts a whole process again.
      drain();
      throw error;
    }),
  );
  const slotsNow = () => Object.fromEntries(Object.entries(pools).map(([role, pool]) => [role, pool.status()]));
  const fixed = { identity, roles, fleet: config.fleet, build };
  const reporter = await startReporter(
    config.home,
    fixed,
    () => ({ state, slots: slotsNow() }),
    ({ eventLoopDelayMs, slots }) => {
      onRequests(requestsSince(store.requests, counted));
      counted = structuredClone(store.requests);
      own.tell(eventLoopDelayMs, slots, untold);
      untold = {};
    },
    (message) => logger.warn(message),
  );
  const ended = (async () => {
    const failures = (await Promise.allSettled(runs)).flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : []));
    await Promise.all(Object.values(pools).map((pool) => pool.close()));
    await reporter.stop();
    await traces?.end();
    store.close();
    // A worker that was cut off still holds the connection; it ends with the process.
    if (failures.length > 0) throw failures[0];
    await connection.close();
  })();
  const checkpoint = (): void => Object.values(pools).forEach((pool) => pool.requestCheckpoints());
  return { ended, drain, checkpoint };
}

/** Throws BadInput where the address for metrics is not free or not of this machine. */
function installRuntime(config: WorkerConfig, logger: Logger): Runtime {
  try {
    return Runtime.install({ logger, shutdownSignals: [], telemetryOptions: telemetryOptions(config) ?? {} });
  } catch (error) {
    if (config.metrics === null) throw error;
    throw badInput('RATCHET_METRICS', config.metrics, `an address that can be listened at (${(error as Error).message})`);
  }
}

/** Where a run's last word goes. A note that cannot be written is logged by the SDK and missed by nobody but `ratchet ls`. */
function endingSinks(store: ArtifactStore): InjectedSinks<EndingSinks> {
  return { runs: { ended: { fn: ({ workflowId }, ending) => noteEnding(store, workflowId, ending), callDuringReplay: false } } };
}

/** Of a run that is traced, but not here, the span is dropped. What is decided again is not told again. */
function traceSinks(traces: Traces | null): InjectedSinks<TraceSinks> {
  return { traces: { ended: { fn: (_info, span) => traces?.workflowEnded(span), callDuringReplay: false } } };
}

async function connect(options: NativeConnectionOptions): Promise<NativeConnection> {
  const deadline = performance.now() + CONNECT_PATIENCE_MS;
  for (;;) {
    try {
      return await NativeConnection.connect(options);
    } catch (error) {
      if (performance.now() + CONNECT_PAUSE_MS > deadline) {
        const address = options.address ?? 'localhost:7233';
        const text = `Temporal at ${address} could not be reached within ${CONNECT_PATIENCE_MS} ms: ${connectionFailure(error)}; check TEMPORAL_ADDRESS`;
        throw new RatchetError('Unavailable', text, { cause: error });
      }
      await delay(CONNECT_PAUSE_MS);
    }
  }
}
