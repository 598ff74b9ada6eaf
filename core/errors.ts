/**
 * The failures that Ratchet knows by name. Every expected failure is a RatchetError with a stable `type`; the type decides the exit code of the
 * CLI and whether Temporal retries. Anything else that is thrown is a bug and is shown as one.
 */

/**
 * - `BadInput`: what the user gave is wrong; nothing was started. Exit code 2, never retried.
 * - `Unavailable`: a server or resource cannot be reached or is full. Exit code 3 at launch; in flight it is waited for.
 * - `Corrupt`: a stored object is missing, is not what its digest says, or is not what this version makes of its name. Exit code 1, never retried.
 * - `Conflict`: somebody else committed other bytes first, or a run id exists with another recipe. Exit code 2, never retried.
 * - `ComputeCrashed`: the compute child died. Retried.
 * - `ComputeStalled`: the compute child made no progress within its stall bound and was killed. Retried.
 * - `OutOfMemory`: the work does not fit in the memory given. Retried with a smaller micro-batch where there is one.
 * - `Stopped`: the work was stopped on request after a checkpoint. Retried elsewhere.
 * - `Diverged`: training produced a number that is not finite. Never retried: the same bytes would come out.
 */
export type ErrorType =
  'BadInput' | 'Unavailable' | 'Corrupt' | 'Conflict' | 'ComputeCrashed' | 'ComputeStalled' | 'OutOfMemory' | 'Stopped' | 'Diverged';

export const NON_RETRYABLE_ERRORS: readonly ErrorType[] = ['BadInput', 'Corrupt', 'Conflict', 'Diverged'];

export class RatchetError extends Error {
  readonly type: ErrorType;
  constructor(type: ErrorType, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = type;
    this.type = type;
  }
}

/** The message for a wrong value: names the field, the value, and what would be valid. */
export function badInput(field: string, value: unknown, valid: string): RatchetError {
  return new RatchetError('BadInput', `${field}: ${JSON.stringify(value)} is not valid; ${valid}`);
}

/** The exit codes of the CLI: 0 done, 1 the work failed, 2 bad input, 3 something needed is unavailable. */
export function exitCodeOf(error: unknown): 1 | 2 | 3 {
  if (!(error instanceof RatchetError)) return 1;
  if (error.type === 'BadInput' || error.type === 'Conflict') return 2;
  if (error.type === 'Unavailable') return 3;
  return 1;
}
