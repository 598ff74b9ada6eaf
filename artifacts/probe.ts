/**
 * The check at launch that a store can carry a run. It refuses servers that lose data they acknowledged or that let two conditional writers both win:
 * on such a server a slow worker could overwrite a finished result.
 */
import { RatchetError } from '../core/errors.ts';
import { explained, failureOf, persevere } from './s3-failures.ts';

/** What the probe needs of a store: single requests, not retried, throwing what the server said. */
export interface ProbedStore {
  /** Address and bucket, for messages. */
  where: string;
  listOne(): Promise<unknown>;
  createBucket(): Promise<unknown>;
  putIfAbsent(key: string, bytes: Uint8Array): Promise<unknown>;
  read(key: string): Promise<Uint8Array | null>;
  delete(key: string): Promise<unknown>;
}

/** At launch a person waits: long enough for a server that is just starting, short enough to be told soon. */
export const PROBE_PATIENCE_MS = 3_000;
/** A server that ignores conditions fails the first round; one that only checks them without a lock is caught by a few. */
const ROUNDS = 4;
const RACERS = 2;

/** `key` is a prefix that nobody else uses; what is written below it is removed again. */
export async function probeStore(store: ProbedStore, key: string, signal: AbortSignal | undefined): Promise<void> {
  const asking = async <T>(doing: string, attempt: () => Promise<T>): Promise<T> => {
    try {
      return await persevere(PROBE_PATIENCE_MS, signal, attempt);
    } catch (error) {
      throw explained(doing, store.where, error);
    }
  };
  await asking('reaching the artifact store', async () => {
    try {
      await store.listOne();
    } catch (error) {
      if (failureOf(error) !== 'bucketAbsent') throw error;
      await createBucket(store);
      await store.listOne();
    }
  });
  let attempt = 0; // a round that broke off is raced again elsewhere: its first half may have been written
  for (let round = 0; round < ROUNDS; round++) {
    await asking('checking conditional writes', () => race(store, `${key}-${attempt++}`));
  }
}

/** Another process that starts at the same moment may make the bucket first. */
async function createBucket(store: ProbedStore): Promise<void> {
  try {
    await store.createBucket();
  } catch (error) {
    if ((error as Error).name !== 'BucketAlreadyOwnedByYou' && (error as Error).name !== 'BucketAlreadyExists') throw error;
  }
}

/** Two writers at once, then a late one: exactly one of the two is accepted, its bytes are what is stored, and the late one is refused. */
async function race(store: ProbedStore, key: string): Promise<void> {
  const bodies = Array.from({ length: RACERS }, (_, racer) => Buffer.from(`"racer ${racer}"`));
  try {
    const accepted = await Promise.all(bodies.map((body) => isAccepted(store, key, body)));
    const winners = bodies.filter((_, racer) => accepted[racer]);
    if (winners.length !== 1) throw unfit(store, `of ${RACERS} racing conditional writes ${winners.length} were accepted instead of 1`);
    const late = await isAccepted(store, key, Buffer.from('"late"'));
    if (late) throw unfit(store, 'a conditional write to a key that was taken was accepted');
    const stored = await store.read(key);
    if (!stored || !winners[0]?.equals(stored)) throw unfit(store, 'what was written is not what is read back');
  } finally {
    // Tidying decides nothing: when the server is gone by now, a few bytes stay behind and whoever calls next is told that it is gone.
    await store.delete(key).catch((error: unknown) => {
      if (failureOf(error) === 'bug') throw error;
    });
  }
}

async function isAccepted(store: ProbedStore, key: string, body: Uint8Array): Promise<boolean> {
  try {
    await store.putIfAbsent(key, body);
    return true;
  } catch (error) {
    if (failureOf(error) === 'exists' || failureOf(error) === 'raced') return false;
    throw error;
  }
}

function unfit(store: ProbedStore, found: string): RatchetError {
  return new RatchetError(
    'Unavailable',
    `checking conditional writes at ${store.where}: ${found}; use a server that honours If-None-Match (AWS S3, versitygw 1.8 or later)`,
  );
}
