/**
 * A lock between processes, for short work on files that several `ratchet` processes share. It is released by the death of its holder.
 * It refuses to break the lock of a living holder: whoever waits too long gets an error that names the holder.
 *
 * Each holding is a numbered file, made by an exclusive link, so that a stale one never has to be removed before it is replaced: whoever finds the
 * newest number released or its holder dead may try to make the next one, and only one succeeds.
 */
import { randomBytes } from 'node:crypto';
import { link, mkdir, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { RatchetError } from '../core/errors.ts';
import { isAlive, thisProcess } from './processes.ts';
import type { ProcessIdentity } from './processes.ts';

/** What a holding says while it is held; `released` afterwards. */
interface Holding {
  holder: ProcessIdentity;
  token: string;
  released: boolean;
}

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
  const mine: Holding = { holder: await thisProcess(), token: randomBytes(12).toString('hex'), released: false };
  const number = await acquire(directory, mine, options);
  try {
    return await work();
  } finally {
    await release(directory, number, mine);
  }
}

async function acquire(directory: string, mine: Holding, { boundMs, onWait }: LockOptions): Promise<number> {
  const deadline = performance.now() + boundMs;
  const draft = join(directory, `draft-${mine.token}`);
  await writeFile(draft, JSON.stringify(mine), { mode: 0o600 });
  try {
    for (let waited = false; ;) {
      const newest = await newestNumber(directory);
      const current = newest === 0 ? null : await readHolding(directory, newest);
      if (!current || current.released || !(await isAlive(current.holder))) {
        if (await tryLink(draft, numbered(directory, newest + 1))) {
          // A contender that was slower than several whole holdings may have remade a number that was cleaned up: the newest one counts.
          if ((await newestNumber(directory)) === newest + 1) {
            await forget(directory, newest + 1 - KEPT_NUMBERS);
            return newest + 1;
          }
          await rm(numbered(directory, newest + 1), { force: true });
        }
        continue;
      }
      if (!waited) onWait?.(current.holder);
      waited = true;
      if (performance.now() >= deadline) {
        throw new RatchetError(
          'Unavailable',
          `${directory} is locked by process ${current.holder.pid}, which has not finished within ${boundMs} ms`,
        );
      }
      await delay(POLL_MS);
    }
  } finally {
    await rm(draft, { force: true });
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

async function readHolding(directory: string, number: number): Promise<Holding | null> {
  try {
    return JSON.parse(await readFile(numbered(directory, number), 'utf8')) as Holding;
  } catch (error) {
    // Gone: a newer one exists. Unreadable: written by a machine that lost power before the bytes reached the disk; its holder died with it.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || error instanceof SyntaxError) return null;
    throw error;
  }
}

async function tryLink(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

async function release(directory: string, number: number, mine: Holding): Promise<void> {
  const draft = join(directory, `draft-${mine.token}`);
  try {
    await writeFile(draft, JSON.stringify({ ...mine, released: true }), { mode: 0o600 });
    await rename(draft, numbered(directory, number));
  } catch {
    // A full disk must not keep everybody out until this process ends: without the file the number is free again.
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
