import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { endpointEnvironment, endpointsFromEnvironment, s3FromEnvironment, temporalFromEnvironment } from '../../infra/endpoints.ts';
import type { Endpoints } from '../../infra/endpoints.ts';
import { temporalConfig } from '../../infra/temporal-config.ts';

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

test('a Temporal of ours is spoken to in the clear, whatever key and profile this machine has for another', () => {
  const file = join(mkdtempSync(join(tmpdir(), 'ratchet-profile-')), 'temporal.toml');
  writeFileSync(file, '[profile.default]\naddress = "cloud.example:7233"\nnamespace = "fleet"\napi_key = "secret"\n');
  const elsewhere = { TEMPORAL_API_KEY: 'key of another', TEMPORAL_CONFIG_FILE: file, TEMPORAL_TLS_SERVER_NAME: 'cloud.example' };
  const s3 = { endpoint: null, region: 'r', bucket: 'bucket', forcePathStyle: false };
  const own: Endpoints = { temporal: { address: '127.0.0.1:7233', namespace: 'default', uiUrl: null, own: true }, s3 };
  const { connectionOptions } = temporalConfig({ ...elsewhere, ...endpointEnvironment(own) });
  assert.deepEqual([connectionOptions.address, connectionOptions.tls, connectionOptions.apiKey], ['127.0.0.1:7233', false, undefined]);

  // A profile that is named stands for an address; TLS comes with its key.
  assert.deepEqual(temporalFromEnvironment({ TEMPORAL_CONFIG_FILE: file }), {
    address: 'cloud.example:7233',
    namespace: 'fleet',
    uiUrl: null,
  });
  assert.equal(temporalConfig({ TEMPORAL_CONFIG_FILE: file }).connectionOptions.tls, true);
  assert.throws(() => temporalFromEnvironment({ TEMPORAL_CONFIG_FILE: file, TEMPORAL_PROFILE: 'other' }), {
    type: 'BadInput',
    message: /other/,
  });
  rmSync(dirname(file), { recursive: true });
});

test('a variable of Temporal that is set to nothing is not set', () => {
  const { connectionOptions } = temporalConfig({ TEMPORAL_ADDRESS: 'a:1', TEMPORAL_API_KEY: '', TEMPORAL_TLS: '' });
  assert.deepEqual([connectionOptions.tls, connectionOptions.apiKey], [undefined, undefined]);
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
