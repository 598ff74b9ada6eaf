import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { endpointEnvironment, endpointsFromEnvironment, s3FromEnvironment, temporalFromEnvironment } from '../../infra/endpoints.ts';
import type { Endpoints } from '../../infra/endpoints.ts';

const port = fc.integer({ min: 1, max: 65535 });
const word = fc.stringMatching(/^[a-z][a-z0-9]{2,20}$/);
const endpoints: fc.Arbitrary<Endpoints> = fc.record({
  temporal: fc.record({
    address: fc.tuple(word, port).map(([host, p]) => `${host}:${p}`),
    namespace: word,
    uiUrl: fc.option(port.map((p) => `http://127.0.0.1:${p}`)),
  }),
  s3: fc
    .record({
      endpoint: fc.option(port.map((p) => `http://127.0.0.1:${p}`)),
      region: word,
      bucket: word,
      keys: fc.record({ accessKeyId: word, secretAccessKey: word }),
    })
    .map(({ keys, ...s3 }) => ({ ...s3, ...keys, forcePathStyle: s3.endpoint !== null })),
});

test('what is handed to a child process is what it reads back, whatever it inherits', () => {
  const inherited = {
    AWS_ENDPOINT_URL: 'https://elsewhere.example',
    AWS_SESSION_TOKEN: 'of other keys',
    TEMPORAL_UI_URL: 'http://elsewhere',
  };
  fc.assert(
    fc.property(endpoints, (given) => {
      assert.deepEqual(endpointsFromEnvironment({ ...inherited, ...endpointEnvironment(given) }), structuredClone(given));
    }),
  );
});

test('nothing named means nothing', () => {
  assert.equal(temporalFromEnvironment({}), null);
  assert.equal(s3FromEnvironment({ AWS_REGION: 'eu-west-1', RATCHET_BUCKET: 'mine' }), null);
  assert.equal(endpointsFromEnvironment({ TEMPORAL_ADDRESS: 'a:1' }), null);
});

test('the more specific address wins, and aws means AWS', () => {
  const general = { AWS_ENDPOINT_URL: 'http://a.example' };
  const s3 = { ...general, AWS_ENDPOINT_URL_S3: 'http://b.example' };
  assert.equal(s3FromEnvironment(general)?.endpoint, 'http://a.example');
  assert.equal(s3FromEnvironment(s3)?.endpoint, 'http://b.example');
  assert.equal(s3FromEnvironment({ ...s3, RATCHET_S3_ENDPOINT: 'http://c.example' })?.endpoint, 'http://c.example');
  const aws = s3FromEnvironment({ ...s3, RATCHET_S3_ENDPOINT: 'aws', AWS_REGION: 'eu-west-1' });
  assert.deepEqual(aws, { endpoint: null, region: 'eu-west-1', bucket: 'ratchet', forcePathStyle: false });
});

test('keys with a session token are left to the SDK, which takes the three together', () => {
  const env = { AWS_ENDPOINT_URL: 'http://a.example', AWS_ACCESS_KEY_ID: 'k', AWS_SECRET_ACCESS_KEY: 's' };
  assert.equal(s3FromEnvironment(env)?.accessKeyId, 'k');
  assert.equal(s3FromEnvironment({ ...env, AWS_SESSION_TOKEN: 't' })?.accessKeyId, undefined);
});

test('an address that could not be one names its variable', () => {
  for (const [env, field] of [
    [{ TEMPORAL_ADDRESS: 'http://127.0.0.1:7233' }, /TEMPORAL_ADDRESS/],
    [{ TEMPORAL_ADDRESS: 'localhost' }, /TEMPORAL_ADDRESS/],
    [{ TEMPORAL_ADDRESS: 'a:1', AWS_ENDPOINT_URL: 's3.example' }, /AWS_ENDPOINT_URL/],
    [{ TEMPORAL_ADDRESS: 'a:1', RATCHET_S3_ENDPOINT: 'ftp://x' }, /RATCHET_S3_ENDPOINT/],
    [{ TEMPORAL_ADDRESS: 'a:1', AWS_ENDPOINT_URL: 'http://x', RATCHET_BUCKET: 'No_Bucket' }, /RATCHET_BUCKET/],
    [{ TEMPORAL_ADDRESS: 'a:1', AWS_ENDPOINT_URL: 'http://x', AWS_ACCESS_KEY_ID: 'half' }, /AWS_SECRET_ACCESS_KEY/],
  ] as const) {
    assert.throws(() => endpointsFromEnvironment(env), { type: 'BadInput', message: field });
  }
});
