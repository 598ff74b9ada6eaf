/**
 * What Linux tells about memory that ran out: how many processes it has killed for it. A SIGKILL does not say who sent it, so a count that rose while a child
 * was killed is the best evidence there is. Elsewhere nothing is known, and nothing is claimed.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Between a service (0) and a process that should go first (1000): ahead of workers and servers, behind what a person marked as expendable. */
const VICTIM_SCORE = 500;

/**
 * Processes killed for want of memory: in this process's control group, whose bound is the usual cause in a container; where there is none, since boot on the
 * whole machine. Null where the system does not count.
 */
export function kernelKills(root = '/'): number | null {
  const group = /^0::(\/.*)$/m.exec(read(join(root, 'proc/self/cgroup')) ?? '')?.[1];
  const events = group === undefined ? null : read(join(root, 'sys/fs/cgroup', group, 'memory.events'));
  const count = /^oom_kill (\d+)$/m.exec(events ?? read(join(root, 'proc/vmstat')) ?? '')?.[1];
  return count === undefined ? null : Number(count);
}

/** Lets the kernel choose `pid` before others. A process may always be made a likelier victim; where that fails the kernel chooses by size, as it would have. */
export function preferAsVictim(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, String(VICTIM_SCORE));
  } catch {
    // Not Linux, or the child is gone already.
  }
}

function read(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null; // This system, or this kind of control group, has no such file.
  }
}
