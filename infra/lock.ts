/**
 * A lock between processes, for short work on files that several `ratchet` processes share. It is released by the death of its holder.
 * It refuses to break the lock of a living holder: whoever waits too long gets an error that names the holder.
 *
 * Each holding is a numbered symbolic link whose target names the holder: made exclusively and whole in one step, even on a full disk. A stale one
 * never has to be removed before it is replaced: whoever finds the newest number released or its holder dead may try to make the next one, and only one succeeds.
 */
import { mkdir, readdir, readlink, rename, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { RatchetError } from '../core/errors.ts';
import { isAlive, thisProcess } from './processes.ts';
import type { ProcessIdentity } from './processes.ts';

/** The target of a released holding. */
const RELEASED = 'released';

export interface LockOptions {
  /** How long a living holder is waited for, in milliseconds. */
  boundMs: number;
  /** Called once when there is something to wait for. */
  onWait?(holder: ProcessIdentity): void;
}

const POLL_MS = 20;
/** Old numbers kept, so that a slow contender still finds the number it aimed at taken. */
const KEPT_NUMBERS = 8;

/** Runs `work` while no other process holds the lock of this directory. Throws Unavailable when a living holder keeps it past `boundMs`. */
export async function withLock<T>(directory: string, options: LockOptions, work: () => Promise<T>): Promise<T> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const number = await acquire(directory, options);
  try {
    return await work();
  } finally {
    await release(directory, number);
  }
}

async function acquire(directory: string, { boundMs, onWait }: LockOptions): Promise<number> {
  const me = await thisProcess();
  const deadline = performance.now() + boundMs;
  for (let waited = false; ;) {
    const newest = await newestNumber(directory);
    const holder = newest === 0 ? null : await holderOf(directory, newest);
    if (holder === null || !(await isAlive(holder))) {
      if (!(await tryHold(directory, newest + 1, me))) continue;
      // A contender that was slower than several whole holdings may have remade a number that was cleaned up: the newest one counts.
      if ((await newestNumber(directory)) === newest + 1) {
        await forget(directory, newest + 1 - KEPT_NUMBERS);
        return newest + 1;
      }
      await rm(numbered(directory, newest + 1), { force: true });
      continue;
    }
    if (!waited) onWait?.(holder);
    waited = true;
    if (performance.now() >= deadline) {
      throw new RatchetError('Unavailable', `${directory} is locked by process ${holder.pid}, which has not finished within ${boundMs} ms`);
    }
    await delay(POLL_MS);
  }
}

function numbered(directory: string, number: number): string {
  return join(directory, `held-${number}`);
}

async function newestNumber(directory: string): Promise<number> {
  let newest = 0;
  for (const name of await readdir(directory)) {
    const match = /^held-(\d+)$/.exec(name);
    if (match) newest = Math.max(newest, Number(match[1]));
  }
  return newest;
}

/** null where it was released or a newer one exists. */
async function holderOf(directory: string, number: number): Promise<ProcessIdentity | null> {
  try {
    const [pid, startedAt] = (await readlink(numbered(directory, number))).split('@');
    return pid === RELEASED || startedAt === undefined ? null : { pid: Number(pid), startedAt };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

async function tryHold(directory: string, number: number, { pid, startedAt }: ProcessIdentity): Promise<boolean> {
  try {
    await symlink(`${pid}@${startedAt}`, numbered(directory, number));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

async function release(directory: string, number: number): Promise<void> {
  const draft = join(directory, `release-${number}`);
  try {
    await rm(draft, { force: true });
    await symlink(RELEASED, draft);
    await rename(draft, numbered(directory, number));
  } catch {
    // A full disk must not keep everybody out until this process ends: without the link the number is free again.
    await rm(draft, { force: true });
    await rm(numbered(directory, number), { force: true });
  }
}

async function forget(directory: string, upTo: number): Promise<void> {
  for (const name of await readdir(directory)) {
    const match = /^held-(\d+)$/.exec(name);
    if (match && Number(match[1]) <= upTo) await rm(join(directory, name), { force: true });
  }
}
