/**
 * Serves an environment to other programs from one process: OpenEnv on WebSocket `/ws` (one session per connection), and the plain HTTP routes. Bounded
 * in everything: sessions, their time, connections, sizes of messages, what waits unread, the time of shutting down. There is no
 * authentication: it is meant for this machine or a network that is trusted.
 */
import { createAdaptorServer } from '@hono/node-server';
import type { IncomingMessage, Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { WebSocketServer, type WebSocket } from 'ws';
import { RatchetError } from '../../core/errors.ts';
import { httpRoutes, LARGEST_BODY_BYTES } from './http-routes.ts';
import { answerMcp, answerMessage, errorAnswer } from './openenv.ts';
import type { Ending, Session } from './session.ts';
import { Sessions, type SessionBounds, type SessionCounts } from './sessions.ts';
import type { ServedTasks } from './tasks.ts';

export interface ServeOptions extends SessionBounds {
  host: string;
  /** 0 takes a free one. */
  port: number;
  /** Told to clients. */
  version: string;
  /** Sockets are pinged this often; one without a sign of life for three pings is gone, whatever TCP says. */
  pingIntervalMs: number;
  /** Told what was thrown and not expected; the session goes on. */
  onBug: (error: unknown) => void;
}

export interface EnvironmentServer {
  /** `http://127.0.0.1:8000`. */
  url: string;
  counts(): SessionCounts;
  /** Tells every client, and resolves when all connections are closed. */
  close(): Promise<void>;
}

/** Pings are counted, not seconds: when this process itself was stopped for a while, nobody else is to blame. */
const PINGS_WITHOUT_ANSWER = 3;
/** Connections besides those of sessions: for HTTP requests and for telling clients that all is taken. */
const SPARE_CONNECTIONS = 256;
/** A client that does not read its answers is no longer listened to beyond this, until it has read half of them. */
const MOST_UNREAD_BYTES = 1024 * 1024;
/** Closing handshakes take a round trip; whoever has not answered by then is cut off. */
const CLOSE_BOUND_MS = 2_000;
/** Codes of RFC 6455 and its registry. */
const CLOSE = { normal: 1000, goingAway: 1001, policy: 1008, tryLater: 1013 } as const;

/** Resolves when it listens. Throws RatchetError('Unavailable') when the address is taken or not allowed. */
export async function serveEnvironment(tasks: ServedTasks, options: ServeOptions): Promise<EnvironmentServer> {
  const sessions = new Sessions(options);
  const app = httpRoutes(tasks, sessions, options.version, options.onBug);
  const server = createAdaptorServer({ fetch: app.fetch }) as Server;
  server.maxConnections = 2 * options.maxSessions + SPARE_CONNECTIONS;
  const sockets = new WebSocketServer({ noServer: true, maxPayload: LARGEST_BODY_BYTES, clientTracking: true });
  const unanswered = new WeakMap<WebSocket, number>();

  server.on('upgrade', (request: IncomingMessage, connection: Duplex, head: Buffer) => {
    const path = request.url?.split('?')[0];
    connection.on('error', () => connection.destroy());
    if (path !== '/ws' && path !== '/mcp') {
      connection.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    sockets.handleUpgrade(request, connection, head, (socket) => {
      const seen = (): void => void unanswered.set(socket, 0);
      seen();
      socket.on('pong', seen).on('ping', seen).on('message', seen);
      // Whatever broke it, 'close' follows, and there the session ends.
      socket.on('error', () => undefined);
      attend(socket, path, sessions, tasks, options.onBug);
    });
  });

  await listen(server, options);
  const ping = setInterval(() => {
    for (const socket of sockets.clients) {
      const pings = unanswered.get(socket) ?? 0;
      unanswered.set(socket, pings + 1);
      if (pings >= PINGS_WITHOUT_ANSWER) socket.terminate();
      else if (socket.readyState === socket.OPEN) socket.ping();
    }
  }, options.pingIntervalMs);
  const { address, port, family } = server.address() as AddressInfo;
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`,
    counts: () => sessions.counts,
    async close() {
      clearInterval(ping);
      const closed = new Promise((resolve) => server.close(resolve));
      sessions.shutdown();
      const cut = setTimeout(() => {
        for (const socket of sockets.clients) socket.terminate();
        server.closeAllConnections();
      }, CLOSE_BOUND_MS);
      server.closeIdleConnections();
      await closed;
      clearTimeout(cut);
    },
  };
}

const WHY: Record<Exclude<Ending, 'closed' | 'dropped'>, string> = {
  idle: 'the session was not used for longer than this server waits',
  'too old': 'the session is older than this server allows',
  shutdown: 'the server is shutting down',
};

/** One connection from handshake to end. */
function attend(socket: WebSocket, path: '/ws' | '/mcp', sessions: Sessions, tasks: ServedTasks, onBug: (error: unknown) => void): void {
  let unread = 0;
  const send = (answer: object): void => {
    const text = JSON.stringify(answer);
    unread += text.length;
    socket.send(text, () => {
      unread -= text.length;
      if (socket.isPaused && unread < MOST_UNREAD_BYTES / 2) socket.resume();
    });
    if (unread > MOST_UNREAD_BYTES) socket.pause();
  };
  const finish = (code: number, answer: object | null): void => {
    if (answer !== null) send(answer);
    socket.close(code);
    setTimeout(() => socket.terminate(), CLOSE_BOUND_MS).unref();
  };

  let session: Session;
  try {
    session = sessions.open((ending) => {
      finish(ending === 'shutdown' ? CLOSE.goingAway : CLOSE.policy, errorAnswer('SESSION_ERROR', WHY[ending as keyof typeof WHY]));
    });
  } catch (error) {
    if (!(error instanceof RatchetError)) throw error;
    const { maxSessions } = sessions.bounds;
    finish(CLOSE.tryLater, errorAnswer('CAPACITY_REACHED', error.message, { active_sessions: sessions.active, max_sessions: maxSessions }));
    return;
  }
  socket.on('close', (code) => sessions.end(session, code === CLOSE.normal ? 'closed' : 'dropped'));
  const counts = () => ({ ...sessions.counts, max: sessions.bounds.maxSessions });
  socket.on('message', (data: Buffer, isBinary: boolean) => {
    if (sessions.get(session.number) === undefined) return;
    session.touch();
    try {
      if (isBinary) return send(errorAnswer('INVALID_JSON', 'Invalid JSON: messages are text frames'));
      if (path === '/mcp') return send(answerRpc(data.toString()));
      const answer = answerMessage(session, tasks, data.toString(), counts);
      if (answer !== null) return send(answer);
      sessions.end(session, 'closed');
      finish(CLOSE.normal, null);
    } catch (error) {
      onBug(error);
      send(errorAnswer('EXECUTION_ERROR', 'Internal error'));
    }
  });
}

function answerRpc(text: string): object {
  let request: unknown;
  try {
    request = JSON.parse(text);
  } catch (error) {
    return { jsonrpc: '2.0', id: null, error: { code: -32700, message: `Parse error: ${(error as Error).message}` } };
  }
  return answerMcp(request);
}

function listen(server: Server, { host, port }: ServeOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(new RatchetError('Unavailable', `cannot listen on ${host} port ${port}: ${error.message}`, { cause: error }));
    });
    server.listen(port, host, resolve);
  });
}
