/** Which stages an outcome names, and what finding them costs: that of its own iteration, however many there were before. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { appendRecord, commitStage, readChain, stageIntent } from '../../artifacts/run-log.ts';
import type { RecordRef, StageIndex } from '../../artifacts/record.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import { startS3, type TestS3 } from '../support/s3.ts';

let s3: TestS3;
let store: ArtifactStore;
before(async () => {
  s3 = await startS3();
  store = ArtifactStore.connect(s3.config);
  await store.probe();
});
after(async () => {
  store.close();
  await s3.stop();
});

/** The store, with what is asked of it: every call, and every key that a listing gives. */
function counting(): { counted: ArtifactStore; asked: () => number } {
  let asked = 0;
  const counted = new Proxy(store, {
    get: (target, name) => {
      const value = target[name as keyof ArtifactStore] as unknown;
      if (typeof value !== 'function') return value;
      if (name !== 'list') return (...args: unknown[]) => (asked++, value.apply(target, args) as unknown);
      return async function* (...args: Parameters<ArtifactStore['list']>) {
        asked++;
        for await (const listed of target.list(...args)) {
          asked++;
          yield listed;
        }
      };
    },
  });
  return { counted, asked: () => asked };
}

/** The store, some of whose calls do something else. */
function instead(calls: Partial<ArtifactStore>): ArtifactStore {
  return new Proxy(store, {
    get: (target, name) => {
      const value = (calls[name as keyof ArtifactStore] ?? target[name as keyof ArtifactStore]) as unknown;
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

const call = (stage: string, input: unknown) => ({ stage, input, output: { of: input } });
const STAGES = ['collect', 'fit', 'update'];

/** One iteration in which each of STAGES is committed; `noted`: as this version does it. */
async function iterate(on: ArtifactStore, runId: string, before: RecordRef | null, iteration: number, noted = true): Promise<RecordRef> {
  const append = (kind: 'intent' | 'outcome', last: RecordRef) =>
    appendRecord(on, runId, { index: last.index + 1, kind, iteration, previous: last.sha256, body: {} });
  const genesis = { index: 0, kind: 'genesis', iteration: 0, previous: null, body: {} } as const;
  const intent = await append('intent', before ?? (await appendRecord(on, runId, genesis)));
  for (const stage of STAGES) await commitStage(on, runId, noted ? iteration : null, call(stage, iteration));
  return await append('outcome', intent);
}

async function indexes(runId: string): Promise<string[][]> {
  const outcomes = (await readChain(store, runId)).filter(({ entry }) => entry.kind === 'outcome');
  return Promise.all(outcomes.map(async ({ entry }) => Object.keys(await store.getJson<StageIndex>(entry.stages!)).sort()));
}
const expected = (iteration: number) => STAGES.map((stage) => stageIntent(stage, iteration)).sort();

test('an outcome names the stages of its iteration, and the twentieth costs what the second does', async () => {
  const { counted, asked } = counting();
  const costs: number[] = [];
  let head: RecordRef | null = null;
  for (let iteration = 0; iteration <= 20; iteration++) {
    const before = asked();
    head = await iterate(counted, 'many', head, iteration);
    costs.push(asked() - before);
  }
  assert.deepEqual(
    await indexes('many'),
    Array.from({ length: 21 }, (_, iteration) => expected(iteration)),
  );
  assert.equal(costs[20], costs[2], costs.join(' '));
});

test('asked again, an outcome is what it was; a note without a result names nothing', async () => {
  let head = await iterate(store, 'again', null, 0);
  const intent = await appendRecord(store, 'again', { index: 3, kind: 'intent', iteration: 1, previous: head.sha256, body: {} });
  await commitStage(store, 'again', 1, call('collect', 1));
  // An attempt that was killed between its note and its result.
  await store.writePointer(`runs/again/new/1/${stageIntent('fit', 1)}.json`, {});
  const outcome = { index: 4, kind: 'outcome', iteration: 1, previous: intent.sha256, body: {} } as const;
  head = await appendRecord(store, 'again', outcome);
  assert.deepEqual((await indexes('again'))[1], [stageIntent('collect', 1)]);
  assert.deepEqual(await appendRecord(store, 'again', outcome), head);
  const left: string[] = [];
  for await (const { key } of store.list('runs/again/new/')) left.push(key);
  assert.deepEqual(left, [], 'the notes go with the iteration');
});

test('of two attempts at one outcome the first one counts, though the second looked before it and counted while notes were taken away', async () => {
  const before = await iterate(store, 'twice', null, 0);
  const intent = await appendRecord(store, 'twice', { index: 3, kind: 'intent', iteration: 1, previous: before.sha256, body: {} });
  for (const stage of STAGES) await commitStage(store, 'twice', 1, call(stage, 1));
  const outcome = { index: 4, kind: 'outcome', iteration: 1, previous: intent.sha256, body: {} } as const;
  const first = instead({
    delete: async (...args: Parameters<ArtifactStore['delete']>) => {
      await store.delete(...args);
      throw new Error('cut off');
    },
  });
  let attempts = 1;
  const second = instead({
    // It has seen that there is no outcome, and now sees that there are notes.
    size: async (...args: Parameters<ArtifactStore['size']>) => {
      const size = await store.size(...args);
      if (attempts++ === 1) await assert.rejects(appendRecord(first, 'twice', outcome), /cut off/);
      return size;
    },
  });
  const head = await appendRecord(second, 'twice', outcome);
  assert.equal(attempts, 2);
  assert.deepEqual((await indexes('twice'))[1], expected(1));
  assert.deepEqual((await readChain(store, 'twice')).at(-1)?.ref, head);
  await assert.rejects(appendRecord(store, 'twice', { ...outcome, body: { another: true } }), { type: 'Conflict' });
});

test('an iteration that a version without notes began is looked through in full', async () => {
  let head = await iterate(store, 'older', null, 0, false);
  // What such a version leaves: an intent without the sign that notes are taken.
  const intent = await appendRecord(store, 'older', { index: 3, kind: 'intent', iteration: 1, previous: head.sha256, body: {} });
  await store.delete('runs/older/new/1/begun.json');
  await commitStage(store, 'older', null, call('collect', 1));
  await commitStage(store, 'older', 1, call('fit', 1));
  await commitStage(store, 'older', 1, call('update', 1));
  head = await appendRecord(store, 'older', { index: 4, kind: 'outcome', iteration: 1, previous: intent.sha256, body: {} });
  await iterate(store, 'older', head, 2);
  assert.deepEqual(await indexes('older'), [0, 1, 2].map(expected));
});
