/** Why a run does not get on, in words: from the attempts that failed, the queues that nobody serves, and the servers of this machine. */
import type { ServersStatus } from '../../infra/servers.ts';
import { duration } from '../format.ts';

/** An activity as Temporal describes it between two events of its history. */
export interface Pending {
  id: string;
  stage: string;
  queue: string | null;
  /** `running` at a worker, or `waiting` for one. */
  state: 'running' | 'waiting';
  /** Its worker was one of this machine and is dead. */
  lost: boolean;
  attempt: number;
  failure: string | null;
  /** When the next attempt may start; null where nothing holds it back. */
  nextAttemptAtMs: number | null;
  scheduledAtMs: number;
}

export interface Situation {
  nowMs: number;
  pending: readonly Pending[];
  /** Queues of the waiting work, and of the workflow itself, that no worker polls. */
  unserved: readonly string[];
  /** The workflow's own code failed; Temporal has it tried again for as long as it does. */
  bug: { failure: string; attempt: number } | null;
  servers: ServersStatus | null;
  /** A process of this machine keeps workers up: they are on their way. */
  hosted: boolean;
  /** The servers run for this command alone, so nobody has worked with them. */
  borrowed: boolean;
}

/** One line per reason, the most general first. Empty while the work goes on. */
export function waitingFor({ nowMs, pending, unserved, bug, servers, hosted, borrowed }: Situation): string[] {
  const reasons: string[] = [];
  if (servers?.disk?.full)
    reasons.push(
      `the disk is full: ${servers.disk.freeBytes} bytes are free where the servers keep their data; the run goes on when there is room`,
    );
  for (const [name, title] of [
    ['temporal', 'Temporal'],
    ['s3', 'the S3 server'],
  ] as const) {
    const status = servers?.[name];
    if (status && status.state !== 'running' && status.state !== 'external' && status.state !== 'absent')
      reasons.push(`${title} is ${status.state}${status.reason ? `: ${status.reason}` : ''}`);
  }
  if (borrowed) return [...reasons, 'interrupted: nothing is up on this machine; `npm start` or `npx ratchet up` goes on'];
  if (bug !== null)
    reasons.push(
      `a bug in the loop's own code (try ${bug.attempt}): ${bug.failure}; the run goes on by itself where mended code is deployed`,
    );
  if (unserved.length > 0 && hosted) reasons.push('the workers of this machine are being started');
  else
    for (const queue of unserved) {
      const role = queue.slice(queue.lastIndexOf('-') + 1);
      reasons.push(`no worker serves the queue ${queue}; start one with \`npx ratchet up\` or \`npx ratchet worker --queues ${role}\``);
    }
  const lost = pending.filter((each) => each.lost);
  if (lost.length > 0)
    reasons.push(`${[...new Set(lost.map(({ stage }) => stage))].join(', ')}: the worker died; another takes over within seconds`);
  const failing = new Map<string, Pending[]>();
  for (const each of pending) {
    // A drained worker's work goes on elsewhere at once: no failure to speak of.
    if (each.failure === null || each.failure.startsWith('Stopped:') || each.attempt < 2 || each.lost || each.state === 'running') continue;
    const key = `${each.stage} ${each.failure}`;
    failing.set(key, [...(failing.get(key) ?? []), each]);
  }
  for (const same of failing.values()) {
    const first = same[0] as Pending;
    const next = Math.min(...same.map(({ nextAttemptAtMs }) => nextAttemptAtMs ?? nowMs));
    const when = next > nowMs ? `next attempt in ${duration(next - nowMs)}` : 'next attempt now';
    reasons.push(
      `${first.stage}${same.length > 1 ? ` (${same.length} shards)` : ''}: attempt ${first.attempt} after ${first.failure}; ${when}`,
    );
  }
  return reasons;
}
