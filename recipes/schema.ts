/**
 * The schema of a recipe: the whole experiment as data. A recipe is validated here, in full, before anything starts; what is hashed is the *resolved*
 * recipe, with every default filled in. This file reads no files (`recipes/load.ts` does), so that workflow code may import it.
 */
import { z } from 'zod';

const count = (max: number) => z.int().min(1).max(max);
const share = z.number().min(0).max(1);
const openShare = z.number().gt(0).lt(1);
const rate = z.number().gt(0).max(1);

const panel = z.union([count(100_000), z.string().regex(/^[0-9a-f]{64}$/, 'use a number of tasks, or the digest of a stored panel')]);

const strategy = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('greedy') }),
  z.strictObject({ kind: z.literal('sample'), temperature: z.number().gt(0).max(10) }),
  z.strictObject({
    kind: z.literal('best-of-n'),
    n: count(256),
    temperature: z.number().gt(0).max(10).default(1),
    policyWeight: z.number().min(0).max(10).default(0.5),
    minProbability: share.default(0.02),
  }),
]);

const supervised = {
  optimizer: z.enum(['adamw', 'muon']).default('muon'),
  steps: count(1_000_000),
  batchEpisodes: count(4096),
  learningRate: rate,
  muonLearningRate: rate.default(0.02),
  weightDecay: z.number().min(0).max(1).default(0),
  warmUpSteps: z.int().min(0).max(100_000).default(20),
  observationWeight: share.default(0.1),
};

/** The matrices of a block, as PEFT's `target_modules` names them; all if not given. */
const loraTargets = z
  .array(z.enum(['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']))
  .min(1)
  .refine((names) => new Set(names).size === names.length, 'must name each matrix at most once');

/** Each candidate costs a validation and some 3 KB of the iteration's record, which must stay below 64 KiB. */
const MOST_CANDIDATES = 12;

export const recipeSchema = z
  .strictObject({
    name: z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'use lower-case letters, digits and hyphens'),
    /** What the method is and where it was published. */
    method: z.string().min(1),
    seed: z
      .int()
      .min(0)
      .max(2 ** 31 - 1),
    scale: z.enum(['micro', 'tiny', 'small', 'full']),
    environment: z.strictObject({
      name: z.string(),
      /** Which tasks: a list that the environment makes by itself, or a folder of game files. What is hashed names the games by their digest in place of a folder. */
      games: z.union([z.string().min(1), z.strictObject({ sha256: z.string(), bytes: z.int() })]).default('generated'),
      /** The list that demonstrations are made in, where it is another one: a folder may have few games. */
      demonstrations: z.string().min(1).nullable().default(null),
    }),
    /** A Llama-architecture transformer; `initial` starts from a stored model directory instead of from nothing. */
    policy: z.strictObject({
      layers: count(64),
      width: z.int().min(8).max(8192),
      heads: count(128),
      feedForward: z.int().min(8).max(65536),
      /** Longest episode that is read, in tokens. */
      context: z.int().min(32).max(32768),
      initial: z.string().min(1).nullable().default(null),
    }),
    /**
     * Tasks per panel; those that are not trained on may also be stored panels, named by their digests. Demonstrations take the first tasks of the train
     * panel, the collection of each iteration the next ones.
     */
    panels: z.strictObject({ train: count(100_000), validation: panel, seen: panel, unseen: panel }),
    warmStart: z.strictObject({
      demonstrations: count(1_000_000),
      /** How strong the demonstrator's habits are, in [0, 1]: 0 none, 1 in four of five episodes where the context invites them. */
      habits: share,
      /** Probability of a random command at a turn of a demonstration. */
      noise: share,
      ...supervised,
    }),
    iterations: z.int().min(0).max(1000),
    collect: z.strictObject({ tasks: count(1_000_000), repeats: count(1024), temperature: z.number().gt(0).max(10) }),
    label: z.strictObject({
      kind: z.literal('monte-carlo'),
      discount: z.number().gt(0).max(1),
      control: z.enum(['none', 'shuffled']).default('none'),
    }),
    rewardModel: z.strictObject({
      epochs: count(1000),
      learningRate: rate,
      weightDecay: z.number().min(0).max(1).default(0),
      batchEpisodes: count(4096),
      holdout: openShare,
    }),
    update: z.discriminatedUnion('kind', [
      z.strictObject({
        kind: z.literal('online-dpo'),
        beta: z.number().gt(0).max(100),
        learningRate: rate,
        weightDecay: z.number().min(0).max(1).default(0),
        steps: count(1_000_000),
        batchEpisodes: count(4096),
        candidates: z.int().min(2).max(256),
        minProbability: share,
        margin: share,
        maxKl: z.number().gt(0),
        keepEvery: count(1_000_000),
        outcomeWeight: z.number().min(0).max(100).default(0),
        control: z.enum(['none', 'permuted', 'no-prm']).default('none'),
        /** Train a LoRA adapter on the policy, which is merged into each candidate, in place of all weights; absent in a resolved recipe that does not ask for it. */
        lora: z.strictObject({ rank: count(1024), alpha: z.number().gt(0).max(10_000), targets: loraTargets.optional() }).optional(),
      }),
      /** Supervised training on the successful rollouts (`rejection-sft`) or on the warm start's demonstrations again (`more-demonstrations`, a control); one candidate, at the end. */
      z.strictObject({ kind: z.enum(['rejection-sft', 'more-demonstrations']), ...supervised, keepEvery: count(1_000_000) }),
    ]),
    /** Promote the candidate with the best validation success if it beats the policy at hand by at least `minGain`. */
    gate: z.strictObject({
      minGain: z.number().min(-1).max(1),
      /** An update is only tried with a reward model whose scores correlate at least so much with the labels of held-out games; it teaches noise else. */
      minCorrelation: z.number().min(-1).max(1).default(0.1),
      strategies: z.array(strategy).min(1),
      /** `person`: what validation would promote also waits for `ratchet approve` or `reject`. */
      approval: z.enum(['none', 'person']).default('none'),
    }),
    pairTruth: z.strictObject({ pairs: z.int().min(0).max(512), continuations: count(1000) }),
    /** How the promoted policy is measured; the reports decide nothing. */
    report: z.strictObject({ strategies: z.array(strategy).min(1), panels: z.array(z.enum(['seen', 'unseen'])).min(1) }),
    /** How the work is cut up. Part of the recipe, because the composition of a batch decides the last bits. */
    work: z.strictObject({
      /** Episodes of one shard, and how many of them are live at once. */
      shardEpisodes: count(100_000),
      liveEpisodes: count(4096),
      /** Micro-batches of one optimizer step; at least as many as there are compute lanes to keep them busy. */
      microBatches: count(256),
    }),
  })
  .superRefine((recipe, context) => {
    const { policy, work } = recipe;
    const fault = (path: (string | number)[], message: string) => context.addIssue({ code: 'custom', path, message });
    if (policy.width % policy.heads !== 0) fault(['policy', 'heads'], `must divide policy.width (${policy.width})`);
    else if ((policy.width / policy.heads) % 2 !== 0)
      fault(['policy', 'heads'], `policy.width / policy.heads must be even for rotary embeddings`);
    if (work.liveEpisodes > work.shardEpisodes)
      fault(['work', 'liveEpisodes'], `must not exceed work.shardEpisodes (${work.shardEpisodes})`);
    const needed = recipe.warmStart.demonstrations + recipe.iterations * recipe.collect.tasks;
    if (recipe.panels.train < needed)
      fault(['panels', 'train'], `must be at least ${needed}: warmStart.demonstrations + iterations x collect.tasks`);
    if (recipe.update.kind === 'online-dpo' && recipe.update.steps / recipe.update.keepEvery > MOST_CANDIDATES) {
      fault(
        ['update', 'keepEvery'],
        `must be at least ${Math.ceil(recipe.update.steps / MOST_CANDIDATES)}: at most ${MOST_CANDIDATES} candidates are validated`,
      );
    }
    if (recipe.update.kind === 'online-dpo' && recipe.update.lora && recipe.update.lora.rank > policy.width)
      fault(['update', 'lora', 'rank'], `must be at most policy.width (${policy.width}): no matrix has a higher rank`);
    for (const [field, { strategies }] of [
      ['gate', recipe.gate],
      ['report', recipe.report],
    ] as const) {
      const kinds = strategies.map(({ kind }) => kind);
      if (new Set(kinds).size < kinds.length)
        fault([field, 'strategies'], 'must name each kind of strategy at most once: results are told apart by it');
    }
    if (recipe.update.kind === 'online-dpo' && recipe.update.control === 'no-prm' && recipe.update.outcomeWeight === 0) {
      fault(['update', 'outcomeWeight'], 'must be above 0 when update.control is no-prm: nothing else is left to learn from');
    }
  });

/** A resolved recipe: what runs, and what is hashed. */
export type Recipe = z.output<typeof recipeSchema>;
export type Scale = Recipe['scale'];
export const SCALES: readonly Scale[] = ['micro', 'tiny', 'small', 'full'];
