/** What can be seen of a run at one moment, as data; `cli/live/display.ts` makes text of it, `status --json` prints it. */
import type { Control } from '../../workflows/durable-loop.ts';
import type { Phase } from '../../workflows/improvement-loop.ts';
import type { RunRecords } from '../records.ts';
import type { Close, Work } from './activity-log.ts';

/** How a run ended; `unknown`: Temporal has no run of this id, so that it can only be taken up from the store. */
export type Outcome = Exclude<Close, { kind: 'continued' }> | { kind: 'stopped' } | { kind: 'unknown' };

export interface LiveView {
  runId: string;
  recipe: { name: string; method: string; scale: string; seed: number; iterations: number } | null;
  /** Null while the run goes on. */
  outcome: Outcome | null;
  /** What the loop is doing; null before its first step. */
  phase: Phase | null;
  /** The iteration at hand; 0 is the warm start. */
  iteration: number | null;
  control: Control;
  work: Work[];
  /** Milliseconds until the work of this phase is done, as far as anybody can tell. */
  leftMs: number | null;
  elapsedMs: number | null;
  /** Why the run does not get on; empty while it does. */
  waiting: string[];
  records: RunRecords | null;
}
