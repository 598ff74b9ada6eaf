/**
 * What S3 failures mean, decided in one place: which are waited out, which mean that something is absent or was refused, and how a person is told.
 * It refuses to guess: an answer that it does not know is reported with its status and code, as unavailable.
 */
import { RatchetError } from '../core/errors.ts';
import { setTimeout as delay } from 'node:timers/promises';

/**
 * - `absent`: there is no such object. - `bucketAbsent`: there is no such bucket. - `exists`: a conditional write found an object (412).
 * - `raced`: two conditional writes met (409); asking again tells. - `denied`: credentials or permissions.
 * - `transient`: nobody answered, the answer broke off, or the server said 5xx or "slow down". - `refused`: any other answer.
 * - `bug`: not a failure of the server or the network at all.
 */
export type Failure = 'absent' | 'bucketAbsent' | 'exists' | 'raced' | 'denied' | 'transient' | 'refused' | 'bug';

/** Codes that S3 servers send with status 400 or 403 although the same request may succeed when sent again: the body was damaged or cut on its way. */
const TRANSIENT_CODES = new Set([
  'RequestTimeout',
  'BadDigest',
  'XAmzContentSHA256Mismatch',
  'XAmzContentChecksumMismatch',
  'IncompleteBody',
]);

/** What the SDK throws before it asks anybody. */
const NO_CREDENTIALS = new Set(['CredentialsProviderError', 'TokenProviderError']);
/** What a 404 must say to mean that there is no such object; without a body (HEAD) the SDK calls it NotFound. Other 404s are about something else. */
const ABSENT_CODES = new Set(['NoSuchKey', 'NotFound', 'NoSuchUpload']);
/** Access keys that nobody has; versitygw answers 404 to them, and taking that for a missing object would make a wrong key look like data loss. */
const UNKNOWN_KEY_CODES = new Set(['InvalidAccessKeyId', 'XAdminUserNotFound']);

interface Answer {
  name: string;
  message: string;
  code?: string;
  status?: number;
}

function answerOf(error: unknown): Answer {
  const { name, message, Code, code, $metadata } = error as Error & {
    Code?: string;
    code?: string;
    $metadata?: { httpStatusCode?: number };
  };
  const status = $metadata?.httpStatusCode;
  const named = Code ?? (typeof code === 'string' ? code : undefined);
  return {
    name: String(name),
    message: String(message),
    ...(named !== undefined && { code: named }),
    ...(status !== undefined && { status }),
  };
}

export function failureOf(error: unknown): Failure {
  const { name, code, status } = answerOf(error);
  if (NO_CREDENTIALS.has(name ?? '')) return 'denied';
  if (status === undefined) return code !== undefined || name === 'TimeoutError' ? 'transient' : 'bug'; // no HTTP answer: the system names its failures
  if (name === 'NoSuchBucket' || code === 'NoSuchBucket') return 'bucketAbsent';
  if (UNKNOWN_KEY_CODES.has(code ?? name)) return 'denied';
  if (status === 404) return ABSENT_CODES.has(code ?? name) ? 'absent' : 'refused';
  if (status === 412) return 'exists';
  if (status === 409) return 'raced';
  if (status >= 500 && status !== 501) return 'transient';
  if (status === 408 || status === 429 || TRANSIENT_CODES.has(code ?? name)) return 'transient';
  if (status < 300) return 'transient'; // a success whose body could not be read to its end or parsed
  if (status === 401 || status === 403) return 'denied';
  return 'refused';
}

/** The error that people see, with what was tried, what came back, and what to change. What is a RatchetError already, or a bug, stays what it is. */
export function explained(doing: string, where: string, error: unknown): unknown {
  const failure = error instanceof RatchetError ? 'bug' : failureOf(error);
  if (failure === 'bug') return error;
  const answer = answerOf(error);
  if (NO_CREDENTIALS.has(answer.name ?? ''))
    return new RatchetError(
      'Unavailable',
      `${doing} at ${where}: there are no credentials, so the server was not asked; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)`,
      { cause: error },
    );
  const seen = [answer.status, answer.code ?? answer.name].filter((part) => part !== undefined).join(' ');
  const advice =
    failure === 'denied'
      ? answer.code === 'RequestTimeTooSkewed' || answer.name === 'RequestTimeTooSkewed'
        ? "this machine's clock differs from the server's; correct it"
        : 'check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (or the AWS profile) and the permissions on the bucket'
      : failure === 'bucketAbsent'
        ? 'create the bucket or set RATCHET_BUCKET'
        : answer.status === 507 || /ENOSPC|no space|StorageFull|QuotaExceeded/i.test(`${answer.code} ${answer.name} ${answer.message}`)
          ? 'the disk of the storage server is full; free some space'
          : answer.status === 503
            ? 'the storage server is overloaded or not ready; it is asked again later'
            : answer.status !== undefined && answer.status >= 500
              ? 'the storage server fails; its disk may be full: see its log'
              : answer.status === undefined || answer.status < 300
                ? 'check that an S3 server runs at this address (AWS_ENDPOINT_URL_S3) and that the network is up'
                : 'check the endpoint, region and bucket (AWS_ENDPOINT_URL_S3, AWS_REGION, RATCHET_BUCKET)';
  return new RatchetError('Unavailable', `${doing} at ${where}: ${seen}: ${answer.message || 'no message'}; ${advice}`, { cause: error });
}

/** The first pause; a restarted local server answers again after about 300 ms, so the first tries come quickly. */
export const FIRST_PAUSE_MS = 50;
/** Pauses double up to this; asking more rarely would add more waiting than it saves the server work. */
export const LONGEST_PAUSE_MS = 2_000;

/**
 * Repeats `attempt` while it fails in a transient way, with doubling pauses (no jitter: a handful of clients need none, and runs stay repeatable),
 * until `patienceMs` have passed. Throws the last failure itself, and the signal's reason as soon as the signal is aborted.
 */
export async function persevere<T>(patienceMs: number, signal: AbortSignal | undefined, attempt: () => Promise<T>): Promise<T> {
  const patience = new Patience(patienceMs, signal);
  for (;;) {
    signal?.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      await patience.outlast(error);
    }
  }
}

/** The pauses of one call. `outlast` returns when it is time to try again and throws when it is not worth it. */
export class Patience {
  readonly #patienceMs: number;
  readonly #signal: AbortSignal | undefined;
  #started = performance.now();
  #pauseMs = FIRST_PAUSE_MS;

  constructor(patienceMs: number, signal: AbortSignal | undefined) {
    this.#patienceMs = patienceMs;
    this.#signal = signal;
  }

  /** Something succeeded: the next failure is a new one. */
  renew(): void {
    this.#started = performance.now();
    this.#pauseMs = FIRST_PAUSE_MS;
  }

  async outlast(error: unknown): Promise<void> {
    this.#signal?.throwIfAborted();
    if (error instanceof RatchetError || failureOf(error) !== 'transient') throw error;
    const left = this.#patienceMs - (performance.now() - this.#started);
    if (left <= 0) throw error;
    try {
      await delay(Math.min(this.#pauseMs, left), undefined, this.#signal && { signal: this.#signal });
    } catch (interrupted) {
      this.#signal?.throwIfAborted();
      throw interrupted;
    }
    this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
  }
}

/** A refusal although nothing is stored: another writer is about to finish or has just been undone, so asking again is right. */
export function stillRacing(key: string): Error {
  return Object.assign(new Error(`another writer of ${key} is neither done nor gone`), { code: 'ConditionalRequestConflict' });
}
