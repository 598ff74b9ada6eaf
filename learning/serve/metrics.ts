/** What a server counts, in Prometheus' text format. Numbers only; nothing of what was asked or answered. */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Engine } from './engine.ts';

/** From a token of a small model to a long text of a large one, in seconds. */
const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

export function createMetrics(engine: Engine) {
  const registry = new Registry();
  const registers = [registry];
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  gauge('ratchet_ready', '1 while the models answer.', () => (engine.ready ? 1 : 0));
  gauge('ratchet_requests_running', 'Requests in the batch.', () => engine.load.running);
  gauge('ratchet_requests_waiting', 'Requests that wait for rows.', () => engine.load.waiting);
  gauge('ratchet_sequences_in_flight', 'Sequences and texts that are not answered yet.', () => engine.load.inFlight);
  gauge('ratchet_engine_restarts', 'Times that the engine was started again.', () => engine.load.restarts);
  return {
    registry,
    requests: new Counter({
      name: 'ratchet_http_requests_total',
      help: 'Answers by path and status.',
      labelNames: ['path', 'status'],
      registers,
    }),
    seconds: new Histogram({
      name: 'ratchet_request_seconds',
      help: 'From the request to the end of its answer.',
      labelNames: ['path'],
      buckets: SECONDS,
      registers,
    }),
    firstTokenSeconds: new Histogram({
      name: 'ratchet_time_to_first_token_seconds',
      help: 'From the request to its first token.',
      buckets: SECONDS,
      registers,
    }),
    tokens: new Counter({ name: 'ratchet_tokens_total', help: 'Tokens read and generated.', labelNames: ['kind'], registers }),
  };
}

export type Metrics = ReturnType<typeof createMetrics>;
