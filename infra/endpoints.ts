/**
 * Where Temporal and the S3 store are: the addresses that everything else is given, and how they travel between processes, as environment variables.
 * It refuses to contact anything; an address that could never work is BadInput here, before anything starts.
 */
import { devNull } from 'node:os';
import { badInput } from '../core/errors.ts';
import { temporalConfig } from './temporal-config.ts';

export interface TemporalEndpoint {
  /** `host:port` of the frontend (gRPC). */
  address: string;
  namespace: string;
  /** Base URL of the web UI; null where none is known. */
  uiUrl: string | null;
  /** One of ours, on this machine: spoken to in the clear, whatever Temporal's configuration says of others. */
  own?: true;
}

export interface S3Endpoint {
  /** Base URL of an S3-compatible server; null means AWS S3 of the region. */
  endpoint: string | null;
  region: string;
  bucket: string;
  /** Absent: the usual search of the AWS SDK (profiles, single sign-on, instance roles, session tokens). */
  accessKeyId?: string;
  secretAccessKey?: string;
  /** The bucket in the path instead of in the host name: true for every server but AWS. */
  forcePathStyle: boolean;
}

export interface Endpoints {
  temporal: TemporalEndpoint;
  s3: S3Endpoint;
}

export type Environment = Record<string, string | undefined>;

export const DEFAULT_NAMESPACE = 'default';
export const DEFAULT_BUCKET = 'ratchet';
/** What S3-compatible servers without regions expect to see in signatures. */
export const DEFAULT_REGION = 'us-east-1';
/** The value of `RATCHET_S3_ENDPOINT` that means AWS itself. */
const AWS_ITSELF = 'aws';

/** In the clear, and without what this machine's configuration says of another Temporal. */
const IN_THE_CLEAR = { TEMPORAL_TLS: 'false', TEMPORAL_API_KEY: '', TEMPORAL_CONFIG_FILE: devNull, TEMPORAL_PROFILE: '' };

/**
 * `TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, `TEMPORAL_UI_URL`, or what the profile says that `TEMPORAL_CONFIG_FILE` or `TEMPORAL_PROFILE` name; null where no
 * address is given. A configuration file that nobody names decides nothing: it may be there for something else.
 */
export function temporalFromEnvironment(env: Environment): TemporalEndpoint | null {
  const named = env['TEMPORAL_ADDRESS'] || env['TEMPORAL_CONFIG_FILE'] || env['TEMPORAL_PROFILE'];
  const { connectionOptions, namespace } = named ? temporalConfig(env) : {};
  const address = connectionOptions?.address;
  if (!address) return null;
  if (!/^(\[[0-9a-fA-F:]+\]|[^\s:/]+):[0-9]{1,5}$/.test(address)) {
    throw badInput('TEMPORAL_ADDRESS', address, 'host:port, such as 127.0.0.1:7233, without a scheme');
  }
  return { address, namespace: namespace || DEFAULT_NAMESPACE, uiUrl: env['TEMPORAL_UI_URL'] || null };
}

/**
 * The most specific of `RATCHET_S3_ENDPOINT` (a URL, or `aws`), `AWS_ENDPOINT_URL_S3` and `AWS_ENDPOINT_URL`; null where none is given. The bucket
 * is `RATCHET_BUCKET`; region and credentials are the variables that every S3 tool knows.
 */
export function s3FromEnvironment(env: Environment): S3Endpoint | null {
  const variable = ['RATCHET_S3_ENDPOINT', 'AWS_ENDPOINT_URL_S3', 'AWS_ENDPOINT_URL'].find((name) => env[name]);
  if (!variable) return null;
  const value = env[variable]!;
  const aws = variable === 'RATCHET_S3_ENDPOINT' && value === AWS_ITSELF;
  if (!aws && !/^https?:$/.test(URL.parse(value)?.protocol ?? '')) {
    throw badInput(variable, value, 'a URL such as https://s3.example.org or http://127.0.0.1:7070 (or RATCHET_S3_ENDPOINT=aws)');
  }
  const accessKeyId = env['AWS_ACCESS_KEY_ID'];
  const secretAccessKey = env['AWS_SECRET_ACCESS_KEY'];
  if (Boolean(accessKeyId) !== Boolean(secretAccessKey)) {
    const missing = accessKeyId ? 'AWS_SECRET_ACCESS_KEY' : 'AWS_ACCESS_KEY_ID';
    throw badInput(
      missing,
      '',
      'AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set together, or neither is (then the AWS profile is used)',
    );
  }
  return {
    endpoint: aws ? null : value,
    region: env['AWS_REGION'] || env['AWS_DEFAULT_REGION'] || DEFAULT_REGION,
    bucket: bucketFromEnvironment(env),
    // With a session token the three belong together; the SDK then takes all of them from the environment by itself.
    ...(accessKeyId && secretAccessKey && !env['AWS_SESSION_TOKEN'] && { accessKeyId, secretAccessKey }),
    forcePathStyle: !aws,
  };
}

export function bucketFromEnvironment(env: Environment): string {
  const bucket = env['RATCHET_BUCKET'] || DEFAULT_BUCKET;
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(bucket)) {
    throw badInput('RATCHET_BUCKET', bucket, '3 to 63 lower-case letters, digits, dots and hyphens');
  }
  return bucket;
}

/** The variables to hand to a child process, so that it finds exactly these servers. Holds the secret: never log it, never pass it as arguments. */
export function endpointEnvironment({ temporal, s3 }: Endpoints): Record<string, string> {
  return {
    TEMPORAL_ADDRESS: temporal.address,
    TEMPORAL_NAMESPACE: temporal.namespace,
    TEMPORAL_UI_URL: temporal.uiUrl ?? '',
    ...(temporal.own && IN_THE_CLEAR),
    RATCHET_S3_ENDPOINT: s3.endpoint ?? AWS_ITSELF,
    // Empty overrides what the child inherits and these endpoints do not mean.
    AWS_ENDPOINT_URL_S3: s3.endpoint ?? '',
    ...(s3.endpoint === null && { AWS_ENDPOINT_URL: '' }),
    AWS_REGION: s3.region,
    RATCHET_BUCKET: s3.bucket,
    ...(s3.accessKeyId &&
      s3.secretAccessKey && {
        AWS_ACCESS_KEY_ID: s3.accessKeyId,
        AWS_SECRET_ACCESS_KEY: s3.secretAccessKey,
        // A token from the person's own session belongs to other keys.
        AWS_SESSION_TOKEN: '',
      }),
  };
}

/** What a process that was handed `endpointEnvironment` reads back; null where the environment names no Temporal or no store. */
export function endpointsFromEnvironment(env: Environment): Endpoints | null {
  const temporal = temporalFromEnvironment(env);
  const s3 = s3FromEnvironment(env);
  return temporal && s3 ? { temporal, s3 } : null;
}
