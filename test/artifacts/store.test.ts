import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { ArtifactStore, LARGEST_MANIFEST_BYTES, objectKey } from '../../artifacts/store.ts';
import { DEFAULT_PATIENCE_MS } from '../../artifacts/store-config.ts';
import { storeConfigFromEnvironment } from '../../artifacts/store-config.ts';
import type { ArtifactRef } from '../../core/nouns.ts';
import { startS3, type TestS3 } from '../support/s3.ts';

let s3: TestS3;
let store: ArtifactStore;

before(async () => {
  s3 = await startS3();
  store = ArtifactStore.connect({ ...s3.config, prefix: 'a/b' });
  await store.probe();
});

after(async () => {
  store.close();
  await s3.stop();
});

function fileOf(key: string): string {
  return join(s3.directory, s3.config.bucket, 'a/b', key);
}

/** `bytes` bytes that do not compress, the same every time. */
function noise(bytes: number): Uint8Array {
  return createHash('shake256', { outputLength: bytes }).update('noise').digest();
}

async function* inChunks(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function unfinishedUploads(): Promise<string[]> {
  const folder = join(s3.directory, s3.config.bucket, '.sgwtmp', 'multipart');
  return (await readdir(folder, { recursive: true }).catch(() => [])).filter((name) => name !== '');
}

/** What happens on the server's disk happens within milliseconds; a machine with ten others at work on it has needed more than ten seconds. */
const SERVER_BOUND_MS = 60_000;

async function until(happened: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + SERVER_BOUND_MS;
  while (!(await happened())) {
    assert.ok(performance.now() < deadline, `not within ${SERVER_BOUND_MS} ms`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test('any bytes come back, under the digest that sha256sum would print', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 5000 }), async (bytes) => {
      const ref = await store.put(bytes);
      assert.deepEqual(ref, {
        key: `objects/${createHash('sha256').update(bytes).digest('hex')}`,
        sha256: ref.key.slice(8),
        bytes: bytes.length,
      });
      assert.deepEqual(new Uint8Array(await store.get(ref)), bytes);
    }),
    { numRuns: 15 },
  );
});

test('bytes that are there are not sent again, and nothing changes them', async () => {
  const ref = await store.put(noise(1000));
  const before = await stat(fileOf(ref.key));
  assert.deepEqual(await store.put(noise(1000)), ref);
  assert.equal((await stat(fileOf(ref.key))).mtimeMs, before.mtimeMs);
});

test('an object cut short on disk is put back by the next put of its bytes', async () => {
  const ref = await store.put(noise(1001));
  await writeFile(fileOf(ref.key), noise(500));
  await store.put(noise(1001));
  assert.equal(Buffer.compare(await store.get(ref), noise(1001)), 0);
});

test('JSON is stored in canonical form: the order of keys does not matter', async () => {
  const ref = await store.putJson({ b: [1, 'ä'], a: null });
  assert.equal(await readFile(fileOf(ref.key), 'utf8'), '{"a":null,"b":[1,"ä"]}'); // RFC 8785: sorted keys, no white space
  assert.deepEqual(await store.putJson({ a: null, b: [1, 'ä'] }), ref);
  assert.deepEqual(await store.getJson(ref), { a: null, b: [1, 'ä'] });
  await assert.rejects(store.getJson(await store.put(Buffer.from('{'))), { type: 'Corrupt', message: /not JSON/ });
});

test('bodies on both sides of the multipart limit come back, from memory and from streams', async () => {
  const limit = 16 * 1024 * 1024;
  const large = noise(2 * limit + 5);
  for (const bytes of [limit, large.length]) {
    const body = large.subarray(0, bytes);
    const ref = await store.put(body);
    assert.equal(Buffer.compare(await store.get(ref), body), 0);
    await store.delete(ref.key);
    assert.deepEqual(await store.putStream(inChunks(body, 1_000_003)), ref);
    let offset = 0;
    for await (const chunk of store.getStream(ref)) {
      assert.equal(Buffer.compare(chunk, body.subarray(offset, offset + chunk.length)), 0);
      offset += chunk.length;
    }
    assert.equal(offset, bytes);
  }
  assert.deepEqual(await store.putStream(inChunks(new Uint8Array(0), 1)), await store.put(new Uint8Array(0)));
});

test('a flipped byte, a cut object and a missing one are Corrupt by name, also as a stream', async () => {
  const body = noise(300_000);
  const ref = await store.put(body);
  const damages: [string, Uint8Array | null][] = [
    ['flipped', body.map((byte, i) => (i === 150_000 ? byte ^ 1 : byte))],
    ['cut', body.subarray(0, 299_999)],
    ['longer', Buffer.concat([body, Buffer.from('x')])],
    ['missing', null],
  ];
  for (const [how, damaged] of damages) {
    if (damaged) await writeFile(fileOf(ref.key), damaged);
    else await rm(fileOf(ref.key));
    const isNamed = { type: 'Corrupt', message: new RegExp(ref.key) };
    await assert.rejects(store.get(ref), isNamed, how);
    await assert.rejects(async () => {
      for await (const chunk of store.getStream(ref)) assert.ok(chunk.length > 0);
    }, isNamed);
  }
});

test('the cache keeps within its bytes, hands out copies, and never answers for damaged bytes it has not read', async () => {
  const cached = ArtifactStore.connect({ ...s3.config, prefix: 'a/b', cacheBytes: 2500 });
  const refs: ArtifactRef[] = [];
  for (const size of [1002, 1003, 1004]) refs.push(await cached.put(noise(size)));
  const [first, second, third] = refs as [ArtifactRef, ArtifactRef, ArtifactRef];
  await cached.get(first);
  await cached.get(second);
  (await cached.get(second)).fill(0);
  await cached.get(third); // first, the longest unused, has to go
  for (const ref of refs) await store.delete(ref.key);
  assert.equal(Buffer.compare(await cached.get(second), noise(1003)), 0);
  assert.equal(Buffer.compare(await cached.get(third), noise(1004)), 0);
  await assert.rejects(cached.get(first), { type: 'Corrupt' });
  cached.close();
});

test('of 32 committers with different content exactly one wins, and the others are told of the conflict', async () => {
  for (let round = 0; round < 3; round++) {
    const key = `runs/race/${round}.json`;
    const tries = await Promise.allSettled(
      Array.from({ length: 32 }, (_, writer) => store.commit(key, { writer, filler: 'x'.repeat(writer * 100) })),
    );
    const winners = tries.flatMap((attempt, writer) => (attempt.status === 'fulfilled' ? [{ ...attempt.value, writer }] : []));
    assert.equal(winners.length, 1);
    assert.equal(winners[0]?.created, true);
    assert.equal((await store.readManifest<{ writer: number }>(key))?.writer, winners[0]?.writer);
    for (const attempt of tries) if (attempt.status === 'rejected') assert.equal(attempt.reason.type, 'Conflict');
  }
});

test('of 32 committers with equal content exactly one creates and all succeed', async () => {
  const tries = await Promise.all(Array.from({ length: 32 }, () => store.commit('runs/race/equal.json', { a: 1 })));
  assert.equal(tries.filter(({ created }) => created).length, 1);
});

test('manifests: absent is null, larger than the limit is refused, pointers may be overwritten', async () => {
  assert.equal(await store.readManifest('runs/none.json'), null);
  await assert.rejects(store.commit('runs/large.json', 'x'.repeat(LARGEST_MANIFEST_BYTES)), {
    type: 'BadInput',
    message: /size of manifest/,
  });
  await store.commit('runs/largest.json', 'x'.repeat(LARGEST_MANIFEST_BYTES - 2));
  for (let i = 0; i < 10; i++) {
    await assert.rejects(store.commit('runs/largest.json', 'y'.repeat(LARGEST_MANIFEST_BYTES - 2)), { type: 'Conflict' });
  }
  await store.writePointer('hints/x.json', 1);
  await store.writePointer('hints/x.json', 2);
  assert.equal(await store.readManifest('hints/x.json'), 2);
});

test('list gives every key below a prefix in order across pages, folders only the next level, and delete takes away', async () => {
  const keys = Array.from({ length: 1005 }, (_, i) => `list/${String(i).padStart(4, '0')}/item`);
  for (let at = 0; at < keys.length; at += 64) await Promise.all(keys.slice(at, at + 64).map((key) => store.writePointer(key, key)));
  const listed = [];
  for await (const { key, bytes } of store.list('list/')) {
    listed.push(key);
    assert.equal(bytes, 16); // "list/0000/item" with its quotes
  }
  assert.deepEqual(listed, keys);
  const folders = [];
  for await (const folder of store.listFolders('list/')) folders.push(folder);
  assert.deepEqual(
    folders,
    keys.map((key) => key.slice(0, -'item'.length)),
  );
  await store.delete('list/0000/item');
  await store.delete('list/0000/item');
  assert.equal(await store.size('list/0000/item'), null);
});

test('two prefixes in one bucket do not see each other', async () => {
  const other = ArtifactStore.connect({ ...s3.config, prefix: 'other/' });
  await other.commit('runs/p.json', 1);
  assert.equal(await store.readManifest('runs/p.json'), null);
  for await (const { key } of other.list('')) assert.equal(key, 'runs/p.json');
  other.close();
});

test('an aborted call throws the reason, and an aborted upload leaves neither object nor parts nor temporary files', async () => {
  const reason = new Error('not wanted any more');
  const spoolDirectory = await mkdtemp(join(tmpdir(), 'ratchet-test-spool-'));
  const spooling = ArtifactStore.connect({ ...s3.config, prefix: 'a/b', spoolDirectory });
  const large = noise(34 * 1024 * 1024 + 1);
  for (const upload of [
    (signal: AbortSignal) => store.put(large, { signal }),
    (signal: AbortSignal) => spooling.putStream(inChunks(large, 1 << 20), { signal }),
  ]) {
    const abort = new AbortController();
    const uploading = upload(abort.signal);
    // The server has begun the upload: it is in its middle.
    const midway = until(async () => (await unfinishedUploads()).length > 0).then(() => abort.abort(reason));
    await Promise.all([midway, assert.rejects(uploading, reason)]);
    // A part that was on its way when the upload was removed is dropped by the server when it notices.
    await until(async () => (await unfinishedUploads()).length === 0);
    assert.equal(await store.size(objectKey(createHash('sha256').update(large).digest('hex'))), null);
  }
  assert.deepEqual(await readdir(spoolDirectory), []);
  await assert.rejects(store.get(await store.put(noise(10)), { signal: AbortSignal.abort(reason) }), reason);
  await assert.rejects(store.commit('runs/aborted.json', 1, { signal: AbortSignal.abort(reason) }), reason);
  assert.equal(await store.readManifest('runs/aborted.json'), null);
  spooling.close();
  await rm(spoolDirectory, { recursive: true });
});

test('a source that fails leaves no temporary file, and its own error comes out', async () => {
  const spoolDirectory = await mkdtemp(join(tmpdir(), 'ratchet-test-spool-'));
  const spooling = ArtifactStore.connect({ ...s3.config, spoolDirectory });
  const failure = new Error('source failed');
  async function* source() {
    yield noise(10);
    throw failure;
  }
  await assert.rejects(spooling.putStream(source()), failure);
  assert.deepEqual(await readdir(spoolDirectory), []);
  spooling.close();
  await rm(spoolDirectory, { recursive: true });
});

test('a server killed with SIGKILL is waited for: calls under way finish when it is back', async () => {
  const key = 'runs/killed.json';
  const ref = await store.put(noise(200_000));
  await s3.kill();
  const calls = Promise.all([store.get(ref), store.put(noise(201_000)), store.commit(key, { a: 1 }), store.readManifest('runs/none.json')]);
  await s3.restart();
  const [bytes, put, committed] = await calls;
  assert.equal(bytes.length, 200_000);
  assert.deepEqual(committed, { created: true });
  assert.equal(Buffer.compare(await store.get(put), noise(201_000)), 0);
});

test('a server that stays away is Unavailable after the patience given, saying where and what to check', async () => {
  const away = ArtifactStore.connect({ ...s3.config, endpoint: 'http://127.0.0.1:9', patienceMs: 300 });
  const started = performance.now();
  await assert.rejects(away.put(noise(1)), { type: 'Unavailable', message: /127\.0\.0\.1:9.*ECONNREFUSED.*AWS_ENDPOINT_URL_S3/ });
  await assert.rejects(away.commit('runs/x.json', 1), { type: 'Unavailable' });
  await assert.rejects(away.probe(), { type: 'Unavailable' });
  assert.ok(performance.now() - started < DEFAULT_PATIENCE_MS);
  away.close();
});

test('the configuration comes from the environment, and half of one is refused', () => {
  assert.deepEqual(storeConfigFromEnvironment({}), { region: 'us-east-1', bucket: 'ratchet', prefix: '' });
  const env = {
    AWS_ENDPOINT_URL: 'http://general',
    AWS_ENDPOINT_URL_S3: 'http://special',
    AWS_REGION: 'eu-1',
    RATCHET_BUCKET: 'b-1',
    RATCHET_PREFIX: 'p',
  };
  const keys = { AWS_ACCESS_KEY_ID: 'i', AWS_SECRET_ACCESS_KEY: 's', AWS_SESSION_TOKEN: 't' };
  assert.deepEqual(storeConfigFromEnvironment({ ...env, ...keys }), {
    endpoint: 'http://special',
    region: 'eu-1',
    bucket: 'b-1',
    prefix: 'p',
    credentials: { accessKeyId: 'i', secretAccessKey: 's', sessionToken: 't' },
  });
  assert.equal(storeConfigFromEnvironment({ ...env, RATCHET_S3_ENDPOINT: 'aws' }).endpoint, undefined);
  const bad: [Record<string, string>, RegExp][] = [
    [{ AWS_ACCESS_KEY_ID: 'i' }, /AWS_SECRET_ACCESS_KEY/],
    [{ AWS_ENDPOINT_URL: 'localhost:9000' }, /S3 endpoint: "localhost:9000"/],
    [{ RATCHET_BUCKET: 'No' }, /S3 bucket: "No"/],
    [{ RATCHET_PREFIX: '../up' }, /S3 prefix: "\.\.\/up"/],
  ];
  for (const [wrong, message] of bad) assert.throws(() => storeConfigFromEnvironment(wrong), { type: 'BadInput', message });
});

test('keys that some servers could not hold are refused before anything is sent', async () => {
  for (const key of ['', '/a', 'a/', 'a//b', 'a/../b', 'a\u0000', 'ä', 'a'.repeat(901)]) {
    await assert.rejects(store.writePointer(key, 1), { type: 'BadInput' }, key);
  }
});
