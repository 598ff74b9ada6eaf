/** How Temporal is reached beyond its address: TLS and keys, from `TEMPORAL_*` and its configuration file, as the `temporal` program reads them. */
import { loadClientConnectConfig } from '@temporalio/envconfig';
import { RatchetError } from '../core/errors.ts';

/** Throws BadInput for a file that is not there or cannot be read as what it should be. */
export function temporalConfig(): ReturnType<typeof loadClientConnectConfig> {
  try {
    return loadClientConnectConfig();
  } catch (error) {
    throw new RatchetError('BadInput', `Temporal's configuration (TEMPORAL_* or its file) cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** What went wrong, with the reason that the SDK keeps behind it: a refused key, a certificate that nobody vouches for. */
export function connectionFailure(error: unknown): string {
  const { message, cause } = error as Error;
  return cause instanceof Error && cause.message !== message ? `${message} (${cause.message})` : message;
}
