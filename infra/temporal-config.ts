/**
 * How Temporal is reached: address, namespace, TLS and keys, from Temporal's own environment configuration (`TEMPORAL_*` and `temporal.toml`), as the `temporal`
 * program reads them.
 */
import { loadClientConnectConfig } from '@temporalio/envconfig';
import { devNull } from 'node:os';
import { RatchetError } from '../core/errors.ts';

/**
 * Throws BadInput for a file that is not there or cannot be read as what it should be. A variable that is set to nothing is not set: an empty API key would turn
 * TLS on. `TEMPORAL_CONFIG_FILE=/dev/null`: no file.
 */
export function temporalConfig(env: Record<string, string | undefined> = process.env): ReturnType<typeof loadClientConnectConfig> {
  const overrideEnvVars = Object.fromEntries(Object.entries(env).filter((entry): entry is [string, string] => Boolean(entry[1])));
  try {
    return loadClientConnectConfig({ overrideEnvVars, disableFile: env['TEMPORAL_CONFIG_FILE'] === devNull });
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
