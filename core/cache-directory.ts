/** Where this user's caches are. Nothing in there is needed: whoever reads a cache can make it again. */
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';

/** `$RATCHET_CACHE`, else `$XDG_CACHE_HOME/ratchet`, else `~/.cache/ratchet`. */
export function cacheDirectory(env: Readonly<Record<string, string | undefined>>): string {
  if (env['RATCHET_CACHE']) return resolve(env['RATCHET_CACHE']);
  return join(env['XDG_CACHE_HOME'] || join(env['HOME'] || homedir(), '.cache'), 'ratchet');
}
