/**
 * All sessions of a server: bounded in number and in time. A session that nobody used for the idle bound, or that is older than the total bound, is ended
 * here; every session that was opened is counted as ended once, with its reason.
 */
import { RatchetError } from '../../core/errors.ts';
import { Session, type Ending } from './session.ts';

export interface SessionBounds {
  /** Most sessions at a time, of both protocols together. */
  maxSessions: number;
  /** A session unused for longer is ended. */
  idleTimeoutMs: number;
  /** A session older than this is ended, used or not. */
  sessionTimeoutMs: number;
}

export interface SessionCounts {
  active: number;
  opened: number;
  refused: number;
  ended: Record<Ending, number>;
}

/** How late a bound may be kept, as a part of it: sessions are looked at this often. */
const SWEEPS_PER_BOUND = 4;
const LONGEST_SWEEP_MS = 5_000;

export class Sessions {
  readonly bounds: SessionBounds;
  readonly #open = new Map<number, Session>();
  readonly #ended: Record<Ending, number> = { closed: 0, dropped: 0, idle: 0, 'too old': 0, shutdown: 0 };
  #opened = 0;
  #refused = 0;
  readonly #timer: NodeJS.Timeout;

  constructor(bounds: SessionBounds) {
    this.bounds = bounds;
    const shortest = Math.min(bounds.idleTimeoutMs, bounds.sessionTimeoutMs);
    this.#timer = setInterval(() => this.#sweep(), Math.min(LONGEST_SWEEP_MS, Math.ceil(shortest / SWEEPS_PER_BOUND)));
    this.#timer.unref();
  }

  get active(): number {
    return this.#open.size;
  }

  get counts(): SessionCounts {
    return { active: this.#open.size, opened: this.#opened, refused: this.#refused, ended: { ...this.#ended } };
  }

  /** `onEnd` is called if the server ends the session by itself. Throws RatchetError('Unavailable') when all are taken. */
  open(onEnd: (ending: Ending) => void): Session {
    const { maxSessions } = this.bounds;
    if (this.#open.size >= maxSessions) {
      this.#refused++;
      throw new RatchetError('Unavailable', `all ${maxSessions} sessions of this server are taken`);
    }
    const session = new Session(this.#opened++, performance.now(), onEnd);
    this.#open.set(session.number, session);
    return session;
  }

  /** The open session with this number, or undefined. */
  get(number: number): Session | undefined {
    return this.#open.get(number);
  }

  /** Ends a session that the client closed or dropped. Ending one twice does nothing. */
  end(session: Session, ending: Ending): void {
    if (this.#open.delete(session.number)) this.#ended[ending]++;
  }

  /** Ends all of them and takes no more. */
  shutdown(): void {
    clearInterval(this.#timer);
    for (const session of this.#open.values()) this.#expire(session, 'shutdown');
  }

  #sweep(): void {
    const now = performance.now();
    for (const session of this.#open.values()) {
      if (now - session.lastUsedMs > this.bounds.idleTimeoutMs) this.#expire(session, 'idle');
      else if (now - session.openedAtMs > this.bounds.sessionTimeoutMs) this.#expire(session, 'too old');
    }
  }

  #expire(session: Session, ending: Ending): void {
    this.end(session, ending);
    session.onEnd(ending);
  }
}
