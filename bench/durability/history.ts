/** What a run's histories say about its activities: how long they waited for a worker and ran, and when none ran. Continued executions count as one run. */
import type { Client } from '@temporalio/client';

export interface ActivitySums {
  count: number;
  /** Between being scheduled and being taken by a worker, in seconds, summed. */
  waited: number;
  ran: number;
}

interface Span {
  start: number;
  end: number;
}
export interface RunHistory {
  sums: Record<string, ActivitySums>;
  /** When activities ran, in seconds. */
  spans: Span[];
  /** From the first event to the last, in seconds. */
  whole: Span;
}

interface Time {
  seconds?: unknown;
  nanos?: number | null;
}
const seconds = (time: Time | null | undefined) => Number(time?.seconds ?? 0) + (time?.nanos ?? 0) / 1e9;

export async function activitiesOf(client: Client, workflowId: string): Promise<RunHistory> {
  const sums: Record<string, ActivitySums> = {};
  const spans: Span[] = [];
  const whole = { start: Infinity, end: -Infinity };
  let runId: string | undefined;
  do {
    const { events } = await client.workflow.getHandle(workflowId, runId).fetchHistory();
    runId = undefined;
    const open = new Map<string, { name: string; scheduled: number; started: number }>();
    for (const event of events ?? []) {
      const at = seconds(event.eventTime);
      whole.start = Math.min(whole.start, at);
      whole.end = Math.max(whole.end, at);
      runId ??= event.workflowExecutionStartedEventAttributes?.continuedExecutionRunId || undefined;
      const scheduled = event.activityTaskScheduledEventAttributes;
      if (scheduled) open.set(String(event.eventId), { name: scheduled.activityType?.name ?? '?', scheduled: at, started: at });
      const started = event.activityTaskStartedEventAttributes;
      if (started) open.get(String(started.scheduledEventId))!.started = at;
      const completed = event.activityTaskCompletedEventAttributes;
      if (!completed) continue;
      const { name, scheduled: asked, started: began } = open.get(String(completed.scheduledEventId))!;
      const sum = (sums[name] ??= { count: 0, waited: 0, ran: 0 });
      sum.count++;
      sum.waited += began - asked;
      sum.ran += at - began;
      spans.push({ start: began, end: at });
    }
  } while (runId !== undefined);
  return { sums, spans, whole };
}

/** Seconds of the run in which no activity ran, and its seconds in all. */
export function idleSeconds({ spans, whole }: RunHistory): { idleSeconds: number; workflowSeconds: number } {
  let [covered, until] = [0, whole.start];
  for (const { start, end } of spans.toSorted((a, b) => a.start - b.start)) {
    covered += Math.max(0, end - Math.max(start, until));
    until = Math.max(until, end);
  }
  return { idleSeconds: whole.end - whole.start - covered, workflowSeconds: whole.end - whole.start };
}
