/** What is measured, one function a section, for one size or series at a time, so that little is lost where one fails. Each returns rows; none prints. */
import { THREADS, batchFile, modelFolder, ours, theirs, withFolder, withPeers } from './contestants.ts';
import { compare } from './pairing.ts';
import type { Measured } from './pairing.ts';
import type { Answer } from './peer.ts';
import { BATCH, VOCABULARY, configOf } from './sizes.ts';
import type { Effort, Size } from './sizes.ts';
import { CYCLE, ROLLOUT, denseBatch, raggedBatch } from './workload.ts';
import type { Sequence } from './workload.ts';

export interface Row extends Measured {
  section: string;
  size: string;
  /** Units of one measured work (tokens, turns of one episode) a second, from the median. */
  perSecond: number;
  unit: string;
  /** Floating-point operations a second that the model itself asks for, from the median, where that is known. */
  gflops?: number;
}

/** Rounds of a comparison: `full`, fewer where only an impression is wanted. */
const roundsOf = (effort: Effort, full: number, quick: number) => ({ full, quick, check: 1 })[effort];
/** Fewer tokens in a micro-batch pay more often for what is done once for all weights than its better fit is worth. */
const LEAST_TOKENS = 350;
/** Micro-batches of a step: four for each lane where they are large enough, at least one. */
const microBatchesOf = (tokens: number) => Math.max(THREADS, Math.min(4 * THREADS, Math.floor(tokens / LEAST_TOKENS)));

/** Operations of a training step: a multiplication and an addition for each weight and token, three times (forward, two gradients), and causal attention. */
export function trainingOperations(size: Size, sequences: number, tokens: number, vocabulary = VOCABULARY): number {
  const { layers, width, feedForward } = size;
  const weights = layers * (4 * width * width + 3 * width * feedForward) + vocabulary * width;
  return 3 * sequences * tokens * (2 * weights + layers * 2 * width * tokens);
}

async function training(folder: string, size: Size, batch: Sequence[], kinds: string[], effort: { rounds: number; limitSeconds: number }) {
  const model = modelFolder(folder, configOf(size));
  const file = batchFile(folder, batch);
  const tokens = batch.reduce((sum, { ids }) => sum + ids.length, 0);
  const peers = [
    ours('ours-training.ts'),
    ...kinds.map((kind) => theirs(kind === 'eager' ? 'HF eager' : 'compiled PyTorch', 'training.py')),
  ];
  return withPeers(peers, async () => {
    const losses: number[] = [];
    for (const [i, peer] of peers.entries()) {
      await peer.ask({
        order: 'prepare',
        model,
        batch: file,
        microBatches: microBatchesOf(tokens),
        kind: kinds[i - 1],
        lanes: THREADS,
        threads: THREADS,
      });
      const warm = await peer.ask({ order: 'step', count: 3 });
      losses.push((warm['losses'] as number[])[2]!);
    }
    // Equal work: after two optimizer steps from the same weights the losses still agree.
    if (losses.some((loss) => !(Math.abs(loss - losses[0]!) < 1e-3)))
      throw new Error(`the contestants compute different losses: ${losses.join(', ')}`);
    return compare(peers, { order: 'step', count: 1 }, effort);
  });
}

/** Training steps on full rows, every position counts: against transformers and against compiled PyTorch. */
export function dense(size: Size, effort: Effort): Promise<Row[]> {
  return withFolder(async (folder) => {
    const batch = denseBatch(BATCH.sequences, BATCH.tokens, VOCABULARY);
    const measured = await training(folder, size, batch, ['eager', 'compiled'], { rounds: roundsOf(effort, 25, 5), limitSeconds: 45 });
    const operations = trainingOperations(size, BATCH.sequences, BATCH.tokens);
    return measured.map((one) => ({
      section: 'training, full rows',
      size: size.name,
      ...one,
      perSecond: (BATCH.sequences * BATCH.tokens) / one.seconds,
      unit: 'tokens',
      gflops: operations / one.seconds / 1e9,
    }));
  });
}

/** Training steps on demonstrations of the household world: packed here, padded there; only the tokens of commands count. */
export function ragged(size: Size, effort: Effort): Promise<Row[]> {
  return withFolder(async (folder) => {
    const batch = raggedBatch(32);
    const tokens = batch.reduce((sum, { ids }) => sum + ids.length, 0);
    const measured = await training(folder, size, batch, ['eager'], { rounds: roundsOf(effort, 15, 5), limitSeconds: 30 });
    return measured.map((one) => ({
      section: 'training, ragged episodes',
      size: size.name,
      ...one,
      perSecond: tokens / one.seconds,
      unit: 'tokens',
    }));
  });
}

/** Turns of 64 live episodes. Over a whole cycle the static cache is as full on average as ours; `generate` is measured by the turn. */
export function rollouts(size: Size, effort: Effort): Promise<Row[]> {
  return withFolder(async (folder) => {
    const model = modelFolder(folder, configOf(size));
    const numbers = { model, cycle: CYCLE, lanes: THREADS, threads: THREADS, ...ROLLOUT };
    const peers = [ours('ours-rollouts.ts'), theirs('static-cache PyTorch', 'rollouts.py')];
    const loop = [peers[0]!, theirs('HF generate loop', 'rollouts.py')];
    return withPeers([...peers, loop[1]!], async () => {
      for (const [peer, kind] of [[peers[0]!], [peers[1]!, 'static'], [loop[1]!, 'generate']] as const) {
        await peer.ask({ order: 'prepare', ...numbers, ...(kind && { kind }) });
        await peer.ask({ order: 'turns', count: kind === 'generate' ? 1 : CYCLE });
      }
      const steady = await compare(peers, { order: 'turns', count: 1 }, { rounds: roundsOf(effort, 5, 2), turns: CYCLE, limitSeconds: 25 });
      const usual = await compare(loop, { order: 'turns', count: 1 }, { rounds: roundsOf(effort, 3, 1), limitSeconds: 15 });
      return [...steady, usual[1]!].map((one) => ({
        section: 'rollouts',
        size: size.name,
        ...one,
        perSecond: ROLLOUT.rows / one.seconds,
        unit: 'turns',
      }));
    });
  });
}

export interface Gemm {
  shape: string;
  ours: number;
  theirs: number;
}

/** GFLOP/s of plain matrix products of the models' shapes on both cores: the roofline. */
export async function roofline(effort: Effort): Promise<Gemm[]> {
  const shapes = [
    [512, 128, 384],
    [512, 256, 768],
    [512, 384, 1152],
    [1152, 512, 384],
    [1024, 1024, 1024],
  ] as const;
  return withPeers([ours('ours-gemm.ts'), theirs('PyTorch', 'gemm.py')], async (peers) => {
    for (const peer of peers) await peer.ask({ order: 'prepare', lanes: THREADS, threads: THREADS });
    const out: Gemm[] = [];
    for (const [m, k, n] of effort === 'full' ? shapes : shapes.slice(0, 2)) {
      const best: number[] = [0, 0];
      for (let round = 0; round < 3; round++)
        for (const [i, peer] of peers.entries())
          best[i] = Math.max(best[i]!, (await peer.ask({ order: 'multiply', m, k, n, count: 8 }))['gflops'] as number);
      out.push({ shape: `${m} x ${k} x ${n}`, ours: best[0]!, theirs: best[1]! });
    }
    return out;
  });
}

interface Point {
  x: number;
  size: Size;
  sequences: number;
  tokens: number;
  vocabulary: number;
}
/** What grows, and the training steps that are timed. */
export interface Series {
  title: string;
  x: string;
  points: Point[];
}
export interface Growth {
  title: string;
  x: string;
  points: { x: number; ours: Answer; theirs: Answer }[];
}

const parameters = ({ layers, width, feedForward }: Size) => layers * (4 * width ** 2 + 3 * width * feedForward) + 2 * VOCABULARY * width;

/** One thing grows while the others stay. */
export function growthSeries(sizes: readonly Size[]): Series[] {
  const still = { size: sizes[0]!, sequences: 16, tokens: 256, vocabulary: VOCABULARY };
  const point = (x: number, change: Partial<Point>): Point => ({ x, ...still, ...change });
  return [
    { title: 'batch', x: 'sequences of 256 tokens', points: [4, 8, 16, 32, 64].map((x) => point(x, { sequences: x })) },
    {
      title: 'context',
      x: 'tokens of a sequence (4,096 in all)',
      points: [64, 128, 256, 512, 1024].map((x) => point(x, { tokens: x, sequences: 4096 / x })),
    },
    { title: 'vocabulary', x: 'tokens in the vocabulary', points: [500, 1000, 4000, 16_000].map((x) => point(x, { vocabulary: x })) },
    {
      title: 'parameters',
      x: 'parameters (1,024 tokens a step)',
      points: sizes.map((size) => point(parameters(size), { size, sequences: 4 })),
    },
  ];
}

/** Seconds of a training step (the fastest of three) along a series, against HF eager. */
export function growth({ title, x, points }: Series): Promise<Growth> {
  return withFolder((folder) =>
    withPeers([ours('ours-training.ts'), theirs('HF eager', 'training.py')], async (peers) => {
      const measured: Growth['points'] = [];
      for (const { x: at, size, sequences, tokens, vocabulary } of points) {
        const model = modelFolder(folder, configOf(size, { vocabulary }));
        const batch = batchFile(folder, denseBatch(sequences, tokens, vocabulary));
        const microBatches = microBatchesOf(sequences * tokens);
        const answers: Answer[] = [];
        for (const peer of peers) {
          await peer.ask({ order: 'prepare', model, batch, microBatches, kind: 'eager', lanes: THREADS, threads: THREADS });
          await peer.ask({ order: 'step', count: 1 });
        }
        for (let round = 0; round < 3; round++)
          for (const [i, peer] of peers.entries()) {
            const answer = await peer.ask({ order: 'step', count: 1 });
            if (!answers[i] || answer.seconds < answers[i].seconds) answers[i] = answer;
          }
        measured.push({ x: at, ours: answers[0]!, theirs: answers[1]! });
      }
      return { title, x, points: measured };
    }),
  );
}

export interface Large {
  size: string;
  trainSeconds: number;
  trainPeakBytes: number;
  turnSeconds: number;
  turnPeakBytes: number;
}

/** A larger model trains (16 x 256 tokens a step) and plays (64 episodes); what matters is the memory. */
export function large(size: Size): Promise<Large> {
  return withFolder(async (folder) => {
    const model = modelFolder(folder, configOf(size));
    const batch = batchFile(folder, denseBatch(BATCH.sequences, BATCH.tokens, VOCABULARY));
    const train = await withPeers([ours('ours-training.ts')], async ([peer]) => {
      await peer!.ask({ order: 'prepare', model, batch, microBatches: microBatchesOf(BATCH.sequences * BATCH.tokens), lanes: THREADS });
      return peer!.ask({ order: 'step', count: 2 });
    });
    const play = await withPeers([ours('ours-rollouts.ts')], async ([peer]) => {
      await peer!.ask({ order: 'prepare', model, lanes: THREADS, ...ROLLOUT });
      return peer!.ask({ order: 'turns', count: 2 });
    });
    return {
      size: size.name,
      trainSeconds: train.seconds / 2,
      trainPeakBytes: train.peakBytes,
      turnSeconds: play.seconds / 2,
      turnPeakBytes: play.peakBytes,
    };
  });
}
