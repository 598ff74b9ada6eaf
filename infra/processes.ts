/**
 * Which process is which: a pid alone can be reused, so a process is known by its pid and the moment the kernel started it.
 * It refuses to signal a pid whose start time is not the one remembered: what cannot be proven to be ours is left alone.
 */
import { execFile } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';

/** A process, across restarts of this program and of the machine. */
export interface ProcessIdentity {
  pid: number;
  /** Opaque: equal exactly when it is the same process. On Linux the boot and the clock tick of the start, elsewhere the start time of `ps`. */
  startedAt: string;
}

const run = promisify(execFile);
/** `ps` answers in milliseconds; a machine on which it takes this long is not going to start servers. */
const PS_BOUND_MS = 10_000;
const POLL_MS = 25;
/** From SIGKILL until the kernel has removed the process: long only for one that sits in a write to a slow disk. */
const KILL_BOUND_MS = 10_000;
const hasProc = existsSync('/proc/self/stat');

/** null where there is no such process, or only its unreaped remains. */
export async function identify(pid: number): Promise<ProcessIdentity | null> {
  if (!Number.isInteger(pid) || pid <= 0) return null;
  if (hasProc) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      // The name in parentheses may itself hold parentheses and spaces; after the last one come the state (field 3) and, as field 22, the start.
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (fields[0] === 'Z' || fields[0] === 'X') return null;
      return { pid, startedAt: `${bootId()}:${fields[19]}` };
    } catch (error) {
      if (isGone(error)) return null;
      throw error;
    }
  }
  try {
    const { stdout } = await run('ps', ['-o', 'state=,lstart=', '-p', String(pid)], { timeout: PS_BOUND_MS });
    const line = stdout.trim();
    return !line || line.startsWith('Z') ? null : { pid, startedAt: line.replace(/^\S+\s+/, '') };
  } catch (error) {
    // `ps` exits with 1 when no process matches.
    if ((error as { code?: unknown }).code === 1) return null;
    throw error;
  }
}

export async function isAlive(process: ProcessIdentity | null | undefined): Promise<boolean> {
  if (!process) return false;
  return (await identify(process.pid))?.startedAt === process.startedAt;
}

let self: Promise<ProcessIdentity> | undefined;
export function thisProcess(): Promise<ProcessIdentity> {
  self ??= identify(process.pid).then((found) => found ?? { pid: process.pid, startedAt: 'unknown' });
  return self;
}

/** Processes whose command line holds all of these arguments, such as the path of our own database: how an unrecorded orphan of ours is recognised. */
export async function processesWithArguments(wanted: readonly string[]): Promise<ProcessIdentity[]> {
  const pids: number[] = [];
  if (hasProc) {
    for (const entry of readdirSync('/proc')) {
      if (!/^\d+$/.test(entry)) continue;
      try {
        const given = readFileSync(`/proc/${entry}/cmdline`, 'utf8').split('\0');
        if (wanted.every((argument) => given.includes(argument))) pids.push(Number(entry));
      } catch (error) {
        if (!isGone(error)) throw error;
      }
    }
  } else {
    const { stdout } = await run('ps', ['-axo', 'pid=,args='], { timeout: PS_BOUND_MS, maxBuffer: 1 << 26 });
    for (const line of stdout.split('\n')) {
      if (wanted.every((argument) => `${line} `.includes(` ${argument} `))) pids.push(Number.parseInt(line, 10));
    }
  }
  const found = await Promise.all(pids.filter((pid) => pid !== process.pid).map(identify));
  return found.filter((one) => one !== null);
}

/** SIGTERM, at most `graceMs` for a clean end, then SIGKILL. Returns how it ended; a process that is not the remembered one is not touched. */
export async function endProcess(target: ProcessIdentity, graceMs: number): Promise<'gone' | 'terminated' | 'killed'> {
  if (!(await signal(target, 'SIGTERM'))) return 'gone';
  if (await waitUntilGone(target, graceMs)) return 'terminated';
  await signal(target, 'SIGKILL');
  if (await waitUntilGone(target, KILL_BOUND_MS)) return 'killed';
  throw new Error(`process ${target.pid} is still there ${KILL_BOUND_MS} ms after SIGKILL`);
}

/** False where the process is gone already. */
export async function signal(target: ProcessIdentity, name: NodeJS.Signals): Promise<boolean> {
  if (!(await isAlive(target))) return false;
  try {
    process.kill(target.pid, name);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}

export async function waitUntilGone(target: ProcessIdentity, boundMs: number): Promise<boolean> {
  const deadline = performance.now() + boundMs;
  while (await isAlive(target)) {
    if (performance.now() >= deadline) return false;
    await delay(POLL_MS);
  }
  return true;
}

let boot: string | undefined;
/** Distinguishes equal start ticks after a reboot. */
function bootId(): string {
  // Its first group of digits will do, and keeps identities short enough for the target of a link that needs no block of the disk.
  boot ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').split('-')[0]!;
  return boot;
}

/** The process ended between two looks, or belongs to somebody else and hides itself. */
function isGone(error: unknown): boolean {
  return ['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '');
}
