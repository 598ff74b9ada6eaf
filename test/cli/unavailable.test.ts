/** What is needed and not there, at launch: exit code 3 within seconds, with a message that says what to do. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { freePort } from '../../infra/ports.ts';
import { freshHome, NO_SERVERS, ratchet } from './cli.ts';

/** A person waits for this message: the bounds of connecting (5 s) and of probing (3 s), and the start of the program on a busy machine. */
const SOON_MS = 20_000;
const RUN = ['run', 'agentprm-household', '--scale', 'micro'];

test('no servers at all: says how to start some, and makes nothing', async () => {
  const home = freshHome();
  const { code, err } = await ratchet(RUN, { env: { ...NO_SERVERS, RATCHET_HOME: home } });
  assert.equal(code, 3);
  assert.match(err, /no servers run for .*`npm start` or `npx ratchet up` starts them/);
  assert.ok(!existsSync(home));
});

test('an unreachable Temporal', async () => {
  const address = `127.0.0.1:${await freePort()}`;
  const { code, err, ms } = await ratchet(RUN, { env: { TEMPORAL_ADDRESS: address, RATCHET_PREFIX: 'test-cli-unreachable' } });
  assert.equal(code, 3);
  assert.match(err, new RegExp(`Temporal at ${address} does not answer`));
  assert.ok(ms < SOON_MS, `${ms} ms`);
});

test('an unreachable store', async () => {
  const endpoint = `http://127.0.0.1:${await freePort()}`;
  const env = { RATCHET_S3_ENDPOINT: endpoint, AWS_ENDPOINT_URL_S3: endpoint };
  const { code, err, ms } = await ratchet(RUN, { env });
  assert.equal(code, 3);
  assert.match(err, new RegExp(endpoint));
  assert.ok(ms < SOON_MS, `${ms} ms`);
});

test('a store and no keys for it: says that it was not asked, and what to set', async () => {
  const endpoint = `http://127.0.0.1:${await freePort()}`;
  const none = { AWS_ACCESS_KEY_ID: '', AWS_SECRET_ACCESS_KEY: '', AWS_EC2_METADATA_DISABLED: 'true', HOME: freshHome() };
  const { code, err, ms } = await ratchet(RUN, { env: { ...none, RATCHET_S3_ENDPOINT: endpoint } });
  assert.equal(code, 3);
  assert.match(err, new RegExp(`${endpoint}, .*there are no credentials, so the server was not asked; set AWS_ACCESS_KEY_ID and`));
  assert.ok(ms < SOON_MS, `${ms} ms`);
});

test('refused credentials', async () => {
  const { code, err } = await ratchet(RUN, { env: { AWS_ACCESS_KEY_ID: 'nobody', AWS_SECRET_ACCESS_KEY: 'nothing' } });
  assert.equal(code, 3);
  assert.match(err, /credentials|AWS_ACCESS_KEY_ID/);
  assert.doesNotMatch(err, /\n\s+at /);
});

test('an execution provider that is absent: says what is missing before servers and workers are started', async () => {
  const home = freshHome();
  // Part of ONNX Runtime on Windows only.
  const env = { ...NO_SERVERS, RATCHET_HOME: home, RATCHET_EXECUTION_PROVIDER: 'dml' };
  for (const command of [
    ['start', '--scale', 'micro'],
    ['up', '--foreground'],
  ]) {
    const { code, err } = await ratchet(command, { env });
    assert.equal(code, 3, err);
    assert.match(err, /the execution provider dml:0 cannot be used here: .*dml \(DirectML\) is part of onnxruntime-node on Windows only/);
    assert.ok(!existsSync(home));
  }
});
