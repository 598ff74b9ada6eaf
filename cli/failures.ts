/**
 * What a person is told when a command fails, and the exit code: 1 the work failed, 2 bad input, 3 something needed is unavailable.
 * The one place where errors become text; no stack trace leaves it unless RATCHET_DEBUG is set.
 */
import {
  isGrpcServiceError,
  WorkflowNotFoundError,
  WorkflowUpdateFailedError,
  WorkflowUpdateRPCTimeoutOrCancelledError,
} from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { exitCodeOf, RatchetError } from '../core/errors.ts';

/** The work failed, for a reason that is told in full: exit code 1. */
export class WorkFailed extends Error {
  override readonly name = 'WorkFailed';
}

/** gRPC status codes (grpc.github.io/grpc/core/md_doc_statuscodes.html). */
const GRPC = { invalidArgument: 3, deadlineExceeded: 4, notFound: 5, permissionDenied: 7, unavailable: 14, unauthenticated: 16 } as const;

/** Turns what the Temporal client throws into what it means for a person. Everything else passes unchanged. */
export function asRatchetError(error: unknown, address = 'Temporal'): unknown {
  if (error instanceof RatchetError) return error;
  if (error instanceof WorkflowUpdateFailedError) {
    const cause = error.cause;
    const type = cause instanceof ApplicationFailure && cause.type === 'BadInput' ? 'BadInput' : 'Unavailable';
    return new RatchetError(type, cause?.message ?? error.message, { cause: error });
  }
  if (error instanceof WorkflowUpdateRPCTimeoutOrCancelledError)
    return new RatchetError(
      'Unavailable',
      'no worker took the request in time; it may still be taken when one is up (`npx ratchet status`)',
      { cause: error },
    );
  if (error instanceof WorkflowNotFoundError)
    return new RatchetError('BadInput', `run ${JSON.stringify(error.workflowId)} is not known to Temporal`, { cause: error });
  const grpc = grpcErrorOf(error);
  if (!grpc) return error;
  const code = Number(grpc.code);
  if (code === GRPC.unavailable || code === GRPC.deadlineExceeded)
    return new RatchetError('Unavailable', `${address} does not answer (${grpc.details || grpc.message})`, { cause: error });
  if (code === GRPC.permissionDenied || code === GRPC.unauthenticated)
    return new RatchetError('Unavailable', `${address} refuses these credentials (${grpc.details})`, { cause: error });
  return error;
}

/** Whether Temporal refuses to read on in a history, because it holds another one or none at all of that execution. */
export function isOfOtherHistory(error: unknown): boolean {
  const code = Number(grpcErrorOf(error)?.code);
  return code === GRPC.invalidArgument || code === GRPC.notFound;
}

/** The client wraps what gRPC says, sometimes twice. */
function grpcErrorOf(error: unknown): { code: number; details: string; message: string } | null {
  for (let at = error, depth = 0; at instanceof Error && depth < 4; at = at.cause, depth++) if (isGrpcServiceError(at)) return at;
  return null;
}

/** Message and exit code. A failure that Ratchet does not know by name is a bug, and says so. */
export function explain(thrown: unknown): { message: string; exitCode: 1 | 2 | 3 } {
  const error = asRatchetError(thrown);
  if (error instanceof RatchetError) return { message: error.message, exitCode: exitCodeOf(error) };
  if (error instanceof WorkFailed) return { message: error.message, exitCode: 1 };
  const text = error instanceof Error ? error.message : String(error);
  return { message: `unexpected failure: ${text.split('\n')[0]} (RATCHET_DEBUG=1 shows where)`, exitCode: 1 };
}
