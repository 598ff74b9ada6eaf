/** Failures in the shape that OpenAI's clients read: `{"error": {message, type, param, code}}`. */
import { RatchetError } from '../../core/errors.ts';
import { Busy } from './engine.ts';

export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: number;
  readonly type: string;
  readonly param: string | null;
  readonly code: string | null;

  constructor(status: number, message: string, more: { type?: string; param?: string | null; code?: string | null } = {}) {
    super(message);
    this.status = status;
    this.type = more.type ?? (status < 500 ? 'invalid_request_error' : 'server_error');
    this.param = more.param ?? null;
    this.code = more.code ?? null;
  }

  body(): { error: { message: string; type: string; param: string | null; code: string | null } } {
    const { message, type, param, code } = this;
    return { error: { message, type, param, code } };
  }
}

export const invalid = (param: string | null, message: string, code: string | null = null): ApiError =>
  new ApiError(400, message, { param, code });

/** Seconds after which a client that was refused for load may try again: some requests end within it. */
export const RETRY_AFTER_S = 1;

/** What a failure inside becomes outside. Anything unexpected is a server error whose details stay here. */
export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof Busy)
    return new ApiError(429, `Too many requests: ${error.message}.`, { type: 'rate_limit_error', code: 'rate_limit_exceeded' });
  if (error instanceof RatchetError && error.type === 'BadInput') return invalid(null, error.message);
  if (error instanceof RatchetError && error.type !== 'Corrupt')
    return new ApiError(503, `Not available now: ${error.message}.`, { type: 'service_unavailable_error', code: 'unavailable' });
  return new ApiError(500, 'The server failed; its log says why.', { code: 'internal_error' });
}
