/**
 * Generation of a planned list of requests: they join the batch in the order of the list, each as soon as the rows that it needs are free. So what is
 * computed together follows from the list alone, and the same list gives the same bytes. For requests that come while others run see `serving/`.
 */
import { RatchetError } from '../core/errors.ts';
import { ContinuousBatch } from './continuous-batch.ts';
import type { GenerationEvent } from './continuous-batch.ts';
import type { GenerationRequest, GenerationResult } from './generation.ts';
import type { Decoder } from './types.ts';

/** Results in the order of the requests. The decoder's rows must be clear, and are clear afterwards. BadInput names the request. */
export async function generate(
  decoder: Decoder,
  requests: readonly GenerationRequest[],
  options: { context: number; decode?: (ids: readonly number[]) => string },
): Promise<GenerationResult[]> {
  const batch = new ContinuousBatch<number>(decoder, options);
  requests.forEach((request, i) => {
    try {
      batch.check(request);
    } catch (error) {
      if (error instanceof RatchetError) throw new RatchetError(error.type, `requests[${i}].${error.message}`);
      throw error;
    }
  });
  const results = requests.map(({ samples }) => emptyResult(samples));
  let next = 0;
  try {
    while (next < requests.length || batch.size > 0) {
      while (next < requests.length && batch.fits(requests[next]!)) batch.add(next, requests[next++]!);
      for (const event of await batch.step()) record(results[event.id]!, event);
    }
  } finally {
    for (let row = 0; row < decoder.rows; row++) decoder.clear(row);
  }
  return results;
}

export const emptyResult = (samples: number): GenerationResult => ({
  reusedTokens: 0,
  samples: Array.from({ length: samples }, () => ({ tokens: [], finish: 'length', stoppedBy: null, text: '' })),
});

/** Adds what an event says to a result. The `text` of a finished sample is all of its text. */
export function record(result: GenerationResult, event: GenerationEvent<unknown>): void {
  if (event.kind === 'begin') result.reusedTokens = event.reused;
  else if (event.kind === 'prompt') result.promptLogProbabilities = event.logProbabilities;
  else if (event.kind === 'choices') {
    result.choiceLogProbabilities = event.logProbabilities;
    result.drawnChoiceLogProbabilities = event.drawnLogProbabilities;
  } else {
    const sample = result.samples[event.sample]!;
    if (event.kind === 'token') {
      sample.tokens.push(event.token);
      sample.text += event.token.text;
    } else {
      const { finish, stoppedBy, choice, text } = event;
      Object.assign(sample, { finish, stoppedBy, text: sample.text + text, ...(choice === undefined ? {} : { choice }) });
    }
  }
}
