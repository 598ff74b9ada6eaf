/**
 * Temporal behind a gate that does what a hosted one does: TLS with a certificate of our own authority, clients that must show one of it (mTLS), and a key in
 * every call. What passes goes on to a real Temporal, byte for byte.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, createSecureServer, type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http2';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { authorityIn, certificateIn } from './certificates.ts';

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

/** `folder`: with the certificates of `makeCertificates`; `server`: the name of the gate's own. `at`: where it listens; by default at any port of `localhost`. */
export async function startGate(
  temporal: string,
  { folder, server: name }: { folder: string; server: string },
  apiKey: string,
  at: { host: string; port: number } = { host: 'localhost', port: 0 },
): Promise<Gate> {
  const own = certificateIn(folder, name);
  const upstream = connect(`http://${temporal}`);
  upstream.on('error', () => {}); // streams that need it fail by themselves
  const server = createSecureServer({
    ca: readFileSync(authorityIn(folder)),
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
