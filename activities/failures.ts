/**
 * The one boundary where Ratchet's errors become Temporal's: the type stays, and decides whether another attempt is made. Failures that may pass are
 * retried without an end in sight (time bounds limit them); those that a stage causes itself are counted, so that no loop retries for ever.
 */
import { ApplicationFailure, ApplicationFailureCategory } from '@temporalio/common';
import { NON_RETRYABLE_ERRORS, RatchetError } from '../core/errors.ts';
import type { ErrorType } from '../core/errors.ts';

/** `Bug` is everything that is not a RatchetError. */
export type FailureType = ErrorType | 'Bug';

/** Failed attempts of one stage call by type, since its last checkpoint; carried from attempt to attempt in the heartbeat's details. */
export type FailureCounts = Partial<Record<FailureType, number>>;

/**
 * The n-th failure of a type without a checkpoint in between is the last. A bug is tried again at all because an unclassified network error looks
 * like one. Where memory runs out each attempt computes in pieces of half the size; an eighth that does not fit means that something else fills it. A child is killed from outside (a person, the kernel short of memory) more often than work crashes it, hence the patience there.
 * `Unavailable` and `Stopped` have no limit: the cause lies outside and goes away.
 */
export const MOST_FAILURES: Readonly<FailureCounts> = { Bug: 3, OutOfMemory: 4, ComputeStalled: 5, ComputeCrashed: 10 };

/** A drained worker's work can go on elsewhere at once; the growing pauses of the retry policy are for failures. */
const AFTER_STOP_MS = 100;
/** Temporal keeps 4 KiB of a failure; what matters is at the beginning. */
const MESSAGE_CHARACTERS = 2_000;

export function failureType(error: unknown): FailureType {
  return error instanceof RatchetError ? error.type : 'Bug';
}

export function countFailure(counts: FailureCounts, error: unknown): FailureCounts {
  const type = failureType(error);
  return MOST_FAILURES[type] === undefined ? counts : { ...counts, [type]: (counts[type] ?? 0) + 1 };
}

/** `counts` includes this failure. */
export function toApplicationFailure(error: unknown, counts: FailureCounts): ApplicationFailure {
  const type = failureType(error);
  const count = counts[type] ?? 0;
  const exhausted = count >= (MOST_FAILURES[type] ?? Infinity);
  const text = error instanceof Error ? error.message : String(error);
  const stopped = type === 'Stopped';
  return ApplicationFailure.create({
    type,
    message: (exhausted ? `${text} (failure ${count} of this type without a checkpoint in between; giving up)` : text).slice(
      0,
      MESSAGE_CHARACTERS,
    ),
    nonRetryable: exhausted || (NON_RETRYABLE_ERRORS as readonly string[]).includes(type),
    ...(stopped && { nextRetryDelay: AFTER_STOP_MS, category: ApplicationFailureCategory.BENIGN }),
    ...(error instanceof Error && { cause: error }),
  });
}
