/**
 * Supervised training of a policy on episodes: cross-entropy on the tokens of its commands, and with a small weight on what it saw.
 * Used for the warm start (on demonstrations), and as rejection-sampling SFT (on a policy's own successes).
 */
import type { Episode } from '../../core/nouns.ts';
import { Random, type RandomKey } from '../../core/random.ts';
import { createTrainer } from '../../learning/trainer.ts';
import { train, warmUpCosine, type TrainingHooks } from '../../learning/training-loop.ts';
import type { Batch, Model, OptimizerOptions } from '../../learning/types.ts';
import { encodeEpisode, type Tokens } from '../tokens.ts';

export interface SupervisedSpec {
  optimizer: 'adamw' | 'muon';
  /** Optimizer steps. */
  steps: number;
  /** Episodes of one optimizer step. */
  batchEpisodes: number;
  learningRate: number;
  /** For the block matrices under `muon`. */
  muonLearningRate: number;
  weightDecay: number;
  warmUpSteps: number;
  /** Weight of the loss on observation tokens; 1 would weigh them like commands. */
  observationWeight: number;
}

export interface SupervisedReport {
  episodes: number;
  steps: number;
  /** Tokens read over the whole training. */
  tokens: number;
  /** Mean loss per weighted token over the last steps, nats. */
  loss: number;
}

/** The learning rate decays to this share of its peak. */
const DECAY_FLOOR = 0.05;

interface Sequence {
  ids: number[];
  /** Weight of predicting ids[i + 1] at i. */
  weights: Float64Array;
}

/**
 * Trains `initial` on the episodes, passing over them in a fresh keyed order as often as `steps` needs.
 * `factors` (training from nothing only): the features of every token, see `createTrainer`.
 */
export async function trainSupervised(
  options: {
    initial: Model;
    episodes: readonly Episode[];
    tokens: Tokens;
    spec: SupervisedSpec;
    key: RandomKey;
    lanes: number;
    microBatches: number;
    phase: string;
    factors?: number[][];
  },
  hooks: TrainingHooks,
): Promise<{ model: Model; report: SupervisedReport }> {
  const { spec, key } = options;
  const sequences = options.episodes
    .filter((episode) => episode.turns.length > 0)
    .map((episode) => sequenceOf(options.tokens, episode, spec.observationWeight));
  const optimizer: OptimizerOptions = {
    kind: spec.optimizer,
    beta1: 0.9,
    beta2: 0.98,
    epsilon: 1e-8,
    weightDecay: spec.weightDecay,
    clipNorm: 1,
  };
  const trainer = await createTrainer(options.initial, {
    objective: 'crossEntropy',
    optimizer,
    lanes: options.lanes,
    ...(options.factors ? { factors: options.factors } : {}),
  });
  let tokenCount = 0;
  const orders = new Map<number, Sequence[]>();
  const perEpoch = Math.max(1, Math.floor(sequences.length / spec.batchEpisodes));
  try {
    const { loss, steps } = await train(
      {
        trainer,
        steps: spec.steps,
        phase: options.phase,
        batches: (step) => {
          const epoch = Math.floor(step / perEpoch);
          let order = orders.get(epoch);
          if (!order) {
            orders.clear();
            orders.set(epoch, (order = new Random([...key, 'epoch', epoch]).shuffled(sequences)));
          }
          const at = (step % perEpoch) * spec.batchEpisodes;
          const part = order.slice(at, at + spec.batchEpisodes);
          for (const sequence of part) tokenCount += sequence.ids.length;
          return crossEntropyBatches(part, options.microBatches);
        },
        rates: (step) => {
          const factor = warmUpCosine(step, spec.steps, spec.warmUpSteps, DECAY_FLOOR);
          return { learningRate: spec.learningRate * factor, muonLearningRate: spec.muonLearningRate * factor };
        },
        save: () => tokenCount,
        restore: (state) => (tokenCount = state as number),
      },
      hooks,
    );
    return { model: trainer.model(), report: { episodes: sequences.length, steps, tokens: tokenCount, loss } };
  } finally {
    await trainer.close();
  }
}

function sequenceOf(tokens: Tokens, episode: Episode, observationWeight: number): Sequence {
  const { ids, decisions, actionEnds } = encodeEpisode(tokens, episode);
  const weights = new Float64Array(Math.max(0, ids.length - 1)).fill(observationWeight);
  decisions.forEach((decision, t) => weights.fill(1, decision, actionEnds[t]));
  return { ids, weights };
}

/** Deals the sequences of one step over the micro-batches; the loss is the weighted mean over all predicted tokens of the step. */
export function crossEntropyBatches(sequences: readonly Sequence[], microBatches: number): Batch[] {
  let total = 0;
  for (const { weights } of sequences) for (const weight of weights) total += weight;
  const size = Math.ceil(sequences.length / microBatches);
  const batches: Batch[] = [];
  for (let at = 0; at < sequences.length; at += size) {
    const part = sequences.slice(at, at + size);
    const reads: { tree: number; node: number }[] = [];
    const targets: number[] = [];
    const weights: number[] = [];
    part.forEach((sequence, tree) => {
      sequence.weights.forEach((weight, node) => {
        if (weight === 0) return;
        reads.push({ tree, node });
        targets.push(sequence.ids[node + 1] as number);
        weights.push(weight / total);
      });
    });
    const trees = part.map(({ ids }) => ({ ids, parents: ids.map((_, i) => i - 1) }));
    batches.push({ trees, terms: { objective: 'crossEntropy', reads, targets, weights } });
  }
  return batches;
}
