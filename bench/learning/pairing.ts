/** Comparisons that a busy or throttled machine cannot turn round: contestants take turns in one run, and what is reported is the median of the ratios within turns. */
import type { Answer, Peer } from './peer.ts';

export interface Measured {
  name: string;
  /** Medians over the rounds, in seconds of one unit of work. */
  seconds: number;
  cpuSeconds: number;
  /** The fastest round. */
  best: number;
  /** Median over the rounds of this contestant's time over the first contestant's: above 1, the first is faster. */
  ratio: number;
  /** The same of CPU time; PyTorch's threads spin while they wait, so it speaks against PyTorch on a busy machine. */
  cpuRatio: number;
  peakBytes: number;
  rounds: number;
}

export const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;

/**
 * Lets the peers work in turns: in each round every peer obeys `order` `turns` times, always one order of one peer after another. Ends after `rounds`
 * rounds or, once three are done, after `limitSeconds`.
 */
export async function compare(
  peers: readonly Peer[],
  order: Record<string, unknown>,
  { rounds, turns = 1, limitSeconds = 60 }: { rounds: number; turns?: number; limitSeconds?: number },
): Promise<Measured[]> {
  const seconds: number[][] = peers.map(() => []);
  const cpu: number[][] = peers.map(() => []);
  const last: Answer[] = [];
  const start = performance.now();
  for (let round = 0; round < rounds; round++) {
    if (round >= Math.min(3, rounds) && (performance.now() - start) / 1000 > limitSeconds) break;
    const sums = peers.map(() => ({ seconds: 0, cpuSeconds: 0 }));
    for (let turn = 0; turn < turns; turn++) {
      for (const [i, peer] of peers.entries()) {
        const answer = (last[i] = await peer.ask(order));
        sums[i]!.seconds += answer.seconds / turns;
        sums[i]!.cpuSeconds += answer.cpuSeconds / turns;
      }
    }
    sums.forEach((sum, i) => {
      seconds[i]!.push(sum.seconds);
      cpu[i]!.push(sum.cpuSeconds);
    });
  }
  const over = (times: number[][], i: number) => median(times[i]!.map((time, round) => time / times[0]![round]!));
  return peers.map((peer, i) => ({
    name: peer.name,
    seconds: median(seconds[i]!),
    cpuSeconds: median(cpu[i]!),
    best: Math.min(...seconds[i]!),
    ratio: over(seconds, i),
    cpuRatio: over(cpu, i),
    peakBytes: last[i]!.peakBytes,
    rounds: seconds[i]!.length,
  }));
}
