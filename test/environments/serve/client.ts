/** A client of the OpenEnv protocol over Node's own WebSocket: one question in flight, answers in order, as the reference client does it. */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { worldNamed } from '../../../environments/registry.ts';
import { serveEnvironment, type EnvironmentServer, type ServeOptions } from '../../../environments/serve/server.ts';
import { tasksOfWorld, type ServedTasks } from '../../../environments/serve/tasks.ts';

/** Everything here answers within milliseconds; a busy machine gets this long. */
const BOUND_MS = 10_000;

export interface Answer {
  type: string;
  data: {
    code?: string;
    message?: string;
    observation?: Record<string, unknown>;
    reward?: number | null;
    done?: boolean;
    [more: string]: unknown;
  };
}

export class OpenEnvClient {
  readonly #socket: WebSocket;
  readonly #inbox: Answer[] = [];
  #wake: () => void = () => undefined;
  /** The close code, once the server or we have closed. */
  readonly closed: Promise<number>;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.addEventListener('message', (event) => {
      this.#inbox.push(JSON.parse(String(event.data)) as Answer);
      this.#wake();
    });
    this.closed = new Promise((resolve) => {
      socket.addEventListener('close', (event) => {
        resolve(event.code);
        this.#wake();
      });
    });
  }

  static async connect(url: string, path = '/ws'): Promise<OpenEnvClient> {
    const socket = new WebSocket(url.replace('http', 'ws') + path);
    const client = new OpenEnvClient(socket);
    await once(socket, 'open', { signal: AbortSignal.timeout(BOUND_MS) });
    return client;
  }

  send(frame: string | Uint8Array<ArrayBuffer>): void {
    this.#socket.send(frame);
  }

  /** The next frame. Throws when the socket is closed before one comes. */
  async next(): Promise<Answer> {
    const deadline = performance.now() + BOUND_MS;
    for (;;) {
      const answer = this.#inbox.shift();
      if (answer !== undefined) return answer;
      if (this.#socket.readyState > WebSocket.OPEN) throw new Error('the socket was closed');
      if (performance.now() > deadline) throw new Error(`no frame within ${BOUND_MS} ms`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, BOUND_MS);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  async ask(message: unknown): Promise<Answer> {
    this.send(typeof message === 'string' ? message : JSON.stringify(message));
    return this.next();
  }

  reset(data: object = {}): Promise<Answer> {
    return this.ask({ type: 'reset', data });
  }

  step(command: string): Promise<Answer> {
    return this.ask({ type: 'step', data: { command } });
  }

  /** As a well-behaved client ends. */
  async close(): Promise<number> {
    if (this.#socket.readyState === WebSocket.OPEN) this.send(JSON.stringify({ type: 'close' }));
    return this.closed;
  }
}

export const world = worldNamed('household');
export const TASKS_PER_SPLIT = 12;
export const tasks: ServedTasks = tasksOfWorld(world, TASKS_PER_SPLIT);

export const servers: EnvironmentServer[] = [];

export async function serve(options: Partial<ServeOptions> = {}, served: ServedTasks = tasks): Promise<EnvironmentServer> {
  const server = await serveEnvironment(served, {
    host: '127.0.0.1',
    port: 0,
    version: 'test',
    maxSessions: 8,
    idleTimeoutMs: 60_000,
    sessionTimeoutMs: 60_000,
    pingIntervalMs: 20_000,
    onBug: (error) => {
      throw error;
    },
    ...options,
  });
  servers.push(server);
  return server;
}

/** Waits for something that another process or the event loop is bringing about. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + BOUND_MS;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${BOUND_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export async function post(url: string, body?: unknown): Promise<{ status: number; json: any }> {
  const init = body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) };
  const response = await fetch(url, { method: 'POST', ...init, signal: AbortSignal.timeout(BOUND_MS) });
  return { status: response.status, json: await response.json() };
}

export async function get(url: string): Promise<{ status: number; json: any }> {
  const response = await fetch(url, { signal: AbortSignal.timeout(BOUND_MS) });
  return { status: response.status, json: await response.json() };
}

/** A port that somebody else listens on until the end of the test. */
export async function takenPort(): Promise<{ port: number; free(): void }> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { port: (server.address() as AddressInfo).port, free: () => void server.close() };
}
