/** A program that is traced ends, whatever the collector does. Needs no server. */
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { startCollector } from '../support/collector.ts';

/** The two seconds that docs/deploying.md promises, and as much again for a busy machine; a system goes on connecting for two minutes. */
const ENDED_MS = 4_000;
const KILLED_MS = 20_000;

/** How the program ends that sends its traces to this port, and how long after it began to. */
async function ended(port: number) {
  const program = fork(join(import.meta.dirname, 'traced.ts'), {
    env: { ...process.env, OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}` },
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    timeout: KILLED_MS,
    killSignal: 'SIGKILL',
  });
  const told = text(program.stderr!);
  const exited = once(program, 'exit');
  await once(program, 'message');
  const from = performance.now();
  const [code] = (await exited) as [number | null];
  return { code, told: await told, ms: performance.now() - from };
}

/** A port whose queue of connections is full: Linux answers no more requests for one then (listen(2)). In a thread, as Node would accept them at once. */
const FULL = `
  const { parentPort } = require('node:worker_threads');
  const server = require('node:net').createServer();
  server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
    parentPort.postMessage(server.address().port);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  });`;

test('a collector that takes what is sent: nothing to tell', async () => {
  const collector = await startCollector();
  const { code, told } = await ended(Number(new URL(collector.environment['OTEL_EXPORTER_OTLP_ENDPOINT']!).port));
  await collector.close();
  assert.deepEqual([code, told, collector.spans.map(({ name }) => name)], [0, '', ['RunWorkflow:loop']]);
});

test('one that accepts and never answers is not waited for, and told of', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const accepted = once(server, 'connection');
  const { code, told, ms } = await ended((server.address() as { port: number }).port);
  (await accepted)[0].destroy();
  server.close();
  assert.equal(code, 0);
  assert.match(told, /traces are lost/);
  assert.ok(ms < ENDED_MS, `${ms} ms`);
});

test('one that cannot be connected to, because nothing comes back, neither', async () => {
  const listener = new Worker(FULL, { eval: true });
  const [port] = (await once(listener, 'message')) as [number];
  // One more than the backlog is queued, and then one waits.
  const queued = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')];
  await Promise.all(queued.map((socket) => once(socket, 'connect')));
  const waits = connect(port, '127.0.0.1');
  const { code, told, ms } = await ended(port);
  const full = waits.connecting;
  for (const socket of [...queued, waits]) socket.destroy();
  await listener.terminate();
  assert.ok(full, 'nobody was connected meanwhile');
  assert.equal(code, 0);
  assert.match(told, /traces are lost/);
  assert.ok(ms < ENDED_MS, `${ms} ms`);
});
