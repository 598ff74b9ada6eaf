/**
 * How a trace goes through workflows: what the start of a run carries is handed on to its activities, its children and its next iteration, and the worker is
 * told of the run's own span when it ends. It is part of every bundle, adds no step to what is awaited, and in a run that nobody traces does nothing: no build
 * and no decision depends on it. OpenTelemetry itself stays outside (infra/opentelemetry.ts).
 */
import { defaultPayloadConverter, type Headers, type Payload } from '@temporalio/common';
import {
  ContinueAsNew,
  proxySinks,
  rootCause,
  TemporalFailure,
  workflowInfo,
  type Sinks,
  type WorkflowInterceptors,
} from '@temporalio/workflow';
import type { WorkflowSpan } from '../infra/traces.ts';

export interface TraceSinks extends Sinks {
  traces: { ended(span: WorkflowSpan): void };
}

const { traces } = proxySinks<TraceSinks>();

/** Under which Temporal's OpenTelemetry interceptors send a trace: a map of the fields of W3C Trace Context (w3.org/TR/trace-context). */
const TRACE_HEADER = '_tracer-data';
/** Version, trace, parent, flags. */
const TRACEPARENT = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/;
const SAMPLED = 1;

/** Called by the SDK for every run that it takes into memory. */
export function interceptors(): WorkflowInterceptors {
  let came: Headers = {};
  let handed: Headers = {};
  return {
    inbound: [
      {
        async execute(input, next) {
          const fields = fieldsOf(input.headers);
          const span = spanOf(fields);
          if (span === null) return next(input);
          came = { [TRACE_HEADER]: input.headers[TRACE_HEADER]! };
          handed = { [TRACE_HEADER]: headerOf(fields, span) };
          const ended = (error: string | null) => {
            if (span.flags & SAMPLED) traces.ended({ ...span, endMs: Date.now(), error });
          };
          try {
            const result = await next(input);
            ended(null);
            return result;
          } catch (thrown) {
            if (thrown instanceof ContinueAsNew) ended(null);
            // What is no failure of Temporal's fails the workflow task, not the run.
            else if (thrown instanceof TemporalFailure) ended(rootCause(thrown) ?? thrown.message);
            throw thrown;
          }
        },
      },
    ],
    outbound: [
      {
        scheduleActivity: (input, next) => next({ ...input, headers: { ...input.headers, ...handed } }),
        startChildWorkflowExecution: (input, next) => next({ ...input, headers: { ...input.headers, ...handed } }),
        // The next iteration is a sibling: however long the loop, its trace is no deeper.
        continueAsNew: (input, next) => next({ ...input, headers: { ...input.headers, ...came } }),
      },
    ],
  };
}

/** What is carried. What cannot be read is nothing: a trace must not be what a run fails of. */
function fieldsOf({ [TRACE_HEADER]: payload }: Headers): Record<string, unknown> {
  if (payload === undefined) return {};
  try {
    return defaultPayloadConverter.fromPayload<Record<string, unknown> | null>(payload) ?? {};
  } catch {
    return {};
  }
}

/** The span of this run, named by its run id: whoever decides its history again gives it the same. Null: nobody traces it. */
function spanOf({ traceparent }: Record<string, unknown>): Omit<WorkflowSpan, 'endMs' | 'error'> | null {
  const [, traceId, parentSpanId, flags] = TRACEPARENT.exec(typeof traceparent === 'string' ? traceparent : '') ?? [];
  if (traceId === undefined || parentSpanId === undefined) return null;
  const { workflowId, runId, workflowType } = workflowInfo();
  const spanId = runId.replaceAll('-', '').slice(-16);
  return { workflowId, runId, workflowType, traceId, spanId, parentSpanId, flags: Number.parseInt(flags ?? '', 16), startMs: Date.now() };
}

function headerOf(
  fields: Record<string, unknown>,
  { traceId, spanId, flags }: { traceId: string; spanId: string; flags: number },
): Payload {
  return defaultPayloadConverter.toPayload({ ...fields, traceparent: `00-${traceId}-${spanId}-${flags.toString(16).padStart(2, '0')}` })!;
}
