import assert from 'node:assert/strict';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { recordKey, runKey } from '../../artifacts/run-log.ts';
import type { RecordRef } from '../../artifacts/record.ts';
import { ArtifactStore, objectKey } from '../../artifacts/store.ts';
import { verifyRun } from '../../artifacts/verify.ts';
import type { Episode } from '../../core/nouns.ts';
import { startS3, type TestS3 } from '../support/s3.ts';
import { writeSampleRun } from './sample-run.ts';

let s3: TestS3;
let store: ArtifactStore;
let head: RecordRef;
/** Everything that the head of the sample run leads to, and the attestations beside it. */
let reachable: string[];
let attestations: string[];

before(async () => {
  s3 = await startS3();
  store = ArtifactStore.connect({ ...s3.config, prefix: 'clean' });
  await store.probe();
  head = await writeSampleRun(store, 'sample');
  reachable = [];
  attestations = [];
  for await (const { key } of store.list('')) (key.includes('/attestations/') ? attestations : reachable).push(key);
});

after(async () => {
  store.close();
  await s3.stop();
});

/** Another store in the same bucket, for a run of its own. */
async function withRun<T>(prefix: string, use: (other: ArtifactStore) => Promise<T>): Promise<T> {
  const other = ArtifactStore.connect({ ...s3.config, prefix });
  try {
    return await use(other);
  } finally {
    other.close();
  }
}

function fileOf(key: string): string {
  return join(s3.directory, s3.config.bucket, 'clean', key);
}

/** Where a deleted file waits to be put back: outside of every bucket. */
function aside(): string {
  return join(s3.directory, 'aside');
}

test('an untouched run verifies, and everything it holds is counted', async () => {
  const seen: number[] = [];
  const report = await verifyRun(store, 'sample', { head: head.sha256, onProgress: ({ done }) => seen.push(done) });
  assert.deepEqual(report.problems, []);
  assert.equal(report.ok, true);
  assert.deepEqual(report.head, head);
  assert.deepEqual(report.unresolved, []);
  // Genesis and two records for each of two iterations; five sets of six episodes, of which the tables of one set are stored once.
  assert.equal(report.counts.records, 5);
  assert.equal(report.counts.episodes, 30);
  assert.equal(report.counts.evaluations, 3);
  assert.equal(report.counts.objects, reachable.filter((key) => key.startsWith('objects/')).length);
  assert.equal(seen.at(-1), report.counts.objects);
});

test('two runs of one recipe have equal heads', async () => {
  assert.deepEqual(await writeSampleRun(store, 'again'), head);
  await withRun('elsewhere', async (other) => assert.deepEqual(await writeSampleRun(other, 'third'), head));
});

test('the key of the signatures is missing: it is named', async () => {
  const key = reachable.concat(attestations).find((each) => each.includes('/keys/'));
  assert.ok(key);
  const file = fileOf(key);
  await rename(file, aside());
  try {
    const { problems } = await verifyRun(store, 'sample');
    assert.deepEqual(new Set(problems.map((problem) => problem.key)), new Set([key]));
  } finally {
    await rename(aside(), file);
  }
});

test('whichever stored byte is flipped, object deleted or cut: verify fails and names it first', async () => {
  const damage = fc.constantFrom('flip', 'delete', 'cut');
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...reachable, ...attestations),
      damage,
      fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
      fc.nat(7),
      async (key, wanted, where, bit) => {
        // An attestation is a note: it may be absent, but not say something else.
        const how = wanted === 'delete' && attestations.includes(key) ? 'flip' : wanted;
        const file = fileOf(key);
        const original = await readFile(file);
        if (how === 'delete') await rename(file, aside());
        else if (how === 'cut') await writeFile(file, original.subarray(0, Math.floor(where * original.length)));
        else {
          const flipped = Buffer.from(original);
          const at = Math.floor(where * original.length);
          flipped[at] = (flipped[at] as number) ^ (1 << bit);
          await writeFile(file, flipped);
        }
        try {
          const report = await verifyRun(store, 'sample');
          assert.equal(report.ok, false);
          assert.equal(report.problems[0]?.key, key, JSON.stringify(report.problems.slice(0, 3), null, 1));
        } finally {
          if (how === 'delete') await rename(aside(), file);
          else await writeFile(file, original);
        }
      },
    ),
    { numRuns: 50 },
  );
  assert.equal((await verifyRun(store, 'sample')).ok, true);
});

test('any two records swapped are noticed, and so is a chain cut at its end', async () => {
  for (let a = 0; a <= head.index; a++) {
    for (let b = a + 1; b <= head.index; b++) {
      const [one, other] = [fileOf(recordKey('sample', a)), fileOf(recordKey('sample', b))];
      const [first, second] = [await readFile(one), await readFile(other)];
      await writeFile(one, second);
      await writeFile(other, first);
      const report = await verifyRun(store, 'sample');
      await writeFile(one, first);
      await writeFile(other, second);
      assert.equal(report.ok, false);
      assert.equal(report.problems[0]?.key, recordKey('sample', a));
    }
  }
  const last = fileOf(recordKey('sample', head.index));
  await rename(last, aside());
  // Its attestation betrays it; and where that is gone too, the head that somebody noted.
  const report = await verifyRun(store, 'sample');
  assert.deepEqual(report.problems[0], {
    what: 'attested record',
    key: recordKey('sample', head.index),
    expected: `SHA-256 ${head.sha256}, as in runs/sample/attestations/000004.json`,
    found: 'it is missing',
  });
  const held = await verifyRun(store, 'sample', { head: head.sha256 });
  assert.equal(held.problems[0]?.what, 'head');
  assert.deepEqual(held.unresolved, [1]);
  await rename(aside(), last);
});

test('a recipe other than the one the run was created with is noticed', async () => {
  const file = fileOf(runKey('sample'));
  const original = await readFile(file, 'utf8');
  const other = await store.putJson({ name: 'other' });
  await store.writePointer(runKey('sample'), { recipe: other, recipeSha256: other.sha256 });
  const report = await verifyRun(store, 'sample');
  await writeFile(file, original);
  assert.equal(report.problems[0]?.what, 'recipe of the genesis');
});

/** A run that was written with a lie in it, every digest right: only arithmetic can find it. */
const lies: [string, Parameters<typeof writeSampleRun>[2], RegExp][] = [
  ['an episode left out', { episodes: (episodes) => episodes.slice(1) }, /^dispatched of shard 0$/],
  [
    'an episode twice under another id',
    { episodes: (episodes) => [...episodes, { ...(episodes[0] as Episode), id: 'x' }] },
    /^dispatched of shard 0$/,
  ],
  [
    'a failure told as a success',
    { episodes: (episodes) => episodes.map((e) => ({ ...e, outcome: 1, ending: { kind: 'completed' } })) },
    /^completed of shard 0$/,
  ],
  [
    'episodes of another policy',
    { episodes: (episodes) => episodes.map((e) => ({ ...e, policy: 'f'.repeat(64) })) },
    /^policy of the episodes of shard 0$/,
  ],
  ['a shard that does not add up', { shard: (shard) => ({ ...shard, failed: shard.failed + 1 }) }, /^account of shard 0$/],
  ['a turn not counted', { shard: (shard) => ({ ...shard, turnCount: shard.turnCount - 1 }) }, /^turnCount of shard 0$/],
  ['an evaluation of another panel', { evaluated: (evaluated) => ({ ...evaluated, panel: 'a'.repeat(64) }) }, /^panel of evaluation/],
  [
    'an evaluation with a better number',
    { evaluated: (evaluated) => ({ ...evaluated, success: { value: 1, low: 1, high: 1, n: 4 } }) },
    /^success of evaluation/,
  ],
  ['an evaluation of another policy', { evaluated: (evaluated) => ({ ...evaluated, policy: 'b'.repeat(64) }) }, /^policy of evaluation/],
  [
    'an object that no stage gave',
    { outcome: (body) => ({ ...body, extra: { key: objectKey('c'.repeat(64)), sha256: 'c'.repeat(64), bytes: 1 } }) },
    /^origin of an object$/,
  ],
  [
    'a model under a wrong name',
    { outcome: (body) => ({ ...body, policy: { ...(body['policy'] as object), sha256: 'd'.repeat(64) } }) },
    /^name of a model$/,
  ],
  [
    'rollouts of another policy than the intent says',
    { outcome: (body, other) => ({ ...body, rollouts: other }) },
    /^policy of the rollouts$/,
  ],
  ['an iteration that starts from another policy', { intent: (_, other) => ({ from: other }) }, /^policy that the iteration starts from$/],
];

for (const [index, [lie, changes, what]] of lies.entries()) {
  test(`${lie} is found by arithmetic`, async () => {
    await withRun(`lie-${index}`, async (other) => {
      await writeSampleRun(other, 'lie', changes);
      const report = await verifyRun(other, 'lie');
      assert.equal(report.ok, false);
      assert.ok(
        report.problems.some((problem) => what.test(problem.what)),
        JSON.stringify(report.problems, null, 1),
      );
    });
  });
}

test('a run that is not in the store is bad input, and a store that is away is unavailable, not a broken run', async () => {
  await assert.rejects(verifyRun(store, 'nobody'), { type: 'BadInput', message: /run id: "nobody"/ });
  const away = ArtifactStore.connect({ ...s3.config, endpoint: 'http://127.0.0.1:9', patienceMs: 100 });
  await assert.rejects(verifyRun(away, 'sample'), { type: 'Unavailable' });
  away.close();
});
