/** What the workflow code is bundled from, which queue a stage goes to, and how a worker process is configured. Needs no server. */
import assert from 'node:assert/strict';
import { DefaultLogger } from '@temporalio/worker';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { stages } from '../../activities/stages/registry.ts';
import { buildId, workflowBundle } from '../../workers/bundle.ts';
import { workerConfig } from '../../workers/config.ts';
import { RATCHET_CODE } from '../../workers/process.ts';
import { STAGE_QUEUES } from '../../workflows/stage-proxies.ts';
import { siblingQueue, taskQueue } from '../../workflows/task-queues.ts';

const directory = await mkdtemp(join(tmpdir(), 'ratchet-bundle-'));
after(() => rm(directory, { recursive: true }));

describe('workflow bundle', { timeout: 60_000 }, () => {
  test('the workflows bundle without a complaint, hold no Node module or native code, and are cached by their sources', async () => {
    const complaints: string[] = [];
    const logger = new DefaultLogger('WARN', ({ message }) => complaints.push(message));
    const build = await buildId(RATCHET_CODE.workflowsPath);
    const built = await workflowBundle(RATCHET_CODE.workflowsPath, build, directory, logger);
    assert.deepEqual(complaints, []);
    const code = await readFile(built.codePath, 'utf8');
    assert.match(code, /improvementLoop/);
    assert.doesNotMatch(code, /onnxruntime|client-s3/);
    const { mtimeMs } = await stat(built.codePath);
    assert.deepEqual(await workflowBundle(RATCHET_CODE.workflowsPath, build, directory, logger), built);
    assert.equal((await stat(built.codePath)).mtimeMs, mtimeMs, 'not written again');
    assert.notEqual(await buildId(join(import.meta.dirname, 'fixtures', 'workflows.ts')), build);
  });
});

describe('queues', () => {
  test('the queue that the workflow sends a stage to is the one that the registry names', () => {
    const registered = Object.fromEntries(Object.entries(stages).map(([name, { queue }]) => [name, queue]));
    assert.deepEqual({ ...STAGE_QUEUES }, registered);
  });

  test('a run finds the queues of its own fleet, whatever the fleet is called', () => {
    for (const fleet of ['ratchet', 'team-a', 'a_b_c-1']) {
      assert.equal(siblingQueue(taskQueue('loop', fleet), 'gpu'), taskQueue('gpu', fleet));
    }
    assert.equal(taskQueue('gpu'), 'ratchet-gpu');
  });
});

describe('worker configuration', () => {
  test('the gpu role has one slot with every lane, the cpu role as many slots as asked for with one lane each', () => {
    const { queues, fleet } = workerConfig(['loop', 'cpu', 'gpu'], {
      RATCHET_CPU_SLOTS: '7',
      RATCHET_LANES: '5',
      RATCHET_MEMORY_MB: '300',
    });
    const memoryBytes = 300 * 2 ** 20;
    const provider = { name: 'cpu', device: 0 };
    assert.deepEqual(queues, {
      loop: { slots: 1, lanes: 1, memoryBytes, provider },
      cpu: { slots: 7, lanes: 1, memoryBytes, provider },
      gpu: { slots: 1, lanes: 5, memoryBytes, provider },
    });
    assert.equal(fleet, 'ratchet');
  });

  test('traces are wanted where the standard environment names a collector, and only there', () => {
    const collector = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:4318' };
    const wanted: [Record<string, string>, boolean][] = [
      [{}, false],
      [{ OTEL_EXPORTER_OTLP_ENDPOINT: '' }, false],
      [collector, true],
      [{ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'https://collector.example.org/v1/traces' }, true],
      [{ ...collector, OTEL_SDK_DISABLED: 'true' }, false],
      [{ ...collector, OTEL_TRACES_EXPORTER: 'none' }, false],
      [{ ...collector, OTEL_TRACES_EXPORTER: 'console, otlp' }, true],
    ];
    for (const [env, traces] of wanted) assert.equal(workerConfig(['loop'], env).traces, traces, JSON.stringify(env));
  });

  test('wrong values are refused, naming the variable', () => {
    const wrong: Record<string, string>[] = [
      { RATCHET_CPU_SLOTS: '0' },
      { RATCHET_LANES: '1.5' },
      { RATCHET_MEMORY_MB: '64' },
      { RATCHET_STALL_BOUND_MS: '-1' },
      { RATCHET_STOP_BOUND_MS: 'soon' },
      { RATCHET_FLEET: 'a b' },
      { RATCHET_FLEET: 'a.b' },
      { RATCHET_VERSIONING: 'on' },
      { RATCHET_LOG_LEVEL: 'LOUD' },
      { OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4318' },
      { OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'grpc', OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4317' },
      { OTEL_TRACES_EXPORTER: 'zipkin', OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318' },
    ];
    for (const env of wrong) {
      const name = Object.keys(env)[0]!;
      assert.throws(() => workerConfig(['cpu'], env), { type: 'BadInput', message: new RegExp(`^${name}: `) });
    }
    assert.throws(() => workerConfig([], {}), { type: 'BadInput' });
    assert.throws(() => workerConfig(['cpu', 'cpu'], {}), { type: 'BadInput' });
  });
});
