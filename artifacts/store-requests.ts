/**
 * What a store was asked, counted at S3's client: every try of every operation, also those that were tried again. An answer that something is absent, there
 * already or about to be is no failure. For metrics; nothing depends on it.
 */
import type { S3Client } from '@aws-sdk/client-s3';
import { failureOf } from './s3-failures.ts';

/** By operation of S3, e.g. `GetObject`. `ms`: until the answer began, summed. */
export type StoreRequests = Record<string, { requests: number; failures: number; ms: number }>;

const FAILURES = new Set(['transient', 'denied', 'refused', 'bucketAbsent']);

/** Counts what this client sends from now on. */
export function countRequests(client: S3Client): StoreRequests {
  const counts: StoreRequests = {};
  client.middlewareStack.add(
    (next, context) => async (input) => {
      const count = (counts[String(context.commandName).replace(/Command$/, '')] ??= { requests: 0, failures: 0, ms: 0 });
      const begun = performance.now();
      try {
        return await next(input);
      } catch (error) {
        if (FAILURES.has(failureOf(error))) count.failures++;
        throw error;
      } finally {
        count.requests++;
        count.ms += performance.now() - begun;
      }
    },
    { step: 'initialize', name: 'countRequests' },
  );
  return counts;
}

export function addRequests(to: StoreRequests, more: StoreRequests): void {
  for (const [operation, { requests, failures, ms }] of Object.entries(more)) {
    const sum = (to[operation] ??= { requests: 0, failures: 0, ms: 0 });
    sum.requests += requests;
    sum.failures += failures;
    sum.ms += ms;
  }
}

/** What was counted between two readings. */
export function requestsSince(now: StoreRequests, before: StoreRequests): StoreRequests {
  return Object.fromEntries(
    Object.entries(now).flatMap(([operation, { requests, failures, ms }]) => {
      const earlier = before[operation] ?? { requests: 0, failures: 0, ms: 0 };
      if (requests === earlier.requests) return [];
      return [[operation, { requests: requests - earlier.requests, failures: failures - earlier.failures, ms: ms - earlier.ms }]];
    }),
  );
}
