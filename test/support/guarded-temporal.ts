/**
 * Temporal behind a gate that does what a hosted one does: TLS with a certificate of our own authority, clients that must show one of it (mTLS), and a key in
 * every call. What passes goes on to a real Temporal, byte for byte.
 */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync, readFileSync } from 'node:fs';
import { connect, createSecureServer, type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';

/** Made by `makeCertificates`, beside each other. */
export interface Certificates {
  authority: string;
  server: { certificate: string; key: string };
  client: { certificate: string; key: string };
}

/** An authority and what it vouches for: `localhost` as a server, and a client of this name. By OpenSSL. */
export function makeCertificates(folder: string, clientName: string): Certificates {
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  const days = ['-days', '1'];
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl('req', '-x509', ...key, ...days, '-keyout', 'ca.key', '-out', 'ca.pem', '-subj', '/CN=test authority');
  const made = (name: string, subject: string, extensions: string) => {
    openssl('req', ...key, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', subject);
    writeFileSync(join(folder, `${name}.ext`), extensions);
    const by = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-extfile', `${name}.ext`];
    openssl('x509', '-req', '-in', `${name}.csr`, ...by, ...days, '-out', `${name}.pem`);
    return { certificate: join(folder, `${name}.pem`), key: join(folder, `${name}.key`) };
  };
  return {
    authority: join(folder, 'ca.pem'),
    server: made('server', '/CN=localhost', 'subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n'),
    client: made('client', `/CN=${clientName}`, 'extendedKeyUsage=clientAuth\n'),
  };
}

export interface Gate {
  /** `<host>:<port>`. */
  address: string;
  /** Of every call that passed: the name in the client's certificate, and what was called. */
  passed: { client: string; path: string }[];
  /** Calls without the key. */
  refused: number;
  close(): Promise<void>;
}

/** `grpc-status`: the caller is not known. */
const UNAUTHENTICATED = '16';

/** Only what was sent; HTTP/2 has its own for each hop. */
function passedOn(headers: IncomingHttpHeaders): OutgoingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => ![':authority', ':scheme', 'authorization'].includes(name)));
}

/** `at`: where it listens; by default at any port of `localhost`. */
export async function startGate(
  temporal: string,
  { authority, server: own }: Pick<Certificates, 'authority' | 'server'>,
  apiKey: string,
  at: { host: string; port: number } = { host: 'localhost', port: 0 },
): Promise<Gate> {
  const upstream = connect(`http://${temporal}`);
  upstream.on('error', () => {}); // streams that need it fail by themselves
  const server = createSecureServer({
    ca: readFileSync(authority),
    cert: readFileSync(own.certificate),
    key: readFileSync(own.key),
    requestCert: true,
    rejectUnauthorized: true,
  });
  const gate: Gate = { address: '', passed: [], refused: 0, close };
  const sessions = new Set<{ destroy(): void }>();
  server.on('session', (session) => {
    sessions.add(session);
    session.on('error', () => {});
    session.on('close', () => sessions.delete(session));
  });
  // Whoever shows no certificate gets no further than this.
  server.on('tlsClientError', () => {});
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    if (headers.authorization !== `Bearer ${apiKey}`) {
      gate.refused++;
      const why = { 'grpc-status': UNAUTHENTICATED, 'grpc-message': 'no valid API key' };
      stream.respond({ ':status': 200, 'content-type': 'application/grpc', ...why }, { endStream: true });
      return;
    }
    const { subject } = (stream.session!.socket as TLSSocket).getPeerCertificate();
    gate.passed.push({ client: String(subject.CN), path: String(headers[':path']) });
    const call = upstream.request(passedOn(headers));
    call.on('error', () => stream.destroy());
    stream.on('close', () => call.close());
    stream.pipe(call);
    let trailers: OutgoingHttpHeaders = {};
    call.on('trailers', (received: IncomingHttpHeaders) => (trailers = { ...received }));
    stream.on('wantTrailers', () => stream.sendTrailers(trailers));
    call.on('response', (received, flags) => {
      if (stream.destroyed) return;
      const ended = (flags & 1) !== 0; // END_STREAM: an answer of trailers alone.
      stream.respond({ ...received }, ended ? { endStream: true } : { waitForTrailers: true });
      if (!ended) call.pipe(stream);
    });
  });
  server.listen(at.port, at.host);
  await once(server, 'listening');
  gate.address = `${at.host}:${(server.address() as AddressInfo).port}`;
  async function close(): Promise<void> {
    for (const session of sessions) session.destroy();
    upstream.destroy();
    server.close();
    await once(server, 'close');
  }
  return gate;
}
