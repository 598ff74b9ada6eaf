/**
 * Free TCP ports on the loopback address. It refuses ports that the system gives to outgoing connections: while a server restarts, a client that
 * tries to reach it could be given that very port as its own and so connect to itself, and the server could not come back.
 */
import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { RatchetError } from '../core/errors.ts';

export const LOOPBACK = '127.0.0.1';
/** Above the well-known services of a developer's machine and below the usual ranges for outgoing connections (32768 and 49152 upward). */
const LOWEST = 15_000;
const HIGHEST = 32_000;
/** With fewer than half of the ports taken, 64 tries all fail once in 10^19. */
const TRIES = 64;
const POLL_MS = 50;

export async function isFree(port: number): Promise<boolean> {
  return await new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE' || error.code === 'EACCES') resolve(false);
      else reject(error);
    });
    server.listen({ host: LOOPBACK, port, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** A port that is free now and not in `taken`. */
export async function freePort(taken: readonly number[] = []): Promise<number> {
  const [low, high] = outgoingRange();
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const port = randomInt(LOWEST, HIGHEST);
    if (taken.includes(port) || (port >= low && port <= high)) continue;
    if (await isFree(port)) return port;
  }
  throw new RatchetError('Unavailable', `no free port between ${LOWEST} and ${HIGHEST} on ${LOOPBACK} after ${TRIES} tries`);
}

/** Waits for a port that a process which has just died still holds. */
export async function waitUntilFree(port: number, boundMs: number): Promise<boolean> {
  const deadline = performance.now() + boundMs;
  while (!(await isFree(port))) {
    if (performance.now() >= deadline) return false;
    await delay(POLL_MS);
  }
  return true;
}

/** First and last port of the system's range for outgoing connections, where it can be asked. */
function outgoingRange(): readonly [number, number] {
  try {
    const [low, high] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').trim().split(/\s+/).map(Number);
    // A range that leaves us nothing (some containers open it to 1024) cannot be avoided.
    if (low && high && low > LOWEST + 1000) return [low, high];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return [HIGHEST, 65_535];
}
