/**
 * How each kind of hurt is done, once its moment has come. What a process does to itself at that very moment (SIGKILL) stands in `strike-at.ts`; here is
 * the rest: what lasts, what needs somebody outside. Each returns when the hurt is over, and decides nothing about the run.
 */
import { cpSync, existsSync, rmSync, writeFileSync } from 'node:fs';
import { open, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { homePaths } from '../../infra/home.ts';
import { identify, signal, waitUntilGone, type ProcessIdentity } from '../../infra/processes.ts';
import { eventsOf, type Started } from '../support/loop.ts';
import type { Strike, Struck } from '../support/strike-at.ts';
import type { Hurt, Kind } from './plan.ts';
import type { Site } from './site.ts';

/** Who strikes: the struck process itself, or the harness while that process waits for it. */
export const TARGETS: Readonly<Partial<Record<Kind, Strike['target']>>> = {
  'kill-child': 'child',
  'kill-worker': 'worker',
  'kill-temporal': 'temporal',
  'kill-s3': 's3',
};

/** A second worker starts within seconds and takes a call over when its heartbeats have been missing for 10 s. */
const TAKE_OVER_BOUND_MS = 90_000;
const GONE_BOUND_MS = 10_000;
const POLL_MS = 20;
const BALLAST_CHUNK = 1 << 20;

export interface Act {
  site: Site;
  hurt: Hurt;
  struck: Struck;
  /** Lets the struck process go on. */
  go: () => void;
  /** Aborted when the run is over: what lasts ends. */
  over: AbortSignal;
  /** A worker that was brought in; it is drained when the run is over. */
  helper: (worker: Started) => void;
}

type Doing = (act: Act) => Promise<void>;

export const HURTS: Readonly<Record<Exclude<Kind, 'kill-child' | 'kill-worker' | 'kill-temporal' | 'kill-s3' | 'kill-tree'>, Doing>> = {
  'stop-child': ({ struck, ...act }) => stopFor(act, struck.pid),
  'stop-worker': ({ struck, ...act }) => stopFor(act, workerOf(struck)),
  zombie,
  's3-faults': async ({ site, hurt, go, over }) => {
    const given = site.s3!.fail(hurt.faults ?? []);
    go();
    await orOver(given, over);
  },
  'stop-temporal': async ({ site, ...act }) => {
    const server = await site.serverOf('temporal');
    if (server) await stopFor(act, server.pid);
    else act.go();
  },
  'temporal-refused': async ({ site, hurt, go, over }) => {
    await site.temporal!.refuse();
    go();
    await pause(hurt.forMs ?? 0, over);
    await site.temporal!.allow();
  },
  'old-database': async ({ site, go, hurt }) => {
    await putBack(site, copyOf(site, hurt));
    go();
  },
  'disk-full': async ({ site, hurt, go, over }) => {
    const ballast = join(site.disk as string, 'ballast');
    await fill(ballast);
    go();
    await pause(hurt.forMs ?? 0, over);
    rmSync(ballast);
  },
  'clock-jump': async ({ site, hurt, go }) => {
    writeFileSync(join(site.strikes, 'clock'), String(hurt.aheadMs ?? 0));
    go();
  },
};

/** Whether a worker died because a hurt killed it. */
export function wasToDie(worker: number, hurts: readonly Hurt[], struck: readonly (Struck | null)[]): boolean {
  return hurts.some(({ kind }, i) => kind === 'kill-worker' && struck[i] && workerOf(struck[i]) === worker);
}

function workerOf({ isChild, pid, ppid }: Struck): number {
  return isChild ? ppid : pid;
}

async function stopFor({ hurt, go, over }: Pick<Act, 'hurt' | 'go' | 'over'>, pid: number): Promise<void> {
  const target = await identify(pid);
  if (target) await signal(target, 'SIGSTOP');
  go();
  await pause(hurt.forMs ?? 0, over);
  // It may have been killed meanwhile, by another hurt or by whoever watches over it.
  if (target) await signal(target, 'SIGCONT');
}

/** The child of the stopped worker computes on while another worker does the same call. */
async function zombie({ site, struck, go, over, helper }: Act): Promise<void> {
  const worker = await identify(workerOf(struck));
  if (worker) await signal(worker, 'SIGSTOP');
  go();
  helper(site.run(['worker'], join(site.root, 'second')));
  const deadline = performance.now() + TAKE_OVER_BOUND_MS;
  const takenOver = () => eventsOf(site.strikes).some(({ what, intent, t }) => what === 'run' && intent === struck.intent && t > struck.t);
  while (!takenOver() && performance.now() < deadline && !over.aborted) await pause(POLL_MS, over);
  if (worker) await signal(worker, 'SIGCONT');
}

/** Where the copy of a hurt is kept. */
function copyOf(site: Site, { copyAt }: Hurt): string {
  return join(site.root, `database-${JSON.stringify(copyAt).replaceAll(/\W/g, '')}`);
}

/** Copies Temporal's database while the server stands still: what a backup of the disk would hold. */
export async function copyDatabase(site: Site, hurt: Hurt): Promise<void> {
  const server = await site.serverOf('temporal');
  if (server) await signal(server, 'SIGSTOP');
  cpSync(dirname(homePaths(site.home).temporalDatabase), copyOf(site, hurt), { recursive: true });
  if (server) await signal(server, 'SIGCONT');
}

/** Whoever watches over the server stands still meanwhile, as where a person stops it, puts the files back and starts it again. */
async function putBack(site: Site, copy: string): Promise<void> {
  if (!existsSync(copy)) throw new Error(`no copy of the database at ${copy}`);
  const host = await site.host();
  if (host) await signal(host, 'SIGSTOP');
  try {
    const server = await site.serverOf('temporal');
    if (server) await end(server);
    const folder = dirname(homePaths(site.home).temporalDatabase);
    rmSync(folder, { recursive: true });
    cpSync(copy, folder, { recursive: true });
  } finally {
    if (host) await signal(host, 'SIGCONT');
  }
}

async function end(server: ProcessIdentity): Promise<void> {
  await signal(server, 'SIGKILL');
  // Its parent stands still and cannot reap it; what is left of it is no process any more.
  await waitUntilGone(server, GONE_BOUND_MS);
}

/** Writes until nothing more can be written. */
async function fill(path: string): Promise<void> {
  const file = await open(path, 'w');
  const { bsize } = await statfs(dirname(path));
  try {
    for (let chunk = BALLAST_CHUNK; chunk >= bsize;) {
      try {
        const { bytesWritten } = await file.write(Buffer.alloc(chunk));
        if (bytesWritten < chunk) chunk /= 2;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
        chunk /= 2;
      }
    }
  } finally {
    await file.close();
  }
}

/** Passes early when the run is over. */
export async function pause(ms: number, over: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal: over }).catch((error: unknown) => {
    if (!over.aborted) throw error;
  });
}

function orOver(work: Promise<void>, over: AbortSignal): Promise<void> {
  if (over.aborted) return Promise.resolve();
  return new Promise((resolve, reject) => {
    over.addEventListener('abort', () => resolve(), { once: true });
    work.then(resolve, reject);
  });
}
