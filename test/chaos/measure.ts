/**
 * What the hurts of a run cost, from the log of what its compute children did: which work was done again, when it went on, and whether anything that
 * was finished was done twice. Arithmetic only.
 */
import type { Event, Struck } from '../support/strike-at.ts';

/** When a hurt hit, and when it was over; at once, for a kill. Milliseconds since 1970. */
export interface Hit {
  struck: Struck;
  endedT: number;
}

export interface Cost {
  /** Seconds of compute repeated because of it, summed over the calls that it hit. */
  lostS: number;
  /** From its end until the call that it hit goes on (or, where that was done, any), in seconds. Null where nothing was left to do. */
  againS: number | null;
}

export interface Counts {
  /** Different stage calls, attempts at them, and steps or episodes that were counted a second time. */
  calls: number;
  attempts: number;
  stepsAgain: number;
  /** Calls whose attempts ran at once, both to the end: a zombie and its successor. One result was kept. */
  twinned: number;
  /** What must not be: work on a call after its result was stored, a key written twice, a step below a checkpoint. */
  problems: string[];
}

interface Attempt {
  intent: string;
  pid: number;
  startT: number;
  lastT: number;
  events: Event[];
  finished: boolean;
}

export function measure(events: readonly Event[], hits: readonly Hit[]): { costs: Cost[]; counts: Counts } {
  const attempts = attemptsOf(events);
  return { costs: costsOf(attempts, events, hits), counts: countsOf(attempts, events) };
}

function attemptsOf(events: readonly Event[]): Attempt[] {
  const open = new Map<number, Attempt>();
  const all: Attempt[] = [];
  for (const event of events) {
    if (event.intent === '') continue;
    if (event.what === 'run') {
      const attempt = { intent: event.intent, pid: event.pid, startT: event.t, lastT: event.t, events: [], finished: false };
      open.set(event.pid, attempt);
      all.push(attempt);
      continue;
    }
    const attempt = open.get(event.pid);
    if (!attempt) continue;
    attempt.events.push(event);
    attempt.lastT = event.t;
    if (event.what === 'result') attempt.finished = true;
    if (event.what === 'result' || event.what === 'failure') open.delete(event.pid);
  }
  return all;
}

/** Progress told by an attempt: work that it did itself. */
const worked = ({ events }: Attempt) => events.filter(({ what }) => what === 'progress');

function costsOf(attempts: Attempt[], events: readonly Event[], hits: readonly Hit[]): Cost[] {
  const lostMs = hits.map(() => 0);
  for (const cut of attempts) {
    if (cut.finished) continue;
    const next = attempts.find((other) => other.intent === cut.intent && other.startT > cut.startT);
    if (!next) continue;
    // The first hurt after its last sign of life; where it went on for a while (cancelled, given up), the last one before its successor.
    const before = hits.map(({ struck }, index) => ({ index, t: struck.t })).filter(({ t }) => t <= next.startT && t >= cut.startT);
    const hit = before.find(({ t }) => t >= cut.lastT - 1) ?? before.at(-1);
    if (hit) lostMs[hit.index] = (lostMs[hit.index] as number) + repeatedMs(cut, next, hit.t);
  }
  return hits.map((hit, index) => ({ lostS: (lostMs[index] as number) / 1000, againS: againS(attempts, events, hit, hits) }));
}

/** How long the next attempt took to get as far as the one that was cut off. */
function repeatedMs(cut: Attempt, next: Attempt, cutT: number): number {
  const reached = worked(cut).at(-1);
  // It had told nothing: all of its time is lost, unless the next one did nothing again either.
  if (!reached) return worked(next).length > 0 ? Math.max(0, cutT - cut.startT) : 0;
  const phases = [...new Set([...worked(cut), ...worked(next)].map(({ phase }) => phase))];
  const place = ({ phase, done = 0 }: Event) => phases.indexOf(phase) * 1e9 + done;
  const again = next.events.find((event) => event.what === 'result' || (event.what === 'progress' && place(event) >= place(reached)));
  return (again?.t ?? next.lastT) - next.startT;
}

function againS(attempts: Attempt[], events: readonly Event[], { struck, endedT }: Hit, hits: readonly Hit[]): number | null {
  const winner = attempts.find(({ intent, finished }) => finished && intent === struck.intent);
  const own = winner?.events.find(({ t }) => t > endedT)?.t;
  const any = events.find(({ t, what }) => t > endedT && (what === 'progress' || what === 'result' || what === 'written'))?.t;
  const at = own ?? any;
  if (at === undefined) return null;
  // Another hurt came in between: it is that one's end from which the work can go on.
  const from = Math.max(endedT, ...hits.filter((other) => other.struck.t < at && other.endedT < at).map((other) => other.endedT));
  return (at - from) / 1000;
}

function countsOf(attempts: Attempt[], events: readonly Event[]): Counts {
  const problems: string[] = [];
  const writtenT = new Map<string, number>();
  for (const { what, key, t } of events) {
    if (what !== 'written' || key === undefined) continue;
    if (writtenT.has(key)) problems.push(`${key} was written twice`);
    else writtenT.set(key, t);
  }
  const calls = Map.groupBy(attempts, ({ intent }) => intent);
  let stepsAgain = 0;
  let twinned = 0;
  for (const [intent, tries] of calls) {
    const storedT = writtenT.get(`stages/${intent}`) ?? Infinity;
    const name = `${tries[0]?.events[0]?.stage ?? 'stage'} ${intent.slice(0, 12)}`;
    if (tries.some((attempt) => attempt.startT > storedT && worked(attempt).length > 0))
      problems.push(`${name}: worked on after its result was stored`);
    if (tries.filter((attempt) => attempt.finished && worked(attempt).length > 0).length > 1) twinned++;
    tries.forEach((attempt, i) => {
      for (const earlier of tries.slice(0, i)) {
        const saved = lastCheckpoint(earlier, attempt.startT);
        const first = saved && worked(attempt).find(({ phase }) => phase === saved.phase);
        if (saved && first && (first.done ?? 0) <= saved.step)
          problems.push(`${name}: step ${first.done} was done again, though a checkpoint held ${saved.step}`);
      }
      const before = tries[i - 1];
      if (before && !before.finished) stepsAgain += countedAgain(before, attempt);
    });
  }
  return { calls: calls.size, attempts: attempts.length, stepsAgain, twinned, problems };
}

/** The newest checkpoint that an attempt had told before `t`, and the phase that it was in. */
function lastCheckpoint({ events }: Attempt, t: number): { step: number; phase: string | undefined } | null {
  const index = events.findLastIndex((event) => event.what === 'checkpoint' && event.t < t);
  if (index < 0) return null;
  const phase = events.slice(0, index).findLast(({ what }) => what === 'progress')?.phase;
  return { step: events[index]?.step ?? 0, phase };
}

function countedAgain(before: Attempt, attempt: Attempt): number {
  const reached = worked(before).at(-1);
  const first = worked(attempt).find(({ phase }) => phase === reached?.phase);
  return reached && first ? Math.max(0, (reached.done ?? 0) - Math.max(0, (first.done ?? 0) - 1)) : 0;
}

/** Quantile q in [0, 1] of the values, the nearest rank (the smallest value that at least a share q does not exceed); null for none. */
export function quantile(values: readonly number[], q: number): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? null;
}
