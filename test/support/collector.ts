/** A collector of traces for tests: takes OpenTelemetry's spans as JSON over HTTP (opentelemetry.io/docs/specs/otlp) on a loopback port, and keeps them. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';

export interface Span {
  service: string;
  name: string;
  traceId: string;
  spanId: string;
  parentSpanId: string | undefined;
  /** Since 1970. */
  startMs: number;
  endMs: number;
  /** 0 unset, 1 ok, 2 error. */
  status: number;
}

export interface Collector {
  /** For a process that is to send here. */
  environment: Record<string, string>;
  spans: Span[];
  close(): Promise<void>;
}

interface Body {
  resourceSpans: {
    resource: { attributes: { key: string; value: { stringValue?: string } }[] };
    scopeSpans: {
      spans: (Omit<Span, 'service' | 'startMs' | 'endMs' | 'status'> & {
        startTimeUnixNano: string;
        endTimeUnixNano: string;
        status: { code?: number };
      })[];
    }[];
  }[];
}

export async function startCollector(): Promise<Collector> {
  const spans: Span[] = [];
  const server = createServer((request, response) => {
    void (async () => {
      const { resourceSpans } = (await json(request)) as Body;
      for (const { resource, scopeSpans } of resourceSpans) {
        const service = resource.attributes.find(({ key }) => key === 'service.name')?.value.stringValue ?? '';
        for (const { name, traceId, spanId, parentSpanId, startTimeUnixNano, endTimeUnixNano, status } of scopeSpans.flatMap(
          (of) => of.spans,
        ))
          spans.push({
            service,
            name,
            traceId,
            spanId,
            parentSpanId: parentSpanId || undefined,
            startMs: Number(startTimeUnixNano) / 1e6,
            endMs: Number(endTimeUnixNano) / 1e6,
            status: status.code ?? 0,
          });
      }
      response.setHeader('content-type', 'application/json').end('{}');
    })();
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  return {
    environment: { OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}` },
    spans,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
