/**
 * A hosted Temporal: TLS, a client certificate, an API key, all by Temporal's own environment configuration. The command and a worker reach it with
 * variables or with a profile of a file, and are told what is wrong where a key or certificate is not the right one.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { QUEUES } from '../../workflows/task-queues.ts';
import { ratchet } from '../cli/cli.ts';
import { authorityIn, certificateIn, makeCertificates } from '../support/certificates.ts';
import { startGate, type Gate } from '../support/guarded-temporal.ts';
import { startFleet, type Fleet } from '../workers/fixtures/fleet.ts';

const KEY = randomUUID();
const CLIENT = 'worker-of-ours';

let folder: string;
let fleet: Fleet;
let gate: Gate;
before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ratchet-guarded-'));
  makeCertificates(folder, { name: 'server', at: 'DNS:localhost' }, [CLIENT]);
  fleet = await startFleet();
  gate = await startGate(fleet.endpoints.temporal.address, { folder, server: 'server' }, KEY);
});
after(async () => {
  await gate.close();
  await fleet.close();
  rmSync(folder, { recursive: true });
});

/** Takes back what the test command says of its own server, which is spoken to in the clear. */
const NOT_OURS = { TEMPORAL_TLS: '', TEMPORAL_CONFIG_FILE: '' };

/** The variables that a hosted Temporal asks for. */
function variables(): Record<string, string> {
  return {
    ...NOT_OURS,
    TEMPORAL_ADDRESS: gate.address,
    TEMPORAL_API_KEY: KEY,
    TEMPORAL_TLS_SERVER_CA_CERT_PATH: authorityIn(folder),
    TEMPORAL_TLS_CLIENT_CERT_PATH: certificateIn(folder, CLIENT).certificate,
    TEMPORAL_TLS_CLIENT_KEY_PATH: certificateIn(folder, CLIENT).key,
  };
}

/** The same as a profile of a file; which server it is stays a variable, as for every Ratchet command. */
function profile(): Record<string, string> {
  const file = join(folder, 'temporal.toml');
  const client = certificateIn(folder, CLIENT);
  writeFileSync(
    file,
    [
      '[profile.hosted]',
      `api_key = "${KEY}"`,
      '[profile.hosted.tls]',
      `server_ca_cert_path = "${authorityIn(folder)}"`,
      `client_cert_path = "${client.certificate}"`,
      `client_key_path = "${client.key}"`,
    ].join('\n'),
  );
  return { ...NOT_OURS, TEMPORAL_ADDRESS: gate.address, TEMPORAL_CONFIG_FILE: file, TEMPORAL_PROFILE: 'hosted' };
}

for (const [name, configuration] of [
  ['variables', variables],
  ['profile', profile],
] as const)
  test(`by ${name}: a run is launched and a worker does its work, every call with certificate and key`, async () => {
    const { passed } = gate;
    const begin = passed.length;
    const id = `guarded-${name}`;
    const env = { ...fleet.environment, ...configuration(), RATCHET_PREFIX: `test-${randomUUID()}`, RATCHET_FLEET: `nobody-${name}` };
    const launched = await ratchet(['run', 'agentprm-household', '--scale', 'micro', '--id', id], { env });
    assert.equal(launched.code, 0, launched.err);
    const run = fleet.client.workflow.getHandle(id);
    assert.equal((await run.describe()).status.name, 'RUNNING', 'seen past the gate');
    await run.terminate();

    await fleet.worker(name, QUEUES, configuration());
    assert.equal(await (await fleet.call(name, { queue: 'cpu', name: 'big', input: { bytes: 3 } })).result(), 'xxx');
    const calls = passed.slice(begin);
    assert.deepEqual([...new Set(calls.map(({ client }) => client))], [CLIENT]);
    for (const method of ['StartWorkflowExecution', 'PollWorkflowTaskQueue', 'RespondActivityTaskCompleted'])
      assert.ok(
        calls.some(({ path }) => path.endsWith(`/${method}`)),
        method,
      );
  });

/** Passed over as if they were not set. */
const NOT_SHOWN = { TEMPORAL_TLS_CLIENT_CERT_PATH: undefined, TEMPORAL_TLS_CLIENT_KEY_PATH: undefined };

for (const [name, wrong, exit, told] of [
  ['another key', { TEMPORAL_API_KEY: 'stolen' }, 3, /UNAUTHENTICATED/],
  ['no certificate', NOT_SHOWN, 3, /does not answer/],
  ['a certificate that is not there', { TEMPORAL_TLS_CLIENT_CERT_PATH: '/nowhere/client.pem' }, 2, /\/nowhere\/client\.pem/],
] as const)
  test(`${name}: nothing is launched, and it is said what is wrong`, async () => {
    const { length } = gate.passed;
    const env = { ...fleet.environment, ...variables(), ...wrong, RATCHET_PREFIX: `test-${randomUUID()}` };
    const { code, err } = await ratchet(['run', 'agentprm-household', '--scale', 'micro', '--id', 'refused'], { env });
    assert.equal(code, exit, err);
    assert.match(err, told);
    assert.equal(gate.passed.length, length);
  });
