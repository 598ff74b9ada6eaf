/**
 * Pair truth: is what the PRM preferred really better? Each sampled pair of commands is continued from its state by fresh rollouts of the policy whose Q
 * it is; the difference of their mean discounted returns is the truth beside the predicted difference. It decides where preference accuracy says nothing.
 */
import type { Episode, Estimate } from '../core/nouns.ts';
import { Random, type RandomKey } from '../core/random.ts';
import { mean, meanEstimate, standardDeviation } from '../core/statistics.ts';
import { returnsToGo } from '../rewards/outcome-table.ts';
import type { Slot } from './collector.ts';
import type { PairSample } from './updates/online-dpo.ts';

export interface PairTruth {
  pairs: number;
  continuations: number;
  /** Mean predicted difference in Q, chosen minus rejected. */
  predicted: number;
  /** Mean true difference in return with its 95 % interval. */
  truth: Estimate;
  /** Standard errors by which the true difference is above 0. */
  standardErrors: number;
  /** Share of the pairs with a true difference beyond 0.2 either way whose sign was predicted rightly, and how many those are. */
  signAccuracy: number;
  decided: number;
}

/** True differences smaller than this are within the noise of a few continuations. */
const DECIDED_DIFFERENCE = 0.2;

/** `count` of the pairs, drawn without replacement. */
export function samplePairs(pairs: readonly PairSample[], count: number, key: RandomKey): PairSample[] {
  return new Random([...key, 'pairs']).shuffled(pairs).slice(0, count);
}

/** The rollouts that answer the question: for each pair, `continuations` of the chosen command, then as many of the rejected one. */
export function truthSlots(pairs: readonly PairSample[], continuations: number): Slot[] {
  return pairs.flatMap((pair, p) =>
    [pair.chosen, pair.rejected].flatMap((command, side) =>
      Array.from({ length: continuations }, (_, k) => ({
        task: pair.task,
        family: pair.family,
        repeat: (p * 2 + side) * continuations + k,
        prefix: [...pair.prefix, command],
      })),
    ),
  );
}

/** The verdict, from the episodes of `truthSlots` in their order. */
export function pairTruth(pairs: readonly PairSample[], episodes: readonly Episode[], continuations: number, discount: number): PairTruth {
  const judged: { pair: PairSample; difference: number }[] = [];
  pairs.forEach((pair, p) => {
    const at = p * 2 * continuations;
    const [chosen, rejected] = [at, at + continuations].map((from) =>
      episodes
        .slice(from, from + continuations)
        .filter((episode) => episode.ending.kind === 'completed')
        .map((episode) => returnsToGo(episode, discount)[pair.prefix.length] as number),
    ) as [number[], number[]];
    // A side without a completed continuation says nothing; it is not a return of 0.
    if (chosen.length > 0 && rejected.length > 0) judged.push({ pair, difference: mean(chosen) - mean(rejected) });
  });
  const differences = judged.map(({ difference }) => difference);
  const decided = differences.filter((difference) => Math.abs(difference) > DECIDED_DIFFERENCE);
  const standardError = standardDeviation(differences) / Math.sqrt(Math.max(1, differences.length));
  return {
    pairs: judged.length,
    continuations,
    predicted: mean(judged.map(({ pair }) => pair.chosenQ - pair.rejectedQ)),
    truth: meanEstimate(differences),
    standardErrors: standardError === 0 ? 0 : mean(differences) / standardError,
    signAccuracy: decided.length === 0 ? 0 : decided.filter((difference) => difference > 0).length / decided.length,
    decided: decided.length,
  };
}
