/** A stage call runs at most once, whoever asks: memory of finished calls, checkpoints, races, and what is refused. Against a real S3 server. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { runStage } from '../../activities/run-stage.ts';
import type { StageDeps } from '../../activities/run-stage.ts';
import { intervalAfter } from '../../activities/stage-checkpoints.ts';
import type { Progress, Stage } from '../../activities/stage.ts';
import { stageIntent, stageKey, sealed } from '../../artifacts/run-log.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import { canonicalJson } from '../../core/digest.ts';
import { RatchetError } from '../../core/errors.ts';
import { startS3 } from '../support/s3.ts';
import type { TestS3 } from '../support/s3.ts';
import { readLog, stages } from './fixtures/stages.ts';
import type { CountInput, CountOutput } from './fixtures/stages.ts';

let s3: TestS3;
let store: ArtifactStore;
let directory: string;
let scopes = 0;

before(async () => {
  s3 = await startS3();
  store = ArtifactStore.connect(s3.config);
  await store.probe();
  directory = await mkdtemp(join(tmpdir(), 'ratchet-run-stage-'));
});
after(async () => {
  store.close();
  await s3.stop();
  await rm(directory, { recursive: true });
});

const freshScope = (): string => `run-${scopes++}`;
const depsOf = (scope: string, more: Partial<StageDeps> = {}): StageDeps => ({
  stages,
  store,
  scope,
  iteration: 0,
  fingerprint: 'test/1',
  checkpointIntervalMs: 0,
  warn: () => {},
  ...more,
});
const countTo = (steps: number): CountInput => ({ steps, stepMs: 0, log: join(directory, `${Math.random()}.log`) });
const keysOf = async (prefix: string): Promise<string[]> => {
  const keys: string[] = [];
  for await (const { key } of store.list(prefix)) keys.push(key);
  return keys;
};
const pathOf = (key: string): string => join(s3.directory, s3.config.bucket, key);

/** Runs `count` until its checkpoint at `step` and stops it there. */
async function stoppedAt(step: number, input: CountInput, scope: string, more: Partial<StageDeps> = {}): Promise<void> {
  let reached = 0;
  const deps = depsOf(scope, { ...more, onProgress: ({ done }: Progress) => (reached = done), stopRequested: () => reached >= step });
  await assert.rejects(runStage('count', input, deps), { type: 'Stopped' });
}

test('checkpoints come every 5 s, and take at most a thirtieth of the time where they cost more', () => {
  const after = (...lists: number[][]) => lists.map(intervalAfter);
  assert.deepEqual(after([], [0], [100], [1_000], [60_000]), [5_000, 5_000, 5_000, 30_000, 600_000]);
  assert.deepEqual(after([100, 19_000], [19_000, 100]), [5_000, 5_000], 'one save that waited for a server does not count');
});

describe('runStage', { timeout: 60_000 }, () => {
  test('a committed call is not computed again; its manifest says stage, input, output and fingerprint', async () => {
    const scope = freshScope();
    const input = countTo(5);
    const first = await runStage<CountOutput>('count', input, depsOf(scope));
    assert.equal(first.sum, 15, '1 + 2 + 3 + 4 + 5');
    const again = await runStage('count', { log: input.log, stepMs: input.stepMs, steps: 5 }, depsOf(scope));
    assert.deepEqual(again, first, 'the order of keys makes no difference');
    assert.equal(readLog(input.log).length, 5);
    const manifest = await store.readManifest(stageKey(scope, 'count', input));
    assert.deepEqual(manifest, sealed({ stage: 'count', input, output: first, fingerprint: 'test/1' }));
    assert.deepEqual(await keysOf(`runs/${scope}/checkpoints/`), [], 'checkpoints are gone once the output is committed');
  });

  test('the scope separates memories and influences no byte of the output', async () => {
    const input = countTo(3);
    const [one, two] = [await runStage('count', input, depsOf(freshScope())), await runStage('count', input, depsOf(freshScope()))];
    assert.equal(readLog(input.log).length, 6);
    assert.equal(canonicalJson(one), canonicalJson(two));
  });

  test('two attempts at once commit once, with equal bytes', async () => {
    const scope = freshScope();
    const input = { ...countTo(8), stepMs: 2 };
    const outputs = await Promise.all([1, 2, 3].map(() => runStage('count', input, depsOf(scope))));
    assert.ok(readLog(input.log).length > 8, 'they did overlap');
    for (const output of outputs) assert.deepEqual(output, outputs[0]);
    assert.deepEqual(await keysOf(`runs/${scope}/stages/`), [stageKey(scope, 'count', input)]);
  });

  test('going on from a checkpoint gives the output of an undisturbed run and repeats nothing', async () => {
    const scope = freshScope();
    const input = countTo(10);
    await stoppedAt(4, input, scope);
    await stoppedAt(7, input, scope);
    assert.equal((await keysOf(`runs/${scope}/checkpoints/`)).length, 2, 'the newest two are kept');
    const output = await runStage('count', input, depsOf(scope));
    assert.deepEqual(
      readLog(input.log).map(({ step }) => step),
      [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    );
    assert.deepEqual(output, await runStage('count', input, depsOf(freshScope())));
  });

  test('a damaged checkpoint is skipped with a warning; the one before it serves', async () => {
    const scope = freshScope();
    const input = countTo(6);
    await stoppedAt(4, input, scope);
    const newest = (await keysOf(`runs/${scope}/checkpoints/`)).at(-1)!;
    const { object } = (await store.readManifest<{ object: { key: string } }>(newest))!;
    const bytes = await readFile(pathOf(object.key));
    bytes[bytes.length - 1]! ^= 1;
    await writeFile(pathOf(object.key), bytes);
    const warnings: string[] = [];
    const output = await runStage<CountOutput>('count', input, depsOf(scope, { warn: (message) => warnings.push(message) }));
    assert.equal(output.sum, 21);
    assert.equal(warnings.length, 1);
    assert.ok(warnings[0]!.includes(newest), warnings[0]);
    assert.deepEqual(
      readLog(input.log).map(({ step }) => step),
      [1, 2, 3, 4, 4, 5, 6],
    );
  });

  test('a checkpoint of another numeric fingerprint is not continued, and does not get in the way', async () => {
    const scope = freshScope();
    const input = countTo(5);
    await stoppedAt(3, input, scope);
    const warnings: string[] = [];
    await stoppedAt(3, input, scope, { fingerprint: 'other/1', warn: (message) => warnings.push(message) });
    assert.match(warnings[0]!, /another numeric fingerprint/);
    await runStage('count', input, depsOf(scope));
    assert.deepEqual(
      readLog(input.log).map(({ step }) => step),
      [1, 2, 3, 1, 2, 3, 4, 5],
    );
    assert.deepEqual(await keysOf(`runs/${scope}/checkpoints/`), []);
  });

  test('a stage that is not deterministic is found out; under another fingerprint the first output counts', async () => {
    const scope = freshScope();
    let next = 0;
    let meet: () => void = () => {};
    const both = new Promise<void>((resolve) => (meet = resolve));
    const draw: Stage = async () => {
      const mine = next++;
      if (next === 2) meet();
      await both;
      return mine;
    };
    const drawing = { draw: { queue: 'cpu' as const, run: draw } };
    const results = await Promise.allSettled([1, 2].map(() => runStage('draw', null, depsOf(scope, { stages: drawing }))));
    const rejected = results.filter((result) => result.status === 'rejected');
    assert.equal(rejected.length, 1);
    assert.equal((rejected[0]!.reason as RatchetError).type, 'Conflict');

    const elsewhere = freshScope();
    const warnings: string[] = [];
    next = 0;
    const outputs = await Promise.all(
      ['a/1', 'b/1'].map((fingerprint) => {
        return runStage('draw', null, depsOf(elsewhere, { stages: drawing, fingerprint, warn: (message) => warnings.push(message) }));
      }),
    );
    assert.equal(outputs[0], outputs[1]);
    assert.equal(warnings.length, 1);
  });

  test('a stage reads committed outputs of its scope, and says which one is missing', async () => {
    const scope = freshScope();
    await assert.rejects(runStage('twice', { value: 21 }, depsOf(scope)), (error: RatchetError) => {
      assert.equal(error.type, 'Corrupt');
      assert.ok(error.message.includes(stageIntent('echo', { value: 21 })));
      return true;
    });
    await runStage('echo', { value: 21 }, depsOf(scope));
    assert.equal(await runStage('twice', { value: 21 }, depsOf(scope)), 42);
  });

  test('a memory under the wrong name is Corrupt, not believed', async () => {
    const scope = freshScope();
    await store.commit(stageKey(scope, 'echo', { a: 1 }), { stage: 'echo', input: { a: 2 }, output: { a: 2 }, fingerprint: 'test/1' });
    await assert.rejects(runStage('echo', { a: 1 }, depsOf(scope)), { type: 'Corrupt' });
  });

  test('what is wrong is refused before anything is written: stage, scope, size of input, size of output', async () => {
    const scope = freshScope();
    await assert.rejects(runStage('trian', {}, depsOf(scope)), (error: RatchetError) => {
      assert.equal(error.type, 'BadInput');
      assert.match(error.message, /one of .*count/);
      return true;
    });
    await assert.rejects(runStage('toString', {}, depsOf(scope)), { type: 'BadInput' });
    await assert.rejects(runStage('echo', {}, depsOf('../other')), { type: 'BadInput' });
    await assert.rejects(runStage('echo', 'x'.repeat(65_535), depsOf(scope)), { type: 'BadInput', message: /65537/ });
    await assert.rejects(runStage('big', { bytes: 65_535 }, depsOf(scope)), { type: 'BadInput', message: /output of stage big.*65537/ });
    assert.deepEqual(await keysOf(`runs/${scope}/`), []);
    assert.equal(await runStage('big', { bytes: 65_534 }, depsOf(scope)), 'x'.repeat(65_534), 'exactly 64 KiB with its quotes');
  });
});
