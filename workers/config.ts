/**
 * How a worker process is set up: which roles it hosts, how many slots each has, and its bounds, all from environment variables. A value that cannot be
 * meant is BadInput before anything starts. Where Temporal and the store are is read elsewhere (`@temporalio/envconfig`, artifacts/store-config.ts).
 */
import { isIP } from 'node:net';
import { availableParallelism, totalmem } from 'node:os';
import { STALL_BOUND_MS, STOP_BOUND_MS } from '../activities/activities.ts';
import type { Queue } from '../activities/stage.ts';
import { badInput } from '../core/errors.ts';
import { homePaths, ratchetHome } from '../infra/home.ts';
import { tracesWanted } from '../infra/traces.ts';
import { currentProvider } from '../learning/providers.ts';
import type { Provider } from '../learning/providers.ts';
import { DEFAULT_FLEET, QUEUES } from '../workflows/task-queues.ts';

export interface SlotConfig {
  /** Stage calls at a time, each in a compute child of its own. */
  slots: number;
  /** Threads for arithmetic in each. */
  lanes: number;
  /** Resident memory that each may take, in bytes. */
  memoryBytes: number;
  /** On what it computes. Playing is done on the CPU: its small steps gain nothing on a device. */
  provider: Provider;
}

export interface WorkerConfig {
  /** Directory of this machine's state. */
  home: string;
  /** File with the Ed25519 key that signs attestations; made on first use. */
  signingKey: string;
  fleet: string;
  versioning: Versioning;
  queues: Partial<Record<Queue, SlotConfig>>;
  stallBoundMs: number;
  stopBoundMs: number;
  logLevel: 'DEBUG' | 'INFO' | 'WARN' | 'ERROR';
  logFormat: (typeof LOG_FORMATS)[number];
  /** `<address>:<port>` to answer Prometheus at; null: nowhere. */
  metrics: string | null;
  /** Whether what it does is traced. */
  traces: boolean;
}

/**
 * Whether Temporal keeps a run on the build that began its iteration. `pinned`: yes, so that two builds can be at work side by side; somebody says which one
 * is current. `none`: whoever is there takes it, which is all that one machine needs.
 */
export type Versioning = (typeof VERSIONINGS)[number];

type Environment = Record<string, string | undefined>;

/**
 * Bounds, not reservations: what the children of all roles on one machine may take together, leaving the rest to the servers and the system. They rarely
 * work at the same time.
 */
const MEMORY_SHARE: Record<Queue, number> = { loop: 0.1, cpu: 0.35, gpu: 0.45 };
/** On a small machine the bounds may add up to more than there is: a child of the embedded models stays below half of this, and few work at a time. */
const LEAST_DEFAULT_MEMORY_BYTES = 2 ** 30;
const CPU: Provider = { name: 'cpu', device: 0 };
const VERSIONINGS = ['none', 'pinned'] as const;
const LOG_FORMATS = ['text', 'json'] as const;
const LOG_LEVELS = ['DEBUG', 'INFO', 'WARN', 'ERROR'] as const;

/**
 * Reads `RATCHET_HOME`, `RATCHET_FLEET`, `RATCHET_VERSIONING` (default `none`), `RATCHET_CPU_SLOTS` (default: one per core), `RATCHET_LANES` (threads of the `gpu` slot; default: one per core), `RATCHET_CPU_LANES`
 * (of each `cpu` slot; default 1), `RATCHET_EXECUTION_PROVIDER` (of the `gpu` slot; default `cpu`),
 * `RATCHET_MEMORY_MB` (per slot), `RATCHET_SIGNING_KEY`, `RATCHET_STALL_BOUND_MS`, `RATCHET_STOP_BOUND_MS`, `RATCHET_LOG_LEVEL`,
 * `RATCHET_LOG_FORMAT` (`text` or `json`), `RATCHET_METRICS` (`<address>:<port>`; default: no metrics) and what says whether to trace. Throws BadInput.
 */
export function workerConfig(roles: readonly Queue[], env: Environment = process.env): WorkerConfig {
  if (roles.length === 0 || roles.some((role) => !QUEUES.includes(role)) || new Set(roles).size !== roles.length) {
    throw badInput('roles', roles, `one or more different ones of ${QUEUES.join(', ')}`);
  }
  const cores = availableParallelism();
  const machineBytes = process.constrainedMemory() || totalmem();
  const slots: Record<Queue, number> = { loop: 1, cpu: whole(env, 'RATCHET_CPU_SLOTS', cores, 1), gpu: 1 };
  const lanes: Record<Queue, number> = { loop: 1, cpu: whole(env, 'RATCHET_CPU_LANES', 1, 1), gpu: whole(env, 'RATCHET_LANES', cores, 1) };
  const provider: Record<Queue, Provider> = { loop: CPU, cpu: CPU, gpu: currentProvider(env) };
  const fixedMegabytes = whole(env, 'RATCHET_MEMORY_MB', 0, 128);
  const queues = roles.map((role): [Queue, SlotConfig] => {
    const share = Math.floor((Math.min(machineBytes, totalmem()) * MEMORY_SHARE[role]) / slots[role]);
    const memoryBytes = fixedMegabytes > 0 ? fixedMegabytes * 2 ** 20 : Math.max(share, LEAST_DEFAULT_MEMORY_BYTES);
    return [role, { slots: slots[role], lanes: lanes[role], memoryBytes, provider: provider[role] }];
  });
  const fleet = env['RATCHET_FLEET'] || DEFAULT_FLEET;
  // Temporal refuses dots and colons in the name of a worker deployment, which this is.
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(fleet)) {
    throw badInput('RATCHET_FLEET', fleet, 'a letter or digit, then at most 63 letters, digits, hyphens and underscores');
  }
  const versioning = VERSIONINGS.find((name) => name === (env['RATCHET_VERSIONING'] || 'none'));
  if (versioning === undefined) throw badInput('RATCHET_VERSIONING', env['RATCHET_VERSIONING'], `one of ${VERSIONINGS.join(', ')}`);
  const logLevel = LOG_LEVELS.find((level) => level === (env['RATCHET_LOG_LEVEL'] || 'INFO').toUpperCase());
  if (logLevel === undefined) throw badInput('RATCHET_LOG_LEVEL', env['RATCHET_LOG_LEVEL'], `one of ${LOG_LEVELS.join(', ')}`);
  const logFormat = LOG_FORMATS.find((name) => name === (env['RATCHET_LOG_FORMAT'] || 'text'));
  if (logFormat === undefined) throw badInput('RATCHET_LOG_FORMAT', env['RATCHET_LOG_FORMAT'], `one of ${LOG_FORMATS.join(', ')}`);
  return {
    home: ratchetHome(env),
    signingKey: env['RATCHET_SIGNING_KEY'] || homePaths(ratchetHome(env)).signingKey,
    fleet,
    versioning,
    queues: Object.fromEntries(queues),
    stallBoundMs: whole(env, 'RATCHET_STALL_BOUND_MS', STALL_BOUND_MS, 1),
    stopBoundMs: whole(env, 'RATCHET_STOP_BOUND_MS', STOP_BOUND_MS, 0),
    logLevel,
    logFormat,
    metrics: metricsAddress(env['RATCHET_METRICS'] || null),
    traces: tracesWanted(env),
  };
}

function metricsAddress(text: string | null): string | null {
  if (text === null) return null;
  const [, bracketed, bare, port] = /^(?:\[(.+)\]|([^:]+)):(\d+)$/.exec(text) ?? [];
  if (isIP(bracketed ?? bare ?? '') === 0 || !(Number(port) >= 1 && Number(port) <= 65_535))
    throw badInput('RATCHET_METRICS', text, 'an address of this machine and a port, like 127.0.0.1:9464');
  return text;
}

function whole(env: Environment, name: string, fallback: number, least: number): number {
  const text = env[name];
  if (text === undefined || text === '') return fallback;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least) throw badInput(name, text, `a whole number of at least ${least}`);
  return value;
}
