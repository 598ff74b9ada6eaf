/**
 * What a worker tells machines about itself: metrics for Prometheus, where it was given an address to answer at, and a log of one line an entry, as text
 * or JSON. Temporal's own metrics (polls, latencies, failures by reason) are those of its SDK; only what that cannot know is added here. It decides nothing.
 */
import { DefaultLogger, type LogEntry, type Logger, type Runtime, type RuntimeOptions } from '@temporalio/worker';
import type { StoreRequests } from '../artifacts/store-requests.ts';
import type { SlotStatus } from '../learning/compute/pool.ts';
import type { Queue } from '../activities/stage.ts';
import type { WorkerConfig } from './config.ts';

/**
 * Seconds. Stage calls take from milliseconds (a plan) to hours (a fit on a device), and wait as long for a slot; the SDK's own buckets for both end at a
 * minute.
 */
const LONG_BUCKETS = [0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600];
/** Histograms that measure stage calls. */
const OF_STAGES = [
  'activity_execution_latency',
  'activity_succeed_endtoend_latency',
  'activity_schedule_to_start_latency',
  'workflow_endtoend_latency',
];

/** What to install the SDK's runtime with. */
export function telemetryOptions({ metrics, fleet }: WorkerConfig): RuntimeOptions['telemetryOptions'] {
  const buckets = Object.fromEntries(OF_STAGES.map((name) => [`temporal_${name}`, LONG_BUCKETS]));
  return {
    logging: { filter: { core: 'WARN', other: 'ERROR' }, forward: {} },
    ...(metrics !== null && {
      metrics: {
        globalTags: { fleet },
        prometheus: {
          bindAddress: metrics,
          countersTotalSuffix: true,
          unitSuffix: true,
          useSecondsForDurations: true,
          histogramBucketOverrides: buckets,
        },
      },
    }),
  };
}

/** A line for every entry: for people, or a JSON object with `time` (ISO 8601), `level`, `message`, and what the SDK knows (`workflowId`, `workflowRunId` or `runId`, ...). */
export function workerLogger({ logLevel, logFormat }: WorkerConfig): Logger {
  return logFormat === 'json' ? new DefaultLogger(logLevel, logJson) : new DefaultLogger(logLevel);
}

function logJson({ level, timestampNanos, message, meta }: LogEntry): void {
  const time = new Date(Number(timestampNanos / 1_000_000n)).toISOString();
  const entry = { time, level, message, ...meta };
  process.stderr.write(`${JSON.stringify(entry, plain)}\n`);
}

/** Errors have no fields of their own that JSON would see. */
function plain(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString();
  return value instanceof Error ? { name: value.name, message: value.message, stack: value.stack } : value;
}

/** Tells how late the event loop is, what the slots do, and what was asked of the store since; `tell` is called once a second (report.ts). */
export function ownMetrics(runtime: Runtime): {
  tell(eventLoopDelayMs: { p99: number }, slots: Partial<Record<Queue, SlotStatus[]>>, requests: StoreRequests): void;
} {
  const meter = runtime.metricMeter;
  const late = meter.createGauge(
    'ratchet_event_loop_delay_seconds',
    'float',
    undefined,
    'How much later than due timers came, 99th percentile since the start',
  );
  const busy = meter.createGauge('ratchet_slot_busy', 'int', undefined, '1 while the compute slot has a stage call');
  const memory = meter.createGauge('ratchet_slot_memory_bytes', 'int', undefined, 'Resident memory of the child of the compute slot');
  const asked = meter.createCounter('ratchet_store_requests', undefined, 'Requests to the S3 server, each try of each');
  const failed = meter.createCounter('ratchet_store_failures', undefined, 'Of these, not answered, cut off, or refused');
  const waited = meter.createCounter('ratchet_store_milliseconds', undefined, 'Time until their answers began, summed');
  return {
    tell({ p99 }, slots, requests) {
      late.set(p99 / 1_000);
      for (const [queue, each] of Object.entries(slots)) {
        for (const { slot, job, rssBytes } of each) {
          const tags = { queue, slot };
          busy.set(job === null ? 0 : 1, tags);
          memory.set(rssBytes, tags);
        }
      }
      for (const [operation, { requests: tries, failures, ms }] of Object.entries(requests)) {
        asked.add(tries, { operation });
        failed.add(failures, { operation });
        waited.add(Math.round(ms), { operation });
      }
    },
  };
}
