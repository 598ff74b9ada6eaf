/**
 * What must be true of the servers before work starts, wherever they run: they answer, they accept the credentials, the bucket and the search
 * attributes are there. It makes what is missing and may be made; it refuses to go on with a server that does not answer within a bound.
 */
import { RatchetError } from '../core/errors.ts';
import type { S3Endpoint, TemporalEndpoint } from './endpoints.ts';
import { SEARCH_ATTRIBUTES } from './local-servers.ts';

/** Connecting and one call across the world; a name that resolves to nobody costs this much. */
const CONNECT_BOUND_MS = 5_000;
const CALL_BOUND_MS = 10_000;
/** A server that was just started may refuse for a moment. */
const S3_ATTEMPTS = 3;
/** `temporal.api.enums.v1.IndexedValueType`. */
const INDEXED_VALUE_TYPE = { Keyword: 2, Int: 3, Double: 4 } as const;

/** Makes the bucket where it is missing; true where it is there already. Throws Unavailable: no answer, or refused credentials. */
export async function ensureBucket(s3: S3Endpoint): Promise<boolean> {
  return await bucket(s3, true);
}

/** Whether the bucket is there; makes nothing. Throws like `ensureBucket`. */
export async function hasBucket(s3: S3Endpoint): Promise<boolean> {
  return await bucket(s3, false);
}

async function bucket(s3: S3Endpoint, make: boolean): Promise<boolean> {
  const { CreateBucketCommand, HeadBucketCommand, S3Client } = await import('@aws-sdk/client-s3');
  const client = new S3Client({
    region: s3.region,
    forcePathStyle: s3.forcePathStyle,
    maxAttempts: S3_ATTEMPTS,
    ...(s3.endpoint && { endpoint: s3.endpoint }),
    ...(s3.accessKeyId && s3.secretAccessKey && { credentials: { accessKeyId: s3.accessKeyId, secretAccessKey: s3.secretAccessKey } }),
  });
  const where = s3.endpoint ?? `AWS S3 of ${s3.region}`;
  const bounded = () => ({ abortSignal: AbortSignal.timeout(CALL_BOUND_MS) });
  try {
    try {
      await client.send(new HeadBucketCommand({ Bucket: s3.bucket }), bounded());
      return true;
    } catch (error) {
      if (statusOf(error) !== 404) throw error;
      if (!make) return false;
    }
    // The one region that S3 wants to be left out.
    const location = s3.endpoint === null && s3.region !== 'us-east-1' ? { LocationConstraint: s3.region as 'eu-west-1' } : undefined;
    await client.send(new CreateBucketCommand({ Bucket: s3.bucket, ...(location && { CreateBucketConfiguration: location }) }), bounded());
    return false;
  } catch (error) {
    const { name, message } = error as Error;
    // Another process was faster.
    if (name === 'BucketAlreadyOwnedByYou') return true;
    const status = statusOf(error);
    const why =
      status === 401 || status === 403
        ? `refuses these credentials for bucket ${s3.bucket} (${status})`
        : status === undefined
          ? `does not answer: ${name === 'TimeoutError' || name === 'AbortError' ? `nothing within ${CALL_BOUND_MS} ms` : message}`
          : `cannot provide bucket ${s3.bucket}: ${status} ${name}`;
    throw new RatchetError('Unavailable', `S3 at ${where} ${why}`, { cause: error });
  } finally {
    client.destroy();
  }
}

/** Checks that a Temporal answers and has the namespace; makes nothing. Throws Unavailable. */
export async function checkTemporal(temporal: TemporalEndpoint): Promise<void> {
  await temporalNamespace(temporal, false);
}

/** Checks a Temporal and registers the search attributes that it lacks. Throws Unavailable. */
export async function ensureTemporal(temporal: TemporalEndpoint): Promise<void> {
  await temporalNamespace(temporal, true);
}

/** TLS and API key are what `TEMPORAL_TLS…` and `TEMPORAL_API_KEY` say. */
async function temporalNamespace({ address, namespace }: TemporalEndpoint, register: boolean): Promise<void> {
  const [{ Connection }, { connectionFailure, temporalConfig }] = await Promise.all([
    import('@temporalio/client'),
    import('./temporal-config.ts'),
  ]);
  const { connectionOptions } = temporalConfig();
  let connection;
  try {
    connection = await Connection.connect({ ...connectionOptions, address, connectTimeout: CONNECT_BOUND_MS });
  } catch (error) {
    throw new RatchetError('Unavailable', `Temporal at ${address} does not answer: ${connectionFailure(error)}`, { cause: error });
  }
  const { workflowService, operatorService } = connection;
  try {
    await connection.withDeadline(Date.now() + CALL_BOUND_MS, async () => {
      await workflowService.describeNamespace({ namespace });
      if (!register) return;
      const { customAttributes } = await operatorService.listSearchAttributes({ namespace });
      const missing = Object.entries(SEARCH_ATTRIBUTES).filter(([key]) => !(key in customAttributes));
      if (missing.length === 0) return;
      const searchAttributes = Object.fromEntries(missing.map(([key, type]) => [key, INDEXED_VALUE_TYPE[type]]));
      await operatorService.addSearchAttributes({ namespace, searchAttributes });
    });
  } catch (error) {
    const needed = Object.entries(SEARCH_ATTRIBUTES).map(([key, type]) => `${key}=${type}`);
    const message = `Temporal at ${address} cannot be used: ${(error as Error).message}. Needed: namespace ${namespace}, search attributes ${needed.join(', ')}`;
    throw new RatchetError('Unavailable', message, { cause: error });
  } finally {
    await connection.close();
  }
}

function statusOf(error: unknown): number | undefined {
  return (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;
}
