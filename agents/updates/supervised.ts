/**
 * Supervised training of a policy on episodes: the likelihood of its commands exactly as the policy plays them, that is under the constraint of the
 * admissible commands, and with a small weight the likelihood of what it saw, which teaches it to read.
 * Used for the warm start (on demonstrations), and as rejection-sampling SFT (on a policy's own successes).
 */
import type { Episode } from '../../core/nouns.ts';
import { Random, type RandomKey } from '../../core/random.ts';
import { microBatches } from '../../learning/batch.ts';
import { rateFactor, type Schedule } from '../../learning/schedule.ts';
import { createTrainer } from '../../learning/trainer.ts';
import { train, type Split, type TrainingHooks } from '../../learning/training-loop.ts';
import type { Batch, Model, OptimizerOptions, PreferenceTerms } from '../../learning/types.ts';
import { decisionTree } from '../decision-trees.ts';
import type { Tokens } from '../tokens.ts';

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
  /** Weight of the likelihood of a token that the policy saw (over the whole vocabulary); that of a command is 1. */
  observationWeight: number;
}

export interface SupervisedReport {
  episodes: number;
  steps: number;
  /** Tokens read over the whole training. */
  tokens: number;
  /** Mean loss per decision over the last steps, nats: commands, and observations with their weight. */
  loss: number;
  /** Where micro-batches were made smaller because memory ran out; absent where it never did. */
  splits?: Split[];
}

/** The learning rate decays to this share of its peak. */
const DECAY_FLOOR = 0.05;

/** What one episode asks of the policy: the choices that were made, each among what was possible there. */
interface Sequence {
  ids: number[];
  choices: { node: number; allowed: number[]; token: number; weight: number; starts: boolean }[];
  /** Turns with a choice. */
  decisions: number;
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
  // An episode that the model could not read to its end teaches nothing that it could do.
  const longest = options.initial.config.max_position_embeddings;
  const sequences = options.episodes
    .filter((episode) => episode.turns.length > 0)
    .map((episode) => sequenceOf(options.tokens, episode, spec.observationWeight))
    .filter(({ ids }) => ids.length <= longest);
  const optimizer: OptimizerOptions = {
    kind: spec.optimizer,
    beta1: 0.9,
    beta2: 0.98,
    epsilon: 1e-8,
    weightDecay: spec.weightDecay,
    clipNorm: 1,
  };
  const trainer = await createTrainer(options.initial, {
    objective: 'preference',
    optimizer,
    lanes: options.lanes,
    ...(options.factors ? { factors: options.factors } : {}),
  });
  const schedule: Schedule = { shape: 'cosine', steps: spec.steps, warmUp: spec.warmUpSteps, floor: DECAY_FLOOR };
  let tokenCount = 0;
  const orders = new Map<number, Sequence[]>();
  const perEpoch = Math.max(1, Math.floor(sequences.length / spec.batchEpisodes));
  try {
    const { loss, steps, splits } = await train(
      {
        trainer,
        steps: spec.steps,
        phase: options.phase,
        batches: (step, parts) => {
          const epoch = Math.floor(step / perEpoch);
          let order = orders.get(epoch);
          if (!order) {
            orders.clear();
            orders.set(epoch, (order = new Random([...key, 'epoch', epoch]).shuffled(sequences)));
          }
          const at = (step % perEpoch) * spec.batchEpisodes;
          const part = order.slice(at, at + spec.batchEpisodes);
          for (const sequence of part) tokenCount += sequence.ids.length;
          return likelihoodBatches(part, options.microBatches * parts);
        },
        rates: (step) => {
          const factor = rateFactor(schedule, step);
          return { learningRate: spec.learningRate * factor, muonLearningRate: spec.muonLearningRate * factor };
        },
        save: () => tokenCount,
        restore: (state) => (tokenCount = state as number),
      },
      hooks,
    );
    return {
      model: trainer.model(),
      report: { episodes: sequences.length, steps, tokens: tokenCount, loss, ...(splits.length > 0 && { splits }) },
    };
  } finally {
    await trainer.close();
  }
}

function sequenceOf(tokens: Tokens, episode: Episode, observationWeight: number): Sequence {
  const { chain, turns } = decisionTree(tokens, episode);
  const choices: Sequence['choices'] = [];
  const seen = new Array<boolean>(chain.length).fill(true);
  let decisions = 0;
  for (const turn of turns) {
    const command = turn.commands[turn.executed] as number[];
    seen.fill(false, turn.node + 1, turn.node + 1 + command.length);
    const made = turn.tree.choices[turn.executed] as { point: number; option: number }[];
    if (made.length > 0) decisions++;
    made.forEach(({ point, option }, i) => {
      const { allowed } = turn.tree.points[point] as { allowed: number[] };
      choices.push({ node: turn.pointNodes[point] as number, allowed, token: allowed[option] as number, weight: 1, starts: i === 0 });
    });
  }
  if (observationWeight > 0) {
    const vocabulary = Array.from({ length: tokens.size }, (_, id) => id);
    for (let node = 1; node < chain.length; node++) {
      if (seen[node])
        choices.push({ node: node - 1, allowed: vocabulary, token: chain[node] as number, weight: observationWeight, starts: true });
    }
  }
  return { ids: chain, choices, decisions };
}

/** Deals the sequences of one step over the micro-batches; the loss is the mean over the step's decisions. */
function likelihoodBatches(sequences: readonly Sequence[], count: number): Batch[] {
  const total = sequences.reduce((sum, { decisions }) => sum + decisions, 0);
  return microBatches(sequences, count, ({ ids }) => ids.length).map((part) => {
    const points: number[][] = [];
    const terms: PreferenceTerms = { objective: 'preference', reads: [], allowed: points, actions: [], nllWeights: [], pairs: [], beta: 1 };
    part.forEach(({ choices }, tree) => {
      for (const { node, allowed, token, weight, starts } of choices) {
        const point = terms.reads.push({ tree, node }) - 1;
        points.push(allowed);
        if (starts) {
          terms.actions.push([]);
          terms.nllWeights.push(weight / total);
        }
        terms.actions.at(-1)?.push({ point, token });
      }
    });
    return { trees: part.map(({ ids }) => ({ ids, parents: ids.map((_, i) => i - 1) })), terms };
  });
}
