/**
 * Keeps processes alive: starts each again when it dies or stops answering, with growing pauses, and reports every change.
 * It refuses to restart without end: after a bound of failures in quick succession it gives up with an error that others can read.
 *
 * A process may be a child of ours, or one that an earlier run left behind and that was adopted: it is then watched by its pid.
 */
import type { ChildProcess } from 'node:child_process';
import { RatchetError } from '../core/errors.ts';
import { endProcess, identify, isAlive } from './processes.ts';
import type { ProcessIdentity } from './processes.ts';

export interface Backoff {
  /** Pause before the second restart in a row, in milliseconds; the first restart happens at once, each later pause is twice the one before. */
  firstMs: number;
  mostMs: number;
  /** A process that stayed well this long, in milliseconds, has recovered: the count of failures starts anew. */
  stableMs: number;
  /** So many failures in a row, each before the process was stable, are too many. */
  mostFailures: number;
}

/** Ten failures with these pauses span about 40 s: longer than any port lingers, shorter than anybody waits for a server that cannot start. */
export const DEFAULT_BACKOFF: Backoff = { firstMs: 250, mostMs: 10_000, stableMs: 10_000, mostFailures: 10 };

export interface SupervisedProcess {
  /** Unique in its supervisor; for people. */
  name: string;
  /**
   * Starts the process, or finds it running. Throws RatchetError `Stopped` where somebody has asked for it to rest: it is then not started again.
   * Any other error is a failed start.
   */
  start(): Promise<ChildProcess | ProcessIdentity> | ChildProcess | ProcessIdentity;
  /** Whether it does its work. Must settle by itself; a rejection counts as false. */
  healthy(): Promise<boolean>;
  backoff?: Partial<Backoff>;
  /** Why starting it is pointless for now, such as a full disk; null when nothing is in the way. Waiting for the end of this is not a failure. */
  blocked?(): Promise<string | null>;
  /** From SIGTERM to SIGKILL when it is stopped, in milliseconds. */
  stopGraceMs?: number;
  /** How long a new one may take until it is healthy for the first time, in milliseconds; twice as long after each failure in a row, since a busy machine does not get faster. */
  startBoundMs?: number;
  /** How long one that was healthy may be unhealthy before it counts as hung and is killed, in milliseconds. */
  hungBoundMs?: number;
}

/**
 * - `started`: a process is there, not yet healthy. - `ready`: healthy. - `exited`: it died (`detail` says how). - `hung`: killed because it did not answer.
 * - `waiting`: a restart waits, for a pause (`delayMs`) or for what `detail` says. - `failed`: given up. - `stopped`: ended on request.
 */
export interface ProcessEvent {
  name: string;
  kind: 'started' | 'ready' | 'exited' | 'hung' | 'waiting' | 'failed' | 'stopped';
  pid: number | null;
  detail: string;
  /** Restarts so far. */
  restarts: number;
  delayMs?: number;
}

export interface Supervised {
  readonly name: string;
  readonly pid: number | undefined;
  /** Settles when the process is healthy for the first time; rejects with Unavailable when the supervisor gives up, with Stopped when it rests. */
  readonly ready: Promise<void>;
  /** Settles with null once it was stopped on request, or with the error for which it was given up. */
  readonly ended: Promise<RatchetError | null>;
  /** SIGTERM, a bounded wait, SIGKILL. With `leave`, only the supervision ends and the process stays. */
  stop(options?: { leave?: boolean }): Promise<void>;
}

export interface Supervisor {
  supervise(spec: SupervisedProcess): Supervised;
  /** Stops all, the last one added first, so that a server ends after the workers that need it. */
  stop(options?: { leave?: boolean }): Promise<void>;
  onEvent(listener: (event: ProcessEvent) => void): () => void;
}

/** Failures in a row up to which the bound of a start doubles: 90 s become 12 minutes. */
const MOST_DOUBLINGS = 3;
/** How often an adopted process is looked for; a child's end is noticed at once. */
const ADOPTED_POLL_MS = 200;
/** How often health is asked while a process starts, and afterwards. */
const STARTING_POLL_MS = 50;
const HEALTH_POLL_MS = 2_000;
/** An idle machine needs 0.3 s for the slower server; one with 16 busy processes on 2 cores was seen to need 14 s. */
const START_BOUND_MS = 90_000;
/** Long enough for a machine that is merely overloaded. */
const HUNG_BOUND_MS = 60_000;
/** How often a cause that blocks starting is looked at again. */
const BLOCKED_POLL_MS = 1_000;
/** The slower server ends within 1.3 s. */
const STOP_GRACE_MS = 10_000;

export function createSupervisor(listener?: (event: ProcessEvent) => void): Supervisor {
  const listeners = new Set<(event: ProcessEvent) => void>(listener ? [listener] : []);
  const all: Supervised[] = [];
  return {
    supervise(spec) {
      if (all.some((other) => other.name === spec.name)) throw new Error(`${spec.name} is supervised already`);
      const supervised = supervise(spec, (event) => {
        for (const each of listeners) each(event);
      });
      all.push(supervised);
      return supervised;
    },
    async stop(options) {
      for (const supervised of all.splice(0).toReversed()) await supervised.stop(options);
    },
    onEvent(added) {
      listeners.add(added);
      return () => void listeners.delete(added);
    },
  };
}

/** Keeps one process alive until it is stopped or given up. Returns at once; `ready` tells when it is there. */
export function supervise(spec: SupervisedProcess, listener: (event: ProcessEvent) => void = () => {}): Supervised {
  const backoff = { ...DEFAULT_BACKOFF, ...spec.backoff };
  const ready = Promise.withResolvers<void>();
  // Whoever does not wait for `ready` learns of a failure by `ended` and the events.
  ready.promise.catch(() => {});
  let current: Running | null = null;
  const stopping = new AbortController();
  let leave = false;
  let starts = 0;
  let wake = (): void => {};

  const report = (kind: ProcessEvent['kind'], detail: string, delayMs?: number): void => {
    const pid = current?.identity.pid ?? null;
    listener({ name: spec.name, kind, pid, detail, restarts: Math.max(0, starts - 1), ...(delayMs !== undefined && { delayMs }) });
  };
  /** The result of `work`, or undefined as soon as the process ends or is to be stopped. A new promise each time, so that nothing piles up over weeks. */
  const unlessWoken = <T>(work: Promise<T>): Promise<T | undefined> => {
    const woken = Promise.withResolvers<undefined>();
    wake = () => woken.resolve(undefined);
    return Promise.race([work, woken.promise]);
  };
  const pause = async (ms: number): Promise<void> => {
    const passed = Promise.withResolvers<void>();
    const timer = setTimeout(passed.resolve, ms);
    await unlessWoken(passed.promise);
    clearTimeout(timer);
  };

  /** One life of the process. Returns how it ended and whether it had become stable; null when asked to stop. */
  const live = async (failures: number): Promise<{ reason: string; stable: boolean } | null> => {
    const startBoundMs = (spec.startBoundMs ?? START_BOUND_MS) * 2 ** Math.min(failures, MOST_DOUBLINGS);
    const running = await attach(await spec.start(), () => wake());
    current = running;
    starts++;
    report('started', `pid ${running.identity.pid}`);
    let readySince: number | null = null;
    let lastHealthy = performance.now();
    while (!stopping.signal.aborted) {
      const asked = performance.now();
      const healthy = running.exit === null && ((await unlessWoken(spec.healthy().catch(() => false))) ?? false);
      const now = performance.now();
      if (running.exit !== null) {
        const stable = readySince !== null && now - readySince >= backoff.stableMs;
        report('exited', running.exit);
        return { reason: running.exit, stable };
      }
      if (healthy) {
        lastHealthy = now;
        if (readySince === null) {
          readySince = now;
          report('ready', `pid ${running.identity.pid}`);
          ready.resolve();
        }
      }
      const bound = readySince === null ? startBoundMs : (spec.hungBoundMs ?? HUNG_BOUND_MS);
      if (!healthy && now - lastHealthy >= bound) {
        const reason = readySince === null ? `not ready within ${bound} ms` : `did not answer for ${bound} ms`;
        report('hung', reason);
        await endProcess(running.identity, 0);
        return { reason, stable: readySince !== null && now - readySince >= backoff.stableMs + bound };
      }
      const poll = readySince === null ? STARTING_POLL_MS : HEALTH_POLL_MS;
      if (running.exit === null && !stopping.signal.aborted) await pause(Math.max(STARTING_POLL_MS, poll - (now - asked)));
    }
    return null;
  };

  const lifetime = async (): Promise<RatchetError | null> => {
    let failures = 0;
    let reason = 'never started';
    while (!stopping.signal.aborted) {
      await waitWhileBlocked();
      if (stopping.signal.aborted) break;
      try {
        const end = await live(failures);
        if (end === null) break;
        reason = end.reason;
        failures = end.stable ? 1 : failures + 1;
      } catch (error) {
        if (error instanceof RatchetError && error.type === 'Stopped') {
          current = null;
          ready.reject(error);
          report('stopped', error.message);
          return null;
        }
        reason = (error as Error).message;
        failures++;
      } finally {
        if (!stopping.signal.aborted) current?.detach();
      }
      if (stopping.signal.aborted) break;
      current = null;
      if (failures >= backoff.mostFailures) {
        const error = new RatchetError('Unavailable', `${spec.name} failed ${failures} times in a row and is given up; last: ${reason}`);
        ready.reject(error);
        report('failed', error.message);
        return error;
      }
      if (failures > 1) {
        const ms = Math.min(backoff.mostMs, backoff.firstMs * 2 ** (failures - 2));
        report('waiting', `${reason}; next try in ${ms} ms`, ms);
        await pause(ms);
      }
    }
    if (current && !leave) await endProcess(current.identity, spec.stopGraceMs ?? STOP_GRACE_MS);
    current?.detach();
    ready.reject(new RatchetError('Stopped', `${spec.name} was stopped before it was ready`));
    if (!leave) report('stopped', 'on request');
    current = null;
    return null;
  };

  async function waitWhileBlocked(): Promise<void> {
    let told: string | null = null;
    for (let reason = await spec.blocked?.(); reason && !stopping.signal.aborted; reason = await spec.blocked?.()) {
      if (reason !== told) report('waiting', reason);
      told = reason;
      await pause(BLOCKED_POLL_MS);
    }
  }

  const ended = lifetime();
  // A bug in `start` or a listener must not pass silently: it rejects `ready` too.
  ended.catch((error: unknown) => ready.reject(error));
  return {
    name: spec.name,
    get pid() {
      return current?.identity.pid;
    },
    ready: ready.promise,
    ended,
    async stop(options) {
      leave = options?.leave ?? false;
      stopping.abort();
      wake();
      await ended;
    },
  };
}

interface Running {
  identity: ProcessIdentity;
  /** How it ended; null while it lives. */
  exit: string | null;
  /** Ends the watching, so that it does not keep this process alive. */
  detach(): void;
}

async function attach(started: ChildProcess | ProcessIdentity, onExit: () => void): Promise<Running> {
  if ('startedAt' in started) return watch(started, onExit);
  const child = started;
  const running: Running = { identity: { pid: 0, startedAt: '' }, exit: null, detach: () => child.unref() };
  const spawned = Promise.withResolvers<void>();
  const end = (how: string): void => {
    running.exit ??= how;
    spawned.resolve();
    onExit();
  };
  child.once('exit', (code, signal) => end(signal ? `killed by ${signal}` : `ended with code ${code}`));
  child.on('error', (error) => end(error.message));
  if (child.exitCode !== null || child.signalCode !== null)
    end(child.signalCode ? `killed by ${child.signalCode}` : `ended with code ${child.exitCode}`);
  if (child.pid === undefined) {
    await spawned.promise;
    throw new Error(running.exit ?? 'could not be started');
  }
  running.identity = (await identify(child.pid)) ?? { pid: child.pid, startedAt: 'gone' };
  return running;
}

/** A process that is not a child of ours: nothing tells when it ends, so it is looked for. */
function watch(identity: ProcessIdentity, onExit: () => void): Running {
  const running: Running = { identity, exit: null, detach: () => clearInterval(timer) };
  const timer = setInterval(() => {
    void isAlive(identity).then((alive) => {
      if (alive || running.exit !== null) return;
      clearInterval(timer);
      running.exit = 'died';
      onExit();
    });
  }, ADOPTED_POLL_MS);
  return running;
}
