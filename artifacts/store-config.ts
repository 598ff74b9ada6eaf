/**
 * Where the store is: an S3 endpoint, a bucket, a prefix, credentials; read from the environment variables that every S3 tool knows.
 * It refuses half-given credentials and malformed addresses before anything is contacted.
 */
import { badInput } from '../core/errors.ts';

export interface StoreConfig {
  /** Base URL of an S3-compatible server. Absent: AWS S3 of the region. */
  endpoint?: string;
  region: string;
  bucket: string;
  /** Put before every key, so that several stores can share a bucket. Absent or empty: none. */
  prefix?: string;
  /** Absent: the usual search of the AWS SDK (profiles, single sign-on, instance roles). */
  credentials?: { accessKeyId: string; secretAccessKey: string; sessionToken?: string };
  /** The bucket in the path instead of in the host name. Absent: true exactly when an endpoint is given. */
  forcePathStyle?: boolean;
  /** How long one call goes on trying while the server is away, in milliseconds. Absent: `DEFAULT_PATIENCE_MS`. */
  patienceMs?: number;
  /** How long a server may neither take nor send a byte before it is asked again. Absent: `DEFAULT_IDLE_TIMEOUT_MS`. */
  idleTimeoutMs?: number;
  /** Memory for objects that are read again and again, in bytes. Absent: 0, no cache. */
  cacheBytes?: number;
  /** Where streams of unknown length are spooled before upload. Absent: the system's temporary directory. */
  spoolDirectory?: string;
}

/** How long a call goes on trying: a supervised server is back within seconds, and a stage must learn soon enough that it waits for the store. */
export const DEFAULT_PATIENCE_MS = 20_000;
/** A connection is made within milliseconds or the address is dead. */
export const CONNECT_TIMEOUT_MS = 3_000;
/** A server that neither takes nor sends a byte for so long is taken for dead, and asked again. */
export const DEFAULT_IDLE_TIMEOUT_MS = 15_000;
const DEFAULT_BUCKET = 'ratchet';
/** What S3-compatible servers without regions expect to see in signatures. */
const DEFAULT_REGION = 'us-east-1';

/**
 * `RATCHET_S3_ENDPOINT` (a URL, or `aws` for AWS itself), else `AWS_ENDPOINT_URL_S3`, else `AWS_ENDPOINT_URL`; `AWS_REGION` (or `AWS_DEFAULT_REGION`), `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
 * `AWS_SESSION_TOKEN`, `RATCHET_BUCKET`, `RATCHET_PREFIX`. Throws BadInput for a value that no store could have.
 */
export function storeConfigFromEnvironment(env: Record<string, string | undefined>): StoreConfig {
  const named = env['RATCHET_S3_ENDPOINT'] || env['AWS_ENDPOINT_URL_S3'] || env['AWS_ENDPOINT_URL'];
  const endpoint = named === 'aws' ? undefined : named;
  const accessKeyId = env['AWS_ACCESS_KEY_ID'];
  const secretAccessKey = env['AWS_SECRET_ACCESS_KEY'];
  const sessionToken = env['AWS_SESSION_TOKEN'];
  if (Boolean(accessKeyId) !== Boolean(secretAccessKey)) {
    const missing = accessKeyId ? 'AWS_SECRET_ACCESS_KEY' : 'AWS_ACCESS_KEY_ID';
    throw badInput(
      missing,
      '',
      'AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set together, or neither is (then the AWS profile is used)',
    );
  }
  const config: StoreConfig = {
    ...(endpoint && { endpoint }),
    region: env['AWS_REGION'] || env['AWS_DEFAULT_REGION'] || DEFAULT_REGION,
    bucket: env['RATCHET_BUCKET'] || DEFAULT_BUCKET,
    prefix: env['RATCHET_PREFIX'] ?? '',
    ...(accessKeyId && secretAccessKey && { credentials: { accessKeyId, secretAccessKey, ...(sessionToken && { sessionToken }) } }),
  };
  checkStoreConfig(config);
  return config;
}

/** Throws BadInput naming the field that no store could have. */
export function checkStoreConfig(config: StoreConfig): void {
  if (config.endpoint !== undefined && !/^https?:$/.test(URL.parse(config.endpoint)?.protocol ?? '')) {
    throw badInput('S3 endpoint', config.endpoint, 'a URL such as https://s3.example.org or http://127.0.0.1:7070');
  }
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(config.bucket)) {
    throw badInput('S3 bucket', config.bucket, '3 to 63 lower-case letters, digits, dots and hyphens');
  }
  if (config.prefix) checkKey(config.prefix.replace(/\/+$/, ''), 'S3 prefix');
}

/**
 * Keys are paths of plain segments. Stores that keep objects as files cannot hold `.`, `..` or empty segments, and 900 bytes leave room for a
 * prefix below the 1024 that S3 allows.
 */
export function checkKey(key: string, field = 'key'): void {
  const valid = key.length > 0 && key.length <= 900 && /^[A-Za-z0-9!_.*'()=@+,:/-]+$/.test(key);
  if (!valid || key.split('/').some((segment) => segment === '' || segment === '.' || segment === '..')) {
    throw badInput(field, key, "path segments of letters, digits and !_.*'()=@+,:- joined by single slashes, at most 900 characters");
  }
}
