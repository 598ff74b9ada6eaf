/**
 * `gc`, `pin` and `unpin` as a person gives them: what they say, refuse and leave to the other commands. On the test run's Temporal and a store of its own,
 * whose server keeps objects as files and tells their times of writing, so that runs can be made old.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { globSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Client, Connection } from '@temporalio/client';
import { noteEnding } from '../../artifacts/ending.ts';
import { readGivenUp } from '../../artifacts/retention.ts';
import { appendRecord, createRun } from '../../artifacts/run-log.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import type { GcReport } from '../../artifacts/gc.ts';
import type { RecordEntry, RecordRef } from '../../artifacts/record.ts';
import type { VerifyReport } from '../../artifacts/verify.ts';
import type { ArtifactRef } from '../../core/nouns.ts';
import { startS3, type TestS3 } from '../support/s3.ts';
import { writeSampleRun } from '../artifacts/sample-run.ts';
import { freshHome, ratchet } from './cli.ts';
import { recipe, sampleEntries } from './records.ts';

const mark = randomUUID().slice(0, 8);
let env: NodeJS.ProcessEnv;
let s3: TestS3;
let store: ArtifactStore;

before(async () => {
  s3 = await startS3();
  const { endpoint, region, bucket, credentials } = s3.config;
  env = {
    RATCHET_S3_ENDPOINT: endpoint,
    AWS_ACCESS_KEY_ID: credentials?.accessKeyId,
    AWS_SECRET_ACCESS_KEY: credentials?.secretAccessKey,
    AWS_REGION: region,
    RATCHET_BUCKET: bucket,
    RATCHET_HOME: freshHome(),
  };
  store = ArtifactStore.connect(s3.config);
  await store.probe();
  for (const run of ['paper', 'scratch']) {
    await writeSampleRun(store, run, { episodes: (episodes) => episodes.map((each) => ({ ...each, instruction: run })) });
    await noteEnding(store, run, { state: 'stopped', reason: null });
  }
});
after(async () => {
  store.close();
  await s3.stop();
});

/** All that lies under a folder was written a month ago. */
function growOld(folder: string): void {
  const root = join(s3.directory, s3.config.bucket, folder);
  const at = new Date(Date.now() - 30 * 24 * 3600_000);
  for (const path of globSync('**/*', { cwd: root })) utimesSync(join(root, path), at, at);
}

async function writeRun(to: ArtifactStore, run: string, entries: readonly RecordEntry[]): Promise<void> {
  await createRun(to, run, recipe);
  let last: RecordRef | null = null;
  for (const entry of entries) last = await appendRecord(to, run, { ...entry, previous: last?.sha256 ?? null });
}

/** The same with references to something that is there. */
async function withObjects(to: ArtifactStore, entries: readonly RecordEntry[]): Promise<RecordEntry[]> {
  const text = JSON.stringify(entries);
  const stored = new Map<string, ArtifactRef>();
  for (const [key] of text.matchAll(/objects\/[0-9a-f]{64}/g)) stored.set(key, await to.putJson({ instead: key }));
  return JSON.parse(text, (_, value: { key?: string } | null) => stored.get(value?.key ?? '') ?? value) as RecordEntry[];
}

test('looks unless told to apply, keeps what is young, and gives up the bulk of no run that is pinned', async () => {
  const young = await ratchet(['gc', '--drop', 'scratch'], { env });
  assert.equal(young.code, 2, young.out);
  assert.match(young.err, /scratch.*nothing was written for the grace period of 168 h/);
  growOld('runs');
  const looked = await ratchet(['gc', '--drop', 'scratch'], { env });
  assert.equal(looked.code, 0, looked.err);
  // Every object was stored a moment ago.
  assert.match(
    looked.out,
    /^2 runs; kept: \d+ objects.*\nnot referred to, but younger than 7 days: \d+ objects.*\nnothing could be removed\n$/,
  );
  assert.match((await ratchet(['verify', 'scratch'], { env })).out, /^scratch: everything is as its records say/);

  assert.match((await ratchet(['pin', 'paper', '--reason', 'it is in print'], { env })).out, /^run paper is pinned/);
  const refused = await ratchet(['gc', '--apply', '--drop', 'paper'], { env });
  assert.deepEqual([refused.code, /unpin paper/.test(refused.err)], [2, true]);
  assert.equal((await ratchet(['unpin', 'paper'], { env })).code, 0);

  const { code, out } = await ratchet(['gc', '--apply', '--drop', 'scratch', '--json'], { env });
  assert.equal(code, 0);
  const report = JSON.parse(out) as GcReport;
  assert.deepEqual(
    report.runs.map(({ run, givenUp }) => [run, givenUp]),
    [
      ['paper', false],
      ['scratch', true],
    ],
  );
  assert.deepEqual([report.applied, report.removed], [true, []]);
  const verified = JSON.parse((await ratchet(['verify', 'scratch', '--json'], { env })).out) as VerifyReport;
  assert.deepEqual([verified.ok, verified.givenUp?.absent], [true, 0]);
  // What needs the bulk says why it is not there, and who to ask.
  for (const args of [
    ['replay', 'scratch'],
    ['episodes', 'scratch'],
    ['fork', 'scratch', '--at-iteration', '1'],
    ['pin', 'scratch'],
  ]) {
    const { code: refusal, err } = await ratchet(args, { env });
    assert.equal(refusal, 2, args.join(' '));
    assert.match(err, /gave up those of this one on \d{4}-/, args.join(' '));
  }
});

for (const [name, args, told] of [
  ['a grace period below a day', ['gc', '--grace', '0'], /--grace: "0"/],
  ['an age that is no number', ['gc', '--older-than', 'week'], /--older-than: "week"/],
  ['a run that is not there', ['gc', '--drop', 'papre'], /did you mean paper/],
  ['a run to pin that is not there', ['pin', 'papre'], /did you mean paper/],
] as const)
  test(`${name} is bad input`, async () => {
    const { code, err } = await ratchet([...args], { env });
    assert.equal(code, 2, err);
    assert.match(err, told);
  });

test('a run that may be under way gives up nothing: Temporal is asked whatever the records say, and what it does not know is not taken for ended', async () => {
  const prefixed = { ...env, RATCHET_PREFIX: 'under-way' };
  const under = ArtifactStore.connect({ ...s3.config, prefix: 'under-way' });
  const client = new Client({ connection: await Connection.connect({ address: process.env['TEMPORAL_ADDRESS'] ?? '' }) });
  const [finished, elsewhere] = [`finished-${mark}`, `elsewhere-${mark}`];
  try {
    await writeRun(under, finished, sampleEntries());
    await writeRun(under, elsewhere, sampleEntries().slice(0, -2));
    growOld('under-way/runs');
    const unknown = await ratchet(['gc', '--apply', '--drop', elsewhere], { env: prefixed });
    assert.deepEqual([unknown.code, /does not know it: another one may be at work on it/.test(unknown.err)], [2, true], unknown.err);

    // An operator asked for more iterations; nobody works here.
    const options = { workflowId: finished, taskQueue: `nobody-${mark}` };
    const run = await client.workflow.start('improvementLoop', options);
    const busy = await ratchet(['gc', '--apply', '--drop', finished], { env: prefixed });
    assert.deepEqual([busy.code, busy.err.includes(`cancel ${finished}`)], [2, true], busy.err);
    await run.terminate();
    for (const each of [finished, elsewhere]) assert.equal(await readGivenUp(under, each), null);
  } finally {
    await client.connection.close();
    under.close();
  }
});

test('by age only finished runs give up their bulk: not the young, the pinned, the unfinished or those under way again', async () => {
  const prefixed = { ...env, RATCHET_PREFIX: 'aged' };
  const aged = ArtifactStore.connect({ ...s3.config, prefix: 'aged' });
  const client = new Client({ connection: await Connection.connect({ address: process.env['TEMPORAL_ADDRESS'] ?? '' }) });
  const runs = ['again', 'old', 'pinned', 'unfinished', 'young'].map((name) => `${name}-${mark}`);
  const [again, old, pinned, unfinished, young] = runs as [string, string, string, string, string];
  try {
    const entries = await withObjects(aged, sampleEntries());
    for (const run of runs) await writeRun(aged, run, run === unfinished ? entries.slice(0, -2) : entries);
    // Whoever stops a run may mean to go on with it: only `--drop` takes it.
    await noteEnding(aged, unfinished, { state: 'stopped', reason: null });
    assert.equal((await ratchet(['pin', pinned, '--reason', 'kept'], { env: prefixed })).code, 0);
    for (const run of runs) if (run !== young) growOld(`aged/runs/${run}`);
    const execution = await client.workflow.start('improvementLoop', { workflowId: again, taskQueue: `nobody-${mark}` });

    const givenUp = async (days: number, ...args: string[]) => {
      const { code, out, err } = await ratchet(['gc', '--older-than', String(days), '--json', ...args], { env: prefixed });
      assert.equal(code, 0, err);
      return (JSON.parse(out) as GcReport).runs.filter((each) => each.givenUp).map(({ run }) => run);
    };
    // They were written 30 days ago; the grace period of 7 is the least age, whatever is asked.
    assert.deepEqual(await givenUp(31), []);
    assert.deepEqual(await givenUp(29), [old]);
    assert.deepEqual(await givenUp(0, '--apply'), [old]);
    for (const run of runs) assert.equal((await readGivenUp(aged, run)) !== null, run === old, run);
    await execution.terminate();
  } finally {
    await client.connection.close();
    aged.close();
  }
});
