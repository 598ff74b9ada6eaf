/**
 * The improvement loop with a last word: where it ends before its time, the worker is told how, so that the store remembers it after Temporal has forgotten
 * the run. A sink and no activity: it is no part of the history, and whoever is cancelled or fails has not to wait for anything.
 */
import { isCancellation, proxySinks, rootCause, TemporalFailure, type Sinks } from '@temporalio/workflow';
import type { Ending } from '../artifacts/ending.ts';
import { improvementLoop as loop, type LoopInput, type LoopResult } from './durable-loop.ts';

export interface EndingSinks extends Sinks {
  runs: { ended(ending: Pick<Ending, 'state' | 'reason'>): void };
}

const { runs } = proxySinks<EndingSinks>();

export async function improvementLoop(input: LoopInput): Promise<LoopResult> {
  try {
    const result = await loop(input);
    if (result.stopped) runs.ended({ state: 'stopped', reason: null });
    return result;
  } catch (error) {
    // What is no failure of Temporal's fails the workflow task, not the run: it is tried again, by better code perhaps.
    if (isCancellation(error)) runs.ended({ state: 'cancelled', reason: null });
    else if (error instanceof TemporalFailure) runs.ended({ state: 'failed', reason: rootCause(error) ?? error.message });
    throw error;
  }
}
