/** Whether any worker would take the work of a queue, from what Temporal knows of who asked it lately. Starts none and asks none. */
import type { Client } from '@temporalio/client';
import { pollersOf, type QueueKind } from '../../workers/pollers.ts';
import { ask } from '../session.ts';

/** `build`: the one that alone may take it; null where any may. */
export async function isServed(client: Client, queue: string, kind: QueueKind, build: string | null = null): Promise<boolean> {
  const pollers = await ask(client, () => pollersOf(client.workflowService, client.options.namespace, queue, kind));
  return pollers.some((poller) => build === null || poller.build === build);
}
