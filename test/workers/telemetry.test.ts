/**
 * What a worker tells machines: a scrape of a real one, after calls that succeeded, failed and could not be decided, holds every metric and label that the
 * alerts and the dashboard name; the log is one JSON object a line that says of which run it speaks.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parse } from 'yaml';
import { RunWatcher } from '../../cli/live/watcher.ts';
import { freePort } from '../../infra/ports.ts';
import { workerConfig } from '../../workers/config.ts';
import { QUEUES, taskQueue } from '../../workflows/task-queues.ts';
import { eventually, failureOf, startFleet, type Fleet } from './fixtures/fleet.ts';
import { readLog } from './fixtures/stages.ts';

const MONITORING = join(import.meta.dirname, '..', '..', 'infra', 'monitoring');

let fleet: Fleet;
before(async () => {
  fleet = await startFleet();
});
after(() => fleet.close());

/** Names of metrics with the labels that were seen on each. */
async function scrape(address: string): Promise<Map<string, Set<string>>> {
  const found = new Map<string, Set<string>>();
  for (const line of (await (await fetch(`http://${address}/metrics`)).text()).split('\n')) {
    const [, name, labels] = /^([a-z0-9_]+)(?:\{(.*)\})? /.exec(line) ?? [];
    if (name === undefined) continue;
    const seen = found.get(name) ?? new Set();
    for (const [, label] of (labels ?? '').matchAll(/([a-z_]+)="/g)) seen.add(label as string);
    found.set(name, seen);
  }
  return found;
}

/** Metrics in PromQL, each with the labels that are asked of it: in its braces, and by which its sums are grouped. */
function asked(expression: string): { name: string; labels: string[] }[] {
  const by = [...expression.matchAll(/by \(([^)]*)\)/g)].flatMap(([, names]) => (names as string).split(',').map((name) => name.trim()));
  return [...expression.matchAll(/\b((?:temporal|ratchet)_[a-z0-9_]+)(?:\{([^}]*)\})?/g)].map(([, name, braces]) => ({
    name: name as string,
    labels: [...by, ...[...(braces ?? '').matchAll(/([a-z_]+)\s*[=!]/g)].map(([, label]) => label as string)],
  }));
}

test('a worker answers Prometheus with every metric and label that alerts and dashboard name, and logs JSON that names the run', async () => {
  const address = `127.0.0.1:${await freePort()}`;
  const lines: string[] = [];
  const env = { RATCHET_METRICS: address, RATCHET_LOG_FORMAT: 'json', RATCHET_LOG_LEVEL: 'WARN' };
  await fleet.worker('told', QUEUES, env, undefined, (text) => lines.push(text));
  await (await fleet.call('told', { queue: 'cpu', name: 'burn', input: { ms: 10 } })).result();
  const refused = await fleet.call('told', {
    queue: 'gpu',
    name: 'refuse',
    input: { type: 'Diverged', log: join(fleet.directory, 'told.log') },
  });
  assert.equal((await failureOf(refused)).type, 'Diverged');
  // Its next heartbeat is refused, as that of a stage call is that was given to another.
  const log = join(fleet.directory, 'orphaned.log');
  const orphaned = await fleet.call('told', { queue: 'gpu', name: 'count', input: { steps: 10_000, stepMs: 25, log } });
  await eventually('a step', () => readLog(log).length > 0);
  await orphaned.terminate();
  // No code for it: its first decision fails, as one of a history that does not replay does.
  const unknown = await fleet.client.workflow.start('nobodyWroteThis', {
    workflowId: 'unknown',
    taskQueue: taskQueue('loop', 'told'),
    args: [],
  });
  const handing = await fleet.client.workflow.start('handOut', {
    workflowId: 'handing',
    taskQueue: taskQueue('loop', 'told'),
    args: [{ workflowType: 'nobodyWroteThis', state: null, control: { paused: false, stopping: false, amendments: [] } }],
  });

  const names = [
    ...(parse(readFileSync(join(MONITORING, 'alerts.yaml'), 'utf8')) as { groups: { rules: { expr: string }[] }[] }).groups.flatMap(
      ({ rules }) => rules.map(({ expr }) => expr),
    ),
    ...[...readFileSync(join(MONITORING, 'dashboard.json'), 'utf8').matchAll(/"expr": "((?:[^"\\]|\\.)*)"/g)].map(
      ([, expr]) => JSON.parse(`"${expr}"`) as string,
    ),
  ].flatMap(asked);
  assert.ok(names.length > 20, `${names.length} metrics asked for`);
  const missing = async () => {
    const found = await scrape(address);
    return names.flatMap(({ name, labels }) => {
      const seen = found.get(name);
      // `le` is on buckets by their kind.
      return seen === undefined ? [name] : labels.filter((label) => !seen.has(label)).map((label) => `${name}{${label}}`);
    });
  };
  let last: string[] = [];
  await eventually('every metric', async () => (last = await missing()).length === 0).catch((error: Error) =>
    assert.fail(`${error.message}: ${last.join(', ')}`),
  );
  // Whoever looks at it without Prometheus is told as well, and how often it was tried.
  const { home, endpoints, environment, store, client } = fleet;
  const session = { home, endpoints, environment, store, borrowed: null, temporal: async () => client, close: async () => {} };
  const seen = async (runId: string) =>
    (await new RunWatcher(session, runId).look()).waiting.find((reason) => /\(try [2-9]\)/.test(reason));
  for (const runId of ['unknown', 'handing'])
    assert.match(
      await eventually(`a second try of ${runId}`, () => seen(runId)),
      /^a bug in the loop's own code \(try \d\): .*nobodyWroteThis.*; the run goes on by itself where mended code is deployed$/,
    );
  await Promise.all([unknown.terminate(), handing.terminate()]);

  const entries = lines
    .join('')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  const failed = entries.find(({ workflowId }) => workflowId === refused.workflowId);
  assert.ok(failed, lines.join(''));
  assert.deepEqual(
    [typeof failed['time'], failed['level'], failed['activityType'], typeof failed['workflowRunId']],
    ['string', 'WARN', 'refuse', 'string'],
  );
});

test('what a child asks of the store is counted, however fast it tells how far it is', async () => {
  const OBJECTS = 60;
  const address = `127.0.0.1:${await freePort()}`;
  await fleet.worker('putting', QUEUES, { RATCHET_METRICS: address });
  await (await fleet.call('putting', { queue: 'cpu', name: 'putMany', input: { objects: OBJECTS } })).result();
  const puts = async () => {
    const text = await (await fetch(`http://${address}/metrics`)).text();
    return Number(/^ratchet_store_requests_total\{.*operation="PutObject".*\} (\d+)/m.exec(text)?.[1] ?? 0);
  };
  // And the call's result.
  await eventually(`${OBJECTS + 1} puts`, async () => (await puts()) === OBJECTS + 1).catch(async (error: Error) =>
    assert.fail(`${error.message}: ${await puts()}`),
  );
});

test('an address for metrics that cannot be meant, or is taken, is bad input', async () => {
  for (const metrics of ['9464', 'localhost:9464', '127.0.0.1:0', '127.0.0.1:65536', '[::1', '999.0.0.1:80'])
    assert.throws(() => workerConfig(['loop'], { RATCHET_METRICS: metrics }), { type: 'BadInput', message: /^RATCHET_METRICS/ }, metrics);
  for (const metrics of ['127.0.0.1:9464', '0.0.0.0:1', '[::1]:9464'])
    assert.equal(workerConfig(['loop'], { RATCHET_METRICS: metrics }).metrics, metrics);
  assert.throws(() => workerConfig(['loop'], { RATCHET_LOG_FORMAT: 'xml' }), { type: 'BadInput', message: /^RATCHET_LOG_FORMAT/ });
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const { port } = taken.address() as { port: number };
  try {
    await assert.rejects(fleet.worker('taken', ['cpu'], { RATCHET_METRICS: `127.0.0.1:${port}` }), /ended with 2/);
  } finally {
    taken.close();
  }
});
