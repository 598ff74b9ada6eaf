/** What the hosts of the drill know of each other. */
export const TEMPORAL_PORT = 7233;
export const S3_PORT = 7443;
export const BUCKET = 'fleet';
export const API_KEY = 'key-of-the-drill';
/** Each host has an account of its own at the store; only `root` administers it. */
export const ACCOUNTS = {
  root: { access: 'root-of-the-drill', secret: 'secret-of-root' },
  a: { access: 'host-a', secret: 'secret-of-host-a' },
  b: { access: 'host-b', secret: 'secret-of-host-b' },
} as const;
