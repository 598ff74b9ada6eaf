/** The commands that read a run, on a real store and a real Temporal that does not know it: what was written is shown, from the store alone. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { before, describe, test } from 'node:test';
import { appendRecord, createRun } from '../../artifacts/run-log.ts';
import type { RecordRef } from '../../artifacts/record.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import { storeConfigFromEnvironment } from '../../artifacts/store-config.ts';
import { ratchet } from './cli.ts';
import { recipe, sampleEntries } from './records.ts';

describe('reading a run', { concurrency: 2 }, () => {
  const RATCHET_PREFIX = `test-cli-${randomUUID()}`;
  const env = { RATCHET_PREFIX };
  let head = '';

  before(async () => {
    const store = ArtifactStore.connect(storeConfigFromEnvironment({ ...process.env, ...env }));
    await createRun(store, 'demo-1', recipe);
    // Outcomes are stored with the index of their stages, so the digests are those that the store gives.
    let last: RecordRef | null = null;
    for (const entry of sampleEntries()) last = await appendRecord(store, 'demo-1', { ...entry, previous: last?.sha256 ?? null });
    head = last?.sha256 ?? '';
    await createRun(store, 'demo-2', { ...recipe, seed: 2 });
    // The first iteration of the same, after which an operator wanted no more.
    await createRun(store, 'amended', recipe);
    last = null;
    for (const entry of sampleEntries().slice(0, 5)) {
      const body = entry.index === 3 ? { ...entry.body, amendments: [{ path: 'iterations', value: 1 }] } : entry.body;
      last = await appendRecord(store, 'amended', { ...entry, body, previous: last?.sha256 ?? null });
    }
    store.close();
  });

  test('ls: finished by its records, as amended; one that has not begun is unknown to Temporal', async () => {
    const { code, out } = await ratchet(['ls', '--json'], { env });
    assert.equal(code, 0);
    const rows = JSON.parse(out) as {
      run: string;
      state: string;
      iteration: number | null;
      head: string | null;
      success: { value: number } | null;
    }[];
    assert.deepEqual(
      rows.map(({ run, state, iteration, success }) => ({ run, state, iteration, success: success?.value ?? null })),
      [
        { run: 'amended', state: 'finished', iteration: 1, success: 0.76 },
        { run: 'demo-1', state: 'finished', iteration: 2, success: 0.76 },
        { run: 'demo-2', state: 'unknown', iteration: null, success: null },
      ],
    );
    assert.equal(rows[1]?.head, head);
  });

  test('history: the table, and the figures as JSON', async () => {
    const { code, out } = await ratchet(['history', 'demo-1'], { env });
    assert.equal(code, 0);
    assert.match(out, /0 +8b6db6ef6284 +65\.2 \[61\.3, 68\.9\]/);
    const { out: json } = await ratchet(['history', 'demo-1', '--json'], { env });
    const history = JSON.parse(json) as { iterations: { decision: { promoted: boolean } | null }[]; head: { sha256: string } };
    assert.deepEqual(
      history.iterations.map(({ decision }) => decision?.promoted ?? null),
      [null, true, false],
    );
    assert.equal(history.head.sha256, head);
  });

  test('show: the record of an iteration as it is hashed; an iteration that is not there is bad input', async () => {
    const { out } = await ratchet(['show', 'demo-1', '1', '--json'], { env });
    const { records } = JSON.parse(out) as { records: { kind: string; sha256: string; body: object }[] };
    assert.deepEqual(
      records.map(({ kind }) => kind),
      ['intent', 'outcome'],
    );
    assert.deepEqual(records[1]?.body, sampleEntries()[4]?.body);
    const missing = await ratchet(['show', 'demo-1', '7'], { env });
    assert.equal(missing.code, 2);
    assert.match(missing.err, /iteration: 7 is not valid; run demo-1 has iterations 0 to 2/);
  });

  test('an unknown run: the nearest one is named', async () => {
    for (const args of [
      ['history', 'demo1'],
      ['status', 'demo1'],
      ['verify', 'demo1'],
      ['pause', 'demo1'],
      ['episodes', 'demo1'],
    ]) {
      const { code, err } = await ratchet(args, { env });
      assert.equal(code, 2, args[0]);
      assert.match(err, /run: "demo1" is not valid; did you mean demo-1\?/);
    }
  });

  test('a run id that exists with another recipe is refused before anything starts', async () => {
    const { code, err } = await ratchet(['run', 'agentprm-household', '--scale', 'micro', '--id', 'demo-2'], { env });
    assert.equal(code, 2);
    assert.match(err, /run id: "demo-2" exists with another recipe/);
  });

  test('a run that Temporal does not know cannot be steered, and status says how to take it up', async () => {
    const paused = await ratchet(['pause', 'demo-1'], { env });
    assert.equal(paused.code, 2);
    assert.match(paused.err, /run: "demo-1" is not valid; a run under way; this one is unknown to Temporal/);
    const { code, out } = await ratchet(['status', 'demo-1', '--json'], { env });
    assert.equal(code, 0);
    assert.deepEqual((JSON.parse(out) as { outcome: unknown }).outcome, { kind: 'unknown' });
  });

  test('a collector that cannot be meant is told of once, on standard error, and the command does its work', async () => {
    const grpc = { OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc', OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4317' };
    const { code, out, err } = await ratchet(['status', 'demo-1', '--json'], { env: { ...env, ...grpc } });
    assert.equal(code, 0, err);
    assert.deepEqual((JSON.parse(out) as { outcome: unknown }).outcome, { kind: 'unknown' });
    assert.equal(err.match(/not traced: OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" is not valid/g)?.length, 1, err);
  });
});
