/**
 * Whether what is done is traced: by OpenTelemetry over the commands that launch and steer, the workflows and the activities, where the standard environment
 * names a collector. Where it does not, nothing of OpenTelemetry is loaded. A trace tells where time went; it decides nothing and keeps nothing.
 */
import type { ActivityInterceptorsFactory } from '@temporalio/worker';
import type { WorkflowClientInterceptor } from '@temporalio/client';
import { badInput } from '../core/errors.ts';

/** What a process that is traced passes to Temporal's SDK. */
export interface Traces {
  /** Begins a trace for every run that is launched, and one for every request to a run. */
  client: WorkflowClientInterceptor;
  activity: ActivityInterceptorsFactory;
  workflowEnded(span: WorkflowSpan): void;
  /** Sends what is left, within two seconds; never rejects. The process is held no longer than two seconds after the collector's last sign of life. */
  end(): Promise<void>;
}

/** One execution of a workflow: an iteration, or a stretch of its shards. */
export interface WorkflowSpan {
  workflowId: string;
  runId: string;
  workflowType: string;
  /** 32 hexadecimal digits; spans have 16. */
  traceId: string;
  spanId: string;
  parentSpanId: string;
  /** Of W3C Trace Context. */
  flags: number;
  /** Since 1970. */
  startMs: number;
  endMs: number;
  error: string | null;
}

type Environment = Record<string, string | undefined>;

/** The collector's address by the standard variables, the more particular one first (opentelemetry.io/docs/specs/otel/protocol/exporter). */
const ADDRESSES = ['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', 'OTEL_EXPORTER_OTLP_ENDPOINT'] as const;
const PROTOCOLS = ['OTEL_EXPORTER_OTLP_TRACES_PROTOCOL', 'OTEL_EXPORTER_OTLP_PROTOCOL'] as const;

/**
 * Whether a collector is named and neither `OTEL_SDK_DISABLED` nor `OTEL_TRACES_EXPORTER` says no; of the exporters that this lists, only `otlp` is there.
 * Throws BadInput for what cannot be meant.
 */
export function tracesWanted(env: Environment): boolean {
  const address = ADDRESSES.find((name) => env[name]);
  if (address === undefined || env['OTEL_SDK_DISABLED']?.toLowerCase() === 'true') return false;
  const exporters = (env['OTEL_TRACES_EXPORTER'] || 'otlp').split(',').map((name) => name.trim());
  if (exporters.includes('none')) return false;
  if (!exporters.includes('otlp')) throw badInput('OTEL_TRACES_EXPORTER', env['OTEL_TRACES_EXPORTER'], 'otlp, a list with it, or none');
  const protocol = PROTOCOLS.find((name) => env[name]);
  if (protocol !== undefined && env[protocol] === 'grpc')
    throw badInput(
      protocol,
      'grpc',
      'http/json or http/protobuf: traces are sent over HTTP, to a collector that takes either (its port is 4318)',
    );
  if (!/^https?:$/.test(URL.parse(env[address] as string)?.protocol ?? ''))
    throw badInput(address, env[address], 'the address of a collector for OTLP over HTTP, like http://127.0.0.1:4318');
  return true;
}

/**
 * What to trace with, where it is wanted. `service`: what the process is called unless `OTEL_SERVICE_NAME` says otherwise. `tell` hears when the collector
 * does not take what it is sent, and when it does again. Once in a process.
 */
export async function startTraces(service: string, tell: (message: string) => void): Promise<Traces> {
  const { openTelemetry } = await import('./opentelemetry.ts');
  return openTelemetry(service, tell);
}
