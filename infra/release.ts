/**
 * Fetches a program from its project's official release and verifies it against the checksums of the same release before anything is unpacked.
 * It refuses an archive whose SHA-256 differs, and to wait for a network that does not answer.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { copyFile, chmod, mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { RatchetError } from '../core/errors.ts';
import type { Environment } from './endpoints.ts';
import { thinned } from './progress.ts';
import type { OnProgress } from './progress.ts';
import type { ServerProgram } from './programs.ts';

const run = promisify(execFile);
const RELEASE_SITE = 'https://github.com';
/** From the request to the first byte of the answer, redirects included: a network that drops packets costs this much and no more. */
const ANSWER_BOUND_MS = 8_000;
/** Between two pieces of a body: slower than this is a stalled connection, not a slow one. */
const STALL_BOUND_MS = 20_000;
/** Both checksum files are under 3 KB; both archives are under 60 MB. Larger answers are something else. */
const CHECKSUMS_BOUND_BYTES = 1 << 20;
const ARCHIVE_BOUND_BYTES = 512 << 20;
/** Unpacking 60 MB takes a second. */
const UNPACK_BOUND_MS = 120_000;

/** Why there is no program from the release. `unreachable`: the site did not answer at all, so another program need not try it. */
export class ReleaseFailure extends Error {
  readonly unreachable: boolean;
  constructor(message: string, unreachable = false) {
    super(message);
    this.unreachable = unreachable;
  }
}

/** `$RATCHET_RELEASES`, a mirror laid out like the release site (or `off`: null), else the release site. */
export function releaseSite(env: Environment): string | null {
  const site = env['RATCHET_RELEASES'] || RELEASE_SITE;
  return site === 'off' ? null : site.replace(/\/+$/, '');
}

/**
 * Puts the verified program at `destination`, which must be in an existing directory on the same file system. Throws ReleaseFailure, whose
 * message says which address failed and how, and Stopped as soon as `signal` is aborted.
 */
export async function fetchRelease(
  program: ServerProgram,
  site: string,
  destination: string,
  onProgress: OnProgress,
  signal?: AbortSignal,
): Promise<void> {
  const archive = program.archive(process.platform, process.arch);
  if (!archive) throw new ReleaseFailure(`${program.repository} publishes no archive for ${process.platform} ${process.arch}`);
  const base = `${site}/${program.repository}/releases/download/v${program.version}`;
  const step = `download ${program.name}`;
  onProgress({ step, detail: `${base}/${archive}` });

  const checksums = Buffer.concat(await collect(`${base}/${program.checksums}`, signal));
  const expected = checksumOf(checksums.toString('utf8'), archive);
  if (!expected) throw new ReleaseFailure(`${base}/${program.checksums} lists no SHA-256 for ${archive}`);

  const scratch = await mkdtemp(`${destination}.download-`);
  try {
    const packed = join(scratch, archive);
    const hash = createHash('sha256');
    const file = createWriteStream(packed, { mode: 0o600 });
    const report = thinned(onProgress);
    const failed = once(file, 'error').then(([error]) => Promise.reject(error as Error));
    failed.catch(() => {});
    let done = 0;
    for await (const { piece, total } of pieces(`${base}/${archive}`, ARCHIVE_BOUND_BYTES, signal)) {
      hash.update(piece);
      done += piece.length;
      if (!file.write(piece)) await Promise.race([once(file, 'drain'), failed]);
      report({ step, detail: 'bytes', done, ...(total && { total }) });
    }
    file.end();
    await Promise.race([once(file, 'close'), failed]);
    const actual = hash.digest('hex');
    if (actual !== expected) {
      throw new ReleaseFailure(`${base}/${archive} has SHA-256 ${actual}, but its release says ${expected}: not used`);
    }
    await unpack(packed, scratch, program, destination);
    onProgress({ step, detail: 'verified', done, total: done });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** The sum that a file in the format of `sha256sum` gives for one name, in lower case; null where it gives none. */
export function checksumOf(checksums: string, name: string): string | null {
  for (const line of checksums.split('\n')) {
    const match = /^([0-9a-fA-F]{64})\s+\*?(.+?)\s*$/.exec(line);
    if (match?.[2] === name) return match[1]!.toLowerCase();
  }
  return null;
}

/** The project's archives hold the program at the top or in one directory named like the archive. */
async function unpack(packed: string, scratch: string, program: ServerProgram, destination: string): Promise<void> {
  try {
    await run('tar', ['-xzf', packed, '-C', scratch], { timeout: UNPACK_BOUND_MS });
  } catch (error) {
    throw new ReleaseFailure(`cannot unpack ${packed} with tar: ${(error as Error).message.split('\n')[0]}`);
  }
  const entries = await readdir(scratch, { withFileTypes: true, recursive: true });
  const found = entries.find((entry) => entry.isFile() && entry.name === program.name);
  if (!found) throw new ReleaseFailure(`the archive of ${program.name} ${program.version} holds no file called ${program.name}`);
  await copyFile(join(found.parentPath, found.name), destination);
  await chmod(destination, 0o755);
}

async function collect(url: string, signal: AbortSignal | undefined): Promise<Uint8Array[]> {
  const all: Uint8Array[] = [];
  for await (const { piece } of pieces(url, CHECKSUMS_BOUND_BYTES, signal)) all.push(piece);
  return all;
}

/** The body of an answer, piece by piece, with the bounds above. Throws ReleaseFailure, and Stopped. */
async function* pieces(
  url: string,
  boundBytes: number,
  stop: AbortSignal | undefined,
): AsyncGenerator<{ piece: Uint8Array; total: number | undefined }> {
  const abort = new AbortController();
  let reason = `did not answer within ${ANSWER_BOUND_MS} ms`;
  let timer = setTimeout(() => abort.abort(), ANSWER_BOUND_MS);
  let answered = false;
  try {
    const response = await fetch(url, { signal: stop ? AbortSignal.any([abort.signal, stop]) : abort.signal, redirect: 'follow' });
    answered = true;
    if (!response.ok || !response.body) throw new ReleaseFailure(`${url} answered ${response.status} ${response.statusText}`.trim());
    const total = Number(response.headers.get('content-length')) || undefined;
    reason = `sent nothing more for ${STALL_BOUND_MS} ms`;
    let received = 0;
    clearTimeout(timer);
    timer = setTimeout(() => abort.abort(), STALL_BOUND_MS);
    for await (const piece of response.body as unknown as AsyncIterable<Uint8Array>) {
      timer.refresh();
      received += piece.length;
      if (received > boundBytes) throw new ReleaseFailure(`${url} is larger than ${boundBytes} bytes: not used`);
      yield { piece, total };
    }
    if (total && received !== total) throw new ReleaseFailure(`${url} ended after ${received} of ${total} bytes`);
  } catch (error) {
    if (stop?.aborted) throw new RatchetError('Stopped', `${url}: no longer wanted`, { cause: error });
    if (error instanceof ReleaseFailure) throw error;
    const cause = (error as Error).cause instanceof Error ? ((error as Error).cause as Error) : (error as Error);
    throw new ReleaseFailure(`${url} ${abort.signal.aborted ? reason : `cannot be read: ${cause.message}`}`, !answered);
  } finally {
    clearTimeout(timer);
    // Ends the connection when the reader stopped early.
    abort.abort();
  }
}
