/** Who serves a task queue, as Temporal and this machine know it. Only looks; loads no native worker. */
import { optionalTsToMs } from '@temporalio/common';
import type { WorkflowService } from '@temporalio/client';
import { hostname } from 'node:os';
import { identify } from '../infra/processes.ts';

/** A worker asks its queue again at least once a minute; one that has not for this long is gone. */
const POLLER_BOUND_MS = 75_000;
/** `temporal.api.enums.v1.TaskQueueType`. */
export const QUEUE_KIND = { workflow: 1, activity: 2 } as const;
export type QueueKind = (typeof QUEUE_KIND)[keyof typeof QUEUE_KIND];

export interface Poller {
  /** `<host>/<pid>`. */
  identity: string;
  /** Its build id; null for one that tells none. */
  build: string | null;
}

/** The workers that poll a queue, without those that are known to be dead. One question to Temporal. */
export async function pollersOf(service: WorkflowService, namespace: string, queue: string, kind: QueueKind): Promise<Poller[]> {
  const { pollers } = await service.describeTaskQueue({ namespace, taskQueue: { name: queue }, taskQueueType: kind });
  const living: Poller[] = [];
  for (const { lastAccessTime, identity, deploymentOptions } of pollers ?? []) {
    const recent = Date.now() - (optionalTsToMs(lastAccessTime) ?? 0) < POLLER_BOUND_MS;
    if (recent && !(await isDeadHere(identity ?? ''))) living.push({ identity: identity ?? '', build: deploymentOptions?.buildId || null });
  }
  return living;
}

/** The build that new work of a queue goes to, where an operator has named one. */
export async function currentBuildOf(service: WorkflowService, namespace: string, queue: string, kind: QueueKind): Promise<string | null> {
  const { versioningInfo } = await service.describeTaskQueue({ namespace, taskQueue: { name: queue }, taskQueueType: kind });
  return versioningInfo?.currentDeploymentVersion?.buildId || null;
}

/** Workers call themselves `<host>/<pid>`: of one of this machine it can be known at once that it died. */
export async function isDeadHere(identity: string): Promise<boolean> {
  const [host, pid] = identity.split('/');
  return host === hostname() && (await identify(Number(pid))) === null;
}
