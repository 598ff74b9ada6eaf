/**
 * What is under way in those to whom a run handed shards, of whom a few are under way at a time. Their histories are not followed: of one that fails, the
 * end is read.
 */
import type { Client } from '@temporalio/client';
import { ask } from '../session.ts';
import { bugAfter } from './activity-log.ts';
import type { Situation } from './waits.ts';

/** More than comes in while a decision fails: what its shards report. */
const LAST_EVENTS = 200;

type Raw = Awaited<ReturnType<ReturnType<Client['workflow']['getHandle']>['describe']>>['raw'];
export type Child = { workflowId: string; raw: Raw };

/** `raw`: Temporal's description of the run. */
export function childrenOf(client: Client, raw: Raw): Promise<Child[]> {
  const begun = (raw.pendingChildren ?? []).filter(({ runId }) => runId);
  return Promise.all(
    // Whatever execution goes on under this id: one that began again is another than the run knows.
    begun.map(async ({ workflowId }) => {
      const child = await ask(client, () => client.workflow.getHandle(workflowId ?? '').describe());
      return { workflowId: child.workflowId, raw: child.raw };
    }),
  );
}

/** What the code of one of them fails of, and how often it was tried. */
export async function bugIn(client: Client, children: readonly Child[]): Promise<Situation['bug']> {
  for (const { workflowId, raw } of children) {
    const attempt = raw.pendingWorkflowTask?.attempt ?? 0;
    if (attempt < 2) continue;
    const request = { namespace: client.options.namespace, execution: { workflowId }, maximumPageSize: LAST_EVENTS };
    const { history } = await ask(client, () => client.workflowService.getWorkflowExecutionHistoryReverse(request));
    const failure = (history?.events ?? []).reduceRight<string | null>((before, event) => bugAfter(event, before), null);
    if (failure !== null) return { failure, attempt };
  }
  return null;
}
