/**
 * The host with the servers: Temporal and an S3 gateway with accounts, on the loopback address, and before each a gate of our own on the network. Temporal's
 * development server speaks no TLS and knows no keys, so the gate does both: it wants a client certificate and the API key with every call. The gate
 * of the store ends TLS; who may do what there is the gateway's own business.
 *
 * Arguments: folder, address. Ready when it has written `ready` there; ends with SIGTERM.
 */
import { CreateBucketCommand, PutBucketPolicyCommand, S3Client } from '@aws-sdk/client-s3';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createServer } from 'node:tls';
import { ensureServers } from '../../infra/servers.ts';
import { VERSITYGW } from '../../infra/programs.ts';
import { resolveProgram } from '../../infra/resolve.ts';
import { authorityIn, certificateIn } from '../support/certificates.ts';
import { startGate } from '../support/guarded-temporal.ts';
import { ACCOUNTS, API_KEY, BUCKET, S3_PORT, TEMPORAL_PORT } from './places.ts';

const [folder, address] = process.argv.slice(2) as [string, string];
/** A gateway answers within a second. */
const READY_BOUND_MS = 20_000;
const LOOPBACK_S3 = '127.0.0.1:7070';
const { root, ...users } = ACCOUNTS;

const credentials = { accessKeyId: root.access, secretAccessKey: root.secret };
const { path: gateway } = await resolveProgram(VERSITYGW, { onProgress: () => {}, env: process.env });
for (const name of ['accounts', 'objects']) mkdirSync(join(folder, name), { recursive: true });
const s3 = spawn(
  gateway,
  [
    '--port',
    LOOPBACK_S3,
    '--region',
    'us-east-1',
    '--health',
    '/health',
    '--quiet',
    '--keep-alive',
    '--iam-dir',
    join(folder, 'accounts'),
    'posix',
    join(folder, 'objects'),
  ],
  { env: { ROOT_ACCESS_KEY: root.access, ROOT_SECRET_KEY: root.secret }, stdio: ['ignore', 'inherit', 'inherit'] },
);
const deadline = performance.now() + READY_BOUND_MS;
while (
  !(await fetch(`http://${LOOPBACK_S3}/health`).then(
    (answer) => answer.ok,
    () => false,
  ))
) {
  if (performance.now() > deadline) throw new Error('the S3 gateway does not answer');
  await delay(50);
}
const admin = ['admin', '--access', root.access, '--secret', root.secret, '--endpoint-url', `http://${LOOPBACK_S3}`];
for (const { access, secret } of Object.values(users))
  execFileSync(gateway, [...admin, 'create-user', '--access', access, '--secret', secret, '--role', 'user'], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
const client = new S3Client({ endpoint: `http://${LOOPBACK_S3}`, region: 'us-east-1', forcePathStyle: true, credentials });
await client.send(new CreateBucketCommand({ Bucket: BUCKET }));
const Statement = [
  {
    Effect: 'Allow',
    Principal: { AWS: Object.values(users).map(({ access }) => access) },
    Action: 's3:*',
    Resource: [`arn:aws:s3:::${BUCKET}`, `arn:aws:s3:::${BUCKET}/*`],
  },
];
await client.send(new PutBucketPolicyCommand({ Bucket: BUCKET, Policy: JSON.stringify({ Version: '2012-10-17', Statement }) }));
client.destroy();

const env = {
  ...process.env,
  RATCHET_S3_ENDPOINT: `http://${LOOPBACK_S3}`,
  AWS_ACCESS_KEY_ID: root.access,
  AWS_SECRET_ACCESS_KEY: root.secret,
  RATCHET_BUCKET: BUCKET,
};
const servers = await ensureServers({ home: join(folder, 'temporal'), onProgress: () => {}, env });

const tls = join(folder, 'tls');
const { certificate, key } = certificateIn(tls, 'servers');
const identity = { cert: readFileSync(certificate), key: readFileSync(key), ca: readFileSync(authorityIn(tls)) };

createServer(identity, (socket) => {
  const inner = connect(7070, '127.0.0.1');
  socket.pipe(inner).pipe(socket);
  // Either side may go at any moment; the other goes with it.
  for (const [one, other] of [
    [socket, inner],
    [inner, socket],
  ] as const)
    one.on('error', () => other.destroy()).on('close', () => other.destroy());
}).listen(S3_PORT, address);

await startGate(servers.endpoints.temporal.address, { folder: tls, server: 'servers' }, API_KEY, {
  host: address,
  port: TEMPORAL_PORT,
});
writeFileSync(join(folder, 'ready'), '');
await once(process, 'SIGTERM');
await servers.stop();
s3.kill('SIGTERM');
await once(s3, 'exit');
process.exit(0);
