/**
 * Decision strategies: how an agent turns the policy's distribution over the admissible commands of a state into one command.
 * A strategy is a plug-in: one entry in `strategies`. It draws from the generator it is given and from nowhere else.
 */
import type { Random } from '../core/random.ts';
import { greedyCommand, type ActionTree } from '../learning/action-tree.ts';

/** The policy's view of one state. */
export interface Decision {
  tree: ActionTree;
  /** Log-probabilities of the options at each point of the tree. */
  options: ArrayLike<number>[];
  /** Natural-log probability of each admissible command, at the strategy's temperature. */
  logProbabilities: Float64Array;
  random: Random;
}

/** How to decide, as a recipe says it. */
export type StrategySpec =
  | { kind: 'greedy' }
  | { kind: 'sample'; temperature: number }
  /**
   * Turn-level best-of-N (arXiv 2502.10325, Section 2.4): sample N commands from the policy, execute the one that the PRM scores highest.
   * `policyWeight` adds that multiple of the command's log-probability to the PRM's logit, and `minProbability` drops rare commands: without both,
   * large N picks the commands whose score is wrong.
   */
  | { kind: 'best-of-n'; n: number; temperature: number; policyWeight: number; minProbability: number };

export function temperatureOf(spec: StrategySpec): number {
  return spec.kind === 'greedy' ? 1 : spec.temperature;
}

export function needsScores(spec: StrategySpec): boolean {
  return spec.kind === 'best-of-n';
}

/** A short name for tables and records, e.g. `sample T=1`. */
export function strategyName(spec: StrategySpec): string {
  if (spec.kind === 'greedy') return 'greedy';
  if (spec.kind === 'sample') return `sample T=${spec.temperature}`;
  return `best-of-${spec.n}`;
}

/** The commands among which the reward model is to choose; a single one is executed without asking it. */
export function propose(spec: StrategySpec, decision: Decision): number[] {
  if (decision.logProbabilities.length === 1) return [0];
  switch (spec.kind) {
    case 'greedy':
      return [greedyCommand(decision.tree, decision.options)];
    case 'sample':
      return [sampleCommand(decision.logProbabilities, decision.random)];
    case 'best-of-n': {
      const drawn = new Set<number>();
      for (let i = 0; i < spec.n; i++) drawn.add(sampleCommand(decision.logProbabilities, decision.random));
      const floor = Math.log(spec.minProbability);
      const likely = [...drawn].filter((index) => (decision.logProbabilities[index] as number) >= floor);
      return (likely.length > 0 ? likely : [...drawn]).sort((a, b) => a - b);
    }
  }
}

/** The command to execute among the proposed ones, given the reward model's score logit of each. */
export function choose(spec: StrategySpec, decision: Decision, proposed: number[], scoreLogits: ArrayLike<number>): number {
  const policyWeight = spec.kind === 'best-of-n' ? spec.policyWeight : 0;
  let best = 0;
  let bestValue = -Infinity;
  proposed.forEach((index, i) => {
    const value = (scoreLogits[i] as number) + policyWeight * (decision.logProbabilities[index] as number);
    if (value > bestValue) {
      best = index;
      bestValue = value;
    }
  });
  return best;
}

/** One draw by inverting the cumulative distribution. */
export function sampleCommand(logProbabilities: Float64Array, random: Random): number {
  let left = random.uniform();
  for (let i = 0; i < logProbabilities.length; i++) {
    left -= Math.exp(logProbabilities[i] as number);
    if (left < 0) return i;
  }
  return logProbabilities.indexOf(Math.max(...logProbabilities));
}

/** `k` distinct commands without replacement (Gumbel-top-k, arXiv 1903.06059), likeliest draws first, among those at least as likely as `minProbability`. */
export function distinctCommands(logProbabilities: ArrayLike<number>, k: number, minProbability: number, random: Random): number[] {
  const floor = Math.log(minProbability);
  const keyed: { index: number; key: number }[] = [];
  for (let index = 0; index < logProbabilities.length; index++) {
    const logProbability = logProbabilities[index] as number;
    const key = logProbability + random.gumbel();
    if (logProbability >= floor) keyed.push({ index, key });
  }
  keyed.sort((a, b) => b.key - a.key || a.index - b.index);
  return keyed.slice(0, k).map(({ index }) => index);
}
