/** An HTTP server that stands between a store and a real S3 server and spoils what a test tells it to spoil. */
import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export type Passing = (request: IncomingMessage, response: ServerResponse, forward: () => void) => void;

export interface MisbehavingS3 {
  endpoint: string;
  /** Method and path of every request that came, in order. */
  seen: string[];
  stop(): Promise<void>;
}

/** `pass` sees every request: it answers by itself, or calls `forward`, which passes it on unchanged (its signature covers its headers). */
export async function startMisbehaving(upstream: string, pass: Passing): Promise<MisbehavingS3> {
  const seen: string[] = [];
  const { hostname, port } = new URL(upstream);
  const server = createServer((incoming, response) => {
    seen.push(`${incoming.method} ${incoming.url}`);
    incoming.on('error', () => response.destroy()); // the client went away
    pass(incoming, response, () => {
      const onward = request({ hostname, port, method: incoming.method, path: incoming.url, headers: incoming.headers }, (answer) => {
        response.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.pipe(response);
      });
      onward.on('error', () => response.destroy());
      incoming.pipe(onward);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    stop: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

/** An answer in S3's form of an error. */
export function refuse(response: ServerResponse, status: number, code: string): void {
  response.writeHead(status, { 'content-type': 'application/xml' });
  response.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>${code} by test</Message></Error>`);
}
