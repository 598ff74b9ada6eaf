/**
 * Fits a process reward model: Q(s, a) of the policy that collected, learnt by soft binary cross-entropy on labelled turns
 * (AgentPRM, arXiv 2502.10325, Stage 2). It starts from the policy's own weights; validation holds out whole tasks, never single turns of a seen task.
 */
import { RatchetError } from '../core/errors.ts';
import { Random, type RandomKey } from '../core/random.ts';
import { binaryCrossEntropy, correlation, logitOf, mean, sigmoid } from '../core/statistics.ts';
import { microBatches } from '../learning/batch.ts';
import { toScoreModel } from '../learning/model.ts';
import { createReader } from '../learning/reader.ts';
import { rateFactor, type Schedule } from '../learning/schedule.ts';
import { createTrainer } from '../learning/trainer.ts';
import { train, type Split, type TrainingHooks } from '../learning/training-loop.ts';
import type { Batch, Model } from '../learning/types.ts';

/** One episode as the reward model reads it: tokens, the ends of its commands, and a label for each. */
export interface LabelledEpisode {
  task: string;
  ids: number[];
  /** Index of the last token of each labelled command. */
  reads: number[];
  /** In [0, 1], one per read. */
  labels: number[];
}

export interface RewardModelSpec {
  epochs: number;
  learningRate: number;
  weightDecay: number;
  /** Episodes of one optimizer step. */
  batchEpisodes: number;
  /** Share of the tasks held out for validation, in (0, 1). */
  holdout: number;
}

/** How well the reward model predicts held-out tasks. Cross-entropies in nats; `baseBce` is that of always saying the training mean. */
export interface RewardModelReport {
  trainEpisodes: number;
  validationEpisodes: number;
  steps: number;
  trainBce: number;
  validationBce: number;
  baseBce: number;
  /** Pearson's correlation of prediction and label on the held-out turns. */
  correlation: number;
  /** Where micro-batches were made smaller because memory ran out; absent where it never did. */
  splits?: Split[];
}

/** Optimizer steps of linear warm-up. */
const WARM_UP_STEPS = 10;
/** The learning rate decays to this share of its peak. */
const DECAY_FLOOR = 0.1;
/** Episodes whose hidden states set the initial head. */
const HEAD_EPISODES = 64;
/** Most episodes in one forward pass of validation. */
const READ_CHUNK = 16;

export async function fitRewardModel(
  options: {
    policy: Model;
    episodes: readonly LabelledEpisode[];
    spec: RewardModelSpec;
    key: RandomKey;
    lanes: number;
    microBatches: number;
  },
  hooks: TrainingHooks,
): Promise<{ model: Model; report: RewardModelReport }> {
  const { policy, spec, key, lanes } = options;
  const { training, validation } = splitByTask(
    options.episodes.filter((episode) => episode.reads.length > 0),
    spec.holdout,
    key,
  );
  if (training.length === 0 || validation.length === 0) {
    throw new RatchetError(
      'BadInput',
      `reward model: ${options.episodes.length} labelled episodes are too few to hold out ${spec.holdout} of the tasks; collect more`,
    );
  }
  const meanLabel = Math.min(0.99, Math.max(0.01, mean(training.flatMap((episode) => episode.labels))));
  const initial = toScoreModel(policy, await meanHead(policy, training.slice(0, HEAD_EPISODES), logitOf(meanLabel), lanes));

  const stepsPerEpoch = Math.ceil(training.length / spec.batchEpisodes);
  const steps = stepsPerEpoch * spec.epochs;
  const schedule: Schedule = { shape: 'cosine', steps, warmUp: WARM_UP_STEPS, floor: DECAY_FLOOR };
  const trainer = await createTrainer(initial, {
    objective: 'softBCE',
    optimizer: { kind: 'adamw', beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: spec.weightDecay, clipNorm: 1 },
    lanes,
  });
  try {
    const orders = Array.from({ length: spec.epochs }, (_, epoch) => new Random([...key, 'epoch', epoch]).shuffled(training));
    const fit = await train(
      {
        trainer,
        steps,
        phase: 'reward model',
        batches: (step, parts) => {
          const at = (step % stepsPerEpoch) * spec.batchEpisodes;
          const order = orders[Math.floor(step / stepsPerEpoch)] as LabelledEpisode[];
          return bceBatches(order.slice(at, at + spec.batchEpisodes), options.microBatches * parts);
        },
        rates: (step) => ({ learningRate: spec.learningRate * rateFactor(schedule, step) }),
      },
      hooks,
    );
    const model = trainer.model();
    const predicted = await predict(model, validation, lanes);
    const labels = validation.flatMap((episode) => episode.labels);
    return {
      model,
      report: {
        trainEpisodes: training.length,
        validationEpisodes: validation.length,
        steps: fit.steps,
        trainBce: fit.loss,
        validationBce: mean(labels.map((label, i) => binaryCrossEntropy(predicted[i] as number, label))),
        baseBce: mean(labels.map((label) => binaryCrossEntropy(meanLabel, label))),
        correlation: correlation(predicted, labels),
        ...(fit.splits.length > 0 && { splits: fit.splits }),
      },
    };
  } finally {
    await trainer.close();
  }
}

function splitByTask(episodes: readonly LabelledEpisode[], holdout: number, key: RandomKey) {
  const tasks = new Random([...key, 'holdout']).shuffled([...new Set(episodes.map((episode) => episode.task))]);
  const held = new Set(tasks.slice(0, Math.max(1, Math.round(tasks.length * holdout))));
  return {
    training: episodes.filter((episode) => !held.has(episode.task)),
    validation: episodes.filter((episode) => held.has(episode.task)),
  };
}

/**
 * The head that says the mean label nearly everywhere: w = logit * h / |h|^2 for the mean hidden state h. The Hugging Face head has no bias, and with a
 * random head the first epoch is spent on undoing it.
 */
async function meanHead(policy: Model, episodes: readonly LabelledEpisode[], logit: number, lanes: number): Promise<Float32Array> {
  const reader = await createReader(policy, { lanes });
  try {
    const width = policy.config.hidden_size;
    const [hidden] = await reader.hidden([readRequest(episodes)]);
    const average = new Float64Array(width);
    const rows = (hidden as Float32Array).length / width;
    (hidden as Float32Array).forEach((value, i) => (average[i % width] = (average[i % width] as number) + value / rows));
    const square = average.reduce((sum, value) => sum + value * value, 0);
    return Float32Array.from(average, (value) => (logit * value) / square);
  } finally {
    await reader.close();
  }
}

/** Deals the episodes of one step over the micro-batches; the loss is the mean over all labelled turns of the step. */
function bceBatches(episodes: readonly LabelledEpisode[], count: number): Batch[] {
  const total = episodes.reduce((sum, episode) => sum + episode.reads.length, 0);
  return microBatches(episodes, count, ({ ids }) => ids.length).map((part) => {
    const { trees, reads } = readRequest(part);
    const labels = part.flatMap((episode) => episode.labels);
    return { trees, terms: { objective: 'softBCE', reads, labels, weights: labels.map(() => 1 / total) } };
  });
}

function readRequest(episodes: readonly LabelledEpisode[]) {
  const trees = episodes.map(({ ids }) => ({ ids, parents: ids.map((_, i) => i - 1) }));
  const reads = episodes.flatMap((episode, tree) => episode.reads.map((node) => ({ tree, node })));
  return { trees, reads };
}

/** Q in [0, 1] at every labelled turn. */
async function predict(model: Model, episodes: readonly LabelledEpisode[], lanes: number): Promise<number[]> {
  const reader = await createReader(model, { lanes });
  try {
    const requests = [];
    for (let at = 0; at < episodes.length; at += READ_CHUNK) requests.push(readRequest(episodes.slice(at, at + READ_CHUNK)));
    return (await reader.scores(requests)).flatMap((logits) => Array.from(logits, sigmoid));
  } finally {
    await reader.close();
  }
}
