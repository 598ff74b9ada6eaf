/** Whether any worker would take the work of a queue, from what Temporal knows of who asked it lately. Starts none and asks none. */
import type { Client } from '@temporalio/client';
import { optionalTsToMs } from '@temporalio/common';
import { hostname } from 'node:os';
import { identify } from '../../infra/processes.ts';
import { ask } from '../session.ts';

/** `temporal.api.enums.v1.TaskQueueType`. */
export const QUEUE_KIND = { workflow: 1, activity: 2 } as const;

/** A worker asks its queue again at least once a minute; one that has not for this long is gone. */
const POLLER_BOUND_MS = 75_000;

export async function isServed(client: Client, queue: string, kind: 1 | 2): Promise<boolean> {
  const { namespace } = client.options;
  const request = { namespace, taskQueue: { name: queue }, taskQueueType: kind };
  const { pollers } = await ask(client, () => client.workflowService.describeTaskQueue(request));
  for (const { lastAccessTime, identity } of pollers ?? []) {
    const recent = Date.now() - (optionalTsToMs(lastAccessTime) ?? 0) < POLLER_BOUND_MS;
    if (recent && !(await isDeadHere(identity ?? ''))) return true;
  }
  return false;
}

/** Workers call themselves `<host>/<pid>`: of one of this machine it can be known at once that it died. */
export async function isDeadHere(identity: string): Promise<boolean> {
  const [host, pid] = identity.split('/');
  return host === hostname() && (await identify(Number(pid))) === null;
}
