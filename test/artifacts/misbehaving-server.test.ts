import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { ArtifactStore } from '../../artifacts/store.ts';
import { startS3, type TestS3 } from '../support/s3.ts';
import { refuse, startMisbehaving, type MisbehavingS3, type Passing } from './misbehaving-s3.ts';

let s3: TestS3;

before(async () => {
  s3 = await startS3();
  const store = ArtifactStore.connect(s3.config);
  await store.probe();
  store.close();
});

after(() => s3.stop());

/** A store whose server misbehaves as `pass` says. The bounds are far below the defaults so that the tests are quick, far above what one request takes. */
async function behind<T>(pass: Passing, use: (store: ArtifactStore, server: MisbehavingS3) => Promise<T>, patienceMs = 3_000): Promise<T> {
  const server = await startMisbehaving(s3.config.endpoint as string, pass);
  const store = ArtifactStore.connect({ ...s3.config, endpoint: server.endpoint, patienceMs, idleTimeoutMs: 300 });
  try {
    return await use(store, server);
  } finally {
    store.close();
    await server.stop();
  }
}

const objects = new Map<string, Buffer>();

/** A store in memory that takes every write, whatever its condition. */
const ignoresConditions: Passing = (request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    const path = request.url?.split('?')[0] ?? '';
    if (request.method === 'PUT') objects.set(path, Buffer.concat(chunks));
    if (request.method === 'GET' && request.url?.includes('list-type=2')) {
      response.writeHead(200, { 'content-type': 'application/xml' });
      return response.end('<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>');
    }
    response.writeHead(request.method === 'DELETE' ? 204 : 200);
    return response.end(request.method === 'GET' ? objects.get(path) : undefined);
  });
};

test('a server that ignores conditional writes is refused at launch, saying which would do', async () => {
  await behind(ignoresConditions, (store) =>
    assert.rejects(store.probe(), {
      type: 'Unavailable',
      message: /2 were accepted instead of 1; use a server that honours If-None-Match/,
    }),
  );
});

test('a server that checks conditions without a lock is refused at launch', async () => {
  const taken = new Set<string>();
  await behind(
    (request, response, forward) => {
      const path = request.url?.split('?')[0] ?? '';
      if (request.method !== 'PUT' || !request.headers['if-none-match']) return forward();
      if (taken.has(path)) return refuse(response, 412, 'PreconditionFailed');
      // The look and the write are apart: whoever looks meanwhile finds nothing either.
      setTimeout(() => taken.add(path), 200);
      request.resume();
      response.writeHead(200).end();
    },
    (store) => assert.rejects(store.probe(), { type: 'Unavailable', message: /2 were accepted/ }),
  );
});

test('refused credentials are Unavailable at once, saying what to check, and are not asked again and again', async () => {
  const credentials = { accessKeyId: s3.config.credentials?.accessKeyId ?? '', secretAccessKey: 'wrong' };
  const store = ArtifactStore.connect({ ...s3.config, credentials });
  await assert.rejects(store.probe(), { type: 'Unavailable', message: /403 SignatureDoesNotMatch.*AWS_SECRET_ACCESS_KEY/ });
  const stranger = ArtifactStore.connect({ ...s3.config, credentials: { accessKeyId: 'nobody', secretAccessKey: 'x' } });
  await assert.rejects(stranger.probe(), { type: 'Unavailable', message: /XAdminUserNotFound.*AWS_ACCESS_KEY_ID/ });
  // Not Corrupt: an unknown key must not look like lost data.
  await assert.rejects(stranger.get({ key: 'objects/x', sha256: 'x', bytes: 1 }), { type: 'Unavailable', message: /XAdminUserNotFound/ });
  store.close();
  stranger.close();
  await behind(
    (_, response) => refuse(response, 403, 'AccessDenied'),
    async (denied, server) => {
      await assert.rejects(denied.put(Buffer.from('x')), { type: 'Unavailable' });
      assert.equal(server.seen.length, 1);
    },
  );
});

test('something that is not an S3 server is Unavailable, saying so', async () => {
  await behind(
    (_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<html><body>It works!</body>'),
    (store) => assert.rejects(store.probe(), { type: 'Unavailable', message: /AWS_ENDPOINT_URL_S3/ }),
  );
});

test('500 and 503 are outwaited, in every kind of call', async () => {
  let spoiled = 0;
  const spoilTwoOfThree: Passing = (request, response, forward) => {
    if (spoiled++ % 3 === 2) return forward();
    request.resume();
    return refuse(response, spoiled % 2 ? 500 : 503, spoiled % 2 ? 'InternalError' : 'SlowDown');
  };
  await behind(spoilTwoOfThree, async (store) => {
    const ref = await store.put(Buffer.from('spoiled'));
    assert.equal(Buffer.from(await store.get(ref)).toString(), 'spoiled');
    assert.deepEqual(await store.commit('spoiled/a.json', 1), { created: true });
    assert.deepEqual(await store.commit('spoiled/a.json', 1), { created: false });
    assert.equal(await store.readManifest('spoiled/a.json'), 1);
    for await (const { key } of store.list('spoiled/')) assert.equal(key, 'spoiled/a.json');
    await store.writePointer('spoiled/b.json', 2);
    await store.delete('spoiled/b.json');
    // Every try is counted, and of three in turn the two that were spoiled as failures.
    const counts = Object.values(store.requests);
    const sum = (of: 'requests' | 'failures') => counts.reduce((total, count) => total + count[of], 0);
    assert.deepEqual([sum('requests'), sum('failures')], [spoiled, spoiled - Math.floor(spoiled / 3)]);
  });
});

test('a server that is still starting passes the check at launch', async () => {
  let asked = 0;
  await behind(
    (request, response, forward) => (asked++ < 4 ? (request.resume(), refuse(response, 503, 'ServiceUnavailable')) : forward()),
    (store) => store.probe(),
  );
});

test('a full disk is Unavailable and says so', async () => {
  const full: [number, string, RegExp][] = [
    [507, 'InsufficientStorage', /disk of the storage server is full/],
    [500, 'InternalError', /its disk may be full/],
    [403, 'QuotaExceeded', /QuotaExceeded/],
  ];
  for (const [status, code, message] of full) {
    await behind(
      (request, response) => (
        request.resume(),
        refuse(response, request.method === 'PUT' ? status : 404, request.method === 'PUT' ? code : 'NoSuchKey')
      ),
      (store) => assert.rejects(store.put(Buffer.from('x')), { type: 'Unavailable', message }),
      200,
    );
  }
});

test('a download that is cut again and again is taken up where it broke, and is still hashed as a whole', async () => {
  const body = Buffer.alloc(500_000, 'abcdefg');
  const direct = ArtifactStore.connect(s3.config);
  const ref = await direct.put(body);
  direct.close();
  let cuts = 0;
  const cutting = (damage: boolean): Passing => {
    return (request, response) => {
      const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
      const rest = body.subarray(from);
      response.writeHead(from > 0 ? 206 : 200, {
        'content-length': rest.length,
        ...(from > 0 && { 'content-range': `bytes ${from}-${body.length - 1}/${body.length}` }),
      });
      const part = Buffer.from(rest.subarray(0, 150_000));
      if (damage && from > 0) part[0] = 0;
      if (part.length === rest.length) return response.end(part);
      cuts++;
      return response.write(part, () => response.destroy());
    };
  };
  await behind(cutting(false), async (store) => assert.equal(Buffer.compare(await store.get(ref), body), 0));
  assert.ok(cuts >= 3);
  await behind(cutting(true), (store) => assert.rejects(store.get(ref), { type: 'Corrupt', message: new RegExp(ref.key) }));
});

test('a commit whose answer is lost finds its own bytes and is content; one whose refusal is lost finds the other bytes', async () => {
  let cut = 0;
  // The request is carried out, its answer never arrives: what a refused upload looks like on some servers, and a lost connection on all.
  const losesAnswers: Passing = (request, response, forward) => {
    if (request.method !== 'PUT' || cut++ > 0) return forward();
    response.writeHead = () => response;
    response.write = () => true;
    response.end = () => (response.destroy(), response);
    return forward();
  };
  await behind(losesAnswers, async (store) => assert.deepEqual(await store.commit('lost/a.json', { a: 1 }), { created: false }));
  cut = 0;
  await behind(losesAnswers, (store) =>
    assert.rejects(store.commit('lost/a.json', { a: 2 }), { type: 'Conflict', message: /lost\/a\.json/ }),
  );
});

test('a commit that meets another one (409) is tried again and decided by what is stored', async () => {
  let raced = 0;
  const races: Passing = (request, response, forward) => {
    if (request.method !== 'PUT' || raced++ > 1) return forward();
    request.resume();
    return refuse(response, 409, 'ConditionalRequestConflict');
  };
  await behind(races, async (store) => assert.deepEqual(await store.commit('raced/a.json', 1), { created: true }));
  assert.equal(raced, 3);
});

test('a server that accepts and never answers does not hold a caller who stops waiting', async () => {
  const abort = new AbortController();
  const reason = new Error('enough');
  await behind(
    () => abort.abort(reason),
    (store) => assert.rejects(store.get({ key: 'objects/x', sha256: 'x', bytes: 1 }, { signal: abort.signal }), reason),
  );
});

test('an answer that stops in its middle does not hold a caller who stops waiting', async () => {
  const abort = new AbortController();
  const reason = new Error('enough');
  await behind(
    (_, response) => void response.writeHead(200, { 'content-length': 100 }).write('begun', () => setImmediate(() => abort.abort(reason))),
    (store) => assert.rejects(store.get({ key: 'objects/x', sha256: 'x', bytes: 100 }, { signal: abort.signal }), reason),
  );
});

test('a server that falls silent, before its answer or in the middle of it, is asked again', async () => {
  const body = Buffer.alloc(200_000, 'silence');
  const direct = ArtifactStore.connect(s3.config);
  const ref = await direct.put(body);
  direct.close();
  let asked = 0;
  const silent: Passing = (_, response, forward) => {
    asked++;
    if (asked === 1) return;
    if (asked > 2) return forward(); // with the range that is still missing
    response.writeHead(200, { 'content-length': body.length });
    response.write(body.subarray(0, 50_000));
  };
  await behind(silent, async (store, server) => {
    assert.equal(Buffer.compare(await store.get(ref), body), 0);
    assert.equal(server.seen.length, 3);
  });
});

test('a download that trickles is given up in bounded time', async () => {
  const trickling: Passing = (_, response) => {
    response.writeHead(200, { 'content-length': 100 });
    const timer = setInterval(() => response.write('x'), 50);
    response.on('close', () => clearInterval(timer));
  };
  await behind(
    trickling,
    (store) => assert.rejects(store.get({ key: 'objects/x', sha256: 'x', bytes: 100 }), { type: 'Unavailable', message: /too slow/ }),
    200,
  );
});
