/**
 * Two proxies between clients and servers that can be told to fail: one for S3, which knows requests, and one for any TCP connection. On the loopback address
 * only. They add no fault of their own: what they are not told to break goes through unchanged, byte for byte.
 */
import { Agent, createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect, createServer as createTcpServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { freePort, LOOPBACK } from '../../infra/ports.ts';
import type { Fault } from './plan.ts';

export interface S3Proxy {
  port: number;
  /** The next requests get these, one each, in their order of arrival. Settles when the last one was given. */
  fail(faults: readonly Fault[]): Promise<void>;
  /** Requests that went through, and faults given. */
  counts: { through: number } & Record<Fault, number>;
  close(): Promise<void>;
}

/** Of an error body; clients read the code in it. */
const CODES = { '500': 'InternalError', '503': 'SlowDown' } as const;

/** In front of the server at `port`. Hop-by-hop `expect` is answered here; every other header goes through, so signatures hold. */
export async function s3Proxy(port: number): Promise<S3Proxy> {
  const agent = new Agent({ keepAlive: true });
  const counts = { through: 0, '500': 0, '503': 0, hang: 0, cut: 0, before: 0, after: 0 };
  let queue: Fault[] = [];
  let given = () => {};
  const server = createServer((asked, answer) => {
    const fault = queue.shift();
    if (fault === undefined) {
      counts.through++;
      return forward(asked, answer, null);
    }
    counts[fault]++;
    if (queue.length === 0) given();
    if (fault === '500' || fault === '503') {
      // The body is read first, so that the client hears the answer instead of a broken connection.
      asked.resume().on('end', () => {
        const body = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${CODES[fault]}</Code><Message>made by the fault proxy</Message></Error>`;
        answer.writeHead(Number(fault), { 'content-type': 'application/xml', 'content-length': Buffer.byteLength(body) });
        answer.end(asked.method === 'HEAD' ? undefined : body);
      });
    } else if (fault === 'before') asked.socket.destroy();
    else if (fault === 'hang') asked.resume();
    else forward(asked, answer, fault);
  });
  const forward = (asked: IncomingMessage, answer: ServerResponse, fault: 'cut' | 'after' | null): void => {
    const headers = asked.rawHeaders.filter((_, i) => asked.rawHeaders[i - (i % 2)]!.toLowerCase() !== 'expect');
    const onward = request({ host: LOOPBACK, port, agent, method: asked.method, path: asked.url, headers });
    const give = () => asked.socket.destroy();
    onward.on('error', give);
    // A client that gave up: the server is not told, as on a network that dropped the connection.
    asked.pipe(onward);
    onward.on('response', (reply) => {
      if (fault === 'after') return void reply.resume().on('end', give);
      answer.writeHead(reply.statusCode ?? 502, reply.rawHeaders);
      if (fault === null) return void reply.on('error', give).pipe(answer);
      const half = Math.floor(Number(reply.headers['content-length'] ?? 0) / 2);
      let passed = 0;
      answer.flushHeaders();
      reply.on('data', (chunk: Buffer) => {
        if (passed < half) answer.write(chunk.subarray(0, half - passed));
        passed += chunk.length;
      });
      // Once what was written is on its way.
      reply.on('end', () => (half > 0 ? answer.write('', give) : give()));
    });
  };
  const own = await freePort();
  await listen(server, own);
  return {
    port: own,
    counts,
    fail: (faults) => {
      queue = [...queue, ...faults];
      return new Promise((resolve) => (given = resolve));
    },
    close: async () => {
      agent.destroy();
      server.closeAllConnections();
      await closed(server);
    },
  };
}

export interface TcpProxy {
  port: number;
  /** Cuts what is open and refuses what comes, until `allow`. */
  refuse(): Promise<void>;
  allow(): Promise<void>;
  close(): Promise<void>;
}

export async function tcpProxy(port: number): Promise<TcpProxy> {
  const open = new Set<Socket>();
  const make = () =>
    createTcpServer((client) => {
      const server = connect(port, LOOPBACK);
      for (const [one, other] of [
        [client, server],
        [server, client],
      ] as const) {
        open.add(one);
        one.on('error', () => other.destroy());
        one.on('close', () => {
          open.delete(one);
          other.destroy();
        });
        one.pipe(other);
      }
    });
  const own = await freePort();
  let listening = make();
  await listen(listening, own);
  const refuse = async () => {
    const done = closed(listening);
    for (const socket of open) socket.destroy();
    await done;
  };
  return {
    port: own,
    refuse,
    allow: async () => {
      listening = make();
      await listen(listening, own);
    },
    close: async () => {
      if (listening.listening) await refuse();
    },
  };
}

function listen(server: Server, port: number): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: LOOPBACK, port, exclusive: true }, () => resolve(server.address() as AddressInfo));
  });
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve, reject) => server.close((error) => (error ? reject(error) : resolve())));
}
