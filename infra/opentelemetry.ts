/**
 * OpenTelemetry as this project uses it: Temporal's own interceptors, and spans sent by OTLP over HTTP to the collector of the standard environment. Loaded
 * only where traces.ts finds one.
 */
import type { WorkflowQueryInput, Next, WorkflowClientInterceptor, WorkflowDescribeInput } from '@temporalio/client';
import {
  OpenTelemetryActivityInboundInterceptor,
  OpenTelemetryActivityOutboundInterceptor,
  OpenTelemetryWorkflowClientInterceptor,
} from '@temporalio/interceptors-opentelemetry';
import { SpanKind, SpanStatusCode } from '@opentelemetry/api';
import { ExportResultCode, millisToHrTime, type ExportResult } from '@opentelemetry/core';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { envDetectorSync, Resource } from '@opentelemetry/resources';
import { BatchSpanProcessor, NodeTracerProvider, type ReadableSpan, type SpanExporter } from '@opentelemetry/sdk-trace-node';
import { setTimeout as delay } from 'node:timers/promises';
import type { Traces, WorkflowSpan } from './traces.ts';

/**
 * A collector that is there takes what is left within milliseconds; nobody is kept waiting for one that is not. A request that hears nothing for as long is
 * given up: while it is under way, the process cannot end.
 */
const END_BOUND_MS = 2_000;

/** As `startTraces` of traces.ts. It becomes the process's provider of tracers. */
export function openTelemetry(service: string, tell: (message: string) => void): Traces {
  const resource = Resource.default()
    .merge(new Resource({ 'service.name': service }))
    .merge(new Resource(envDetectorSync.detect().attributes));
  const exporter = new OTLPTraceExporter({
    timeoutMillis: END_BOUND_MS,
    // The exporter's own bound begins when it is connected; a socket's when it begins to connect.
    httpAgentOptions: { keepAlive: true, timeout: END_BOUND_MS },
  });
  const spanProcessor = new BatchSpanProcessor(new ToldExporter(exporter, tell));
  const provider = new NodeTracerProvider({ resource, spanProcessors: [spanProcessor] });
  provider.register();
  return {
    client: new Steps(),
    activity: (context) => ({
      inbound: new OpenTelemetryActivityInboundInterceptor(context),
      outbound: new OpenTelemetryActivityOutboundInterceptor(context),
    }),
    workflowEnded: (span) => spanProcessor.onEnd(readable(span, resource)),
    async end() {
      const sent = provider.shutdown().catch((error: unknown) => tell(`traces are lost: ${String(error)}`));
      await Promise.race([sent, delay(END_BOUND_MS, undefined, { ref: false })]);
    },
  };
}

/** With the names that Temporal's interceptors would give. */
function readable({ traceId, spanId, flags, parentSpanId, startMs, endMs, error, ...of }: WorkflowSpan, resource: Resource): ReadableSpan {
  return {
    name: `RunWorkflow:${of.workflowType}`,
    kind: SpanKind.INTERNAL,
    spanContext: () => ({ traceId, spanId, traceFlags: flags }),
    parentSpanId,
    startTime: millisToHrTime(startMs),
    endTime: millisToHrTime(endMs),
    duration: millisToHrTime(endMs - startMs),
    status: error === null ? { code: SpanStatusCode.OK } : { code: SpanStatusCode.ERROR, message: error },
    attributes: { temporalWorkflowId: of.workflowId, run_id: of.runId },
    links: [],
    events: [],
    ended: true,
    resource,
    instrumentationLibrary: { name: 'ratchet' },
    droppedAttributesCount: 0,
    droppedEventsCount: 0,
    droppedLinksCount: 0,
  };
}

/** What changes a run is traced; what only asks about it, as `ratchet watch` does twice a second, is not. */
class Steps extends OpenTelemetryWorkflowClientInterceptor {
  override query(input: WorkflowQueryInput, next: Next<WorkflowClientInterceptor, 'query'>): Promise<unknown> {
    return next(input);
  }
  override describe(input: WorkflowDescribeInput, next: Next<WorkflowClientInterceptor, 'describe'>): ReturnType<typeof next> {
    return next(input);
  }
}

/** Says once that the collector does not take spans, and once that it does again. */
class ToldExporter implements SpanExporter {
  readonly #to: SpanExporter;
  readonly #tell: (message: string) => void;
  #failing = false;

  constructor(to: SpanExporter, tell: (message: string) => void) {
    this.#to = to;
    this.#tell = tell;
  }

  export(spans: ReadableSpan[], done: (result: ExportResult) => void): void {
    this.#to.export(spans, ({ code, error }) => {
      const failing = code !== ExportResultCode.SUCCESS;
      if (failing && !this.#failing)
        this.#tell(`traces are lost: the collector does not take them (${error?.message ?? 'no reason given'})`);
      if (!failing && this.#failing) this.#tell('the collector takes traces again');
      this.#failing = failing;
      done({ code: ExportResultCode.SUCCESS });
    });
  }

  shutdown(): Promise<void> {
    return this.#to.shutdown();
  }
}
