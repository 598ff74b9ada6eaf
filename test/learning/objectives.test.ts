/** Whole objectives, model included: losses and gradients of the training graph against the double-precision reference and its finite differences. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Random } from '../../core/random.ts';
import { pack } from '../../learning/batch.ts';
import { folded, foldedMatrices, graphShape } from '../../learning/fold.ts';
import { trainingGraph } from '../../learning/gradient-lanes.ts';
import { Lane } from '../../learning/lanes/lane.ts';
import type { Feed } from '../../learning/lanes/lane.ts';
import { formOf } from '../../learning/objectives.ts';
import { batchFeeds } from '../../learning/terms.ts';
import { createTrainer } from '../../learning/trainer.ts';
import type { Batch } from '../../learning/types.ts';
import { VARIANTS, chain, doubles, gradientsOn, loss, needsScores, objectiveOf, randomBatch, tinyModel } from './reference.ts';
import type { Variant } from './reference.ts';

let lanes: Lane[];
before(() => {
  lanes = [new Lane()];
});
after(() => lanes[0]!.close());

/** Coordinates checked of each tensor, for each of the seeds. */
const COORDINATES = 2;
/** Step of the differences, in double precision: their error is below 1e-7. */
const STEP = 1e-4;

interface Case {
  variant: Variant;
  keyValueHeads?: number;
  tied?: boolean;
  values?: boolean;
}
const cases: Case[] = [
  ...VARIANTS.map((variant) => (variant.includes('all options') ? { variant, values: true } : { variant })),
  { variant: 'crossEntropy', keyValueHeads: 1 }, // one key/value head for two query heads
  { variant: 'crossEntropy', tied: true },
  { variant: 'preference', keyValueHeads: 1 },
  { variant: 'regression', values: true }, // of a causal model's value head
];
for (const { variant, ...options } of cases) {
  test(`loss and gradient of ${variant} on branching trees ${JSON.stringify(options)}`, async () => {
    for (const seed of variant === 'crossEntropy' ? [1, 2] : [1]) {
      const model = tinyModel(seed, { ...options, score: needsScores(variant) && !options.values });
      const random = new Random(['objectives', variant, seed]);
      const batches = [randomBatch(variant, random, 11), randomBatch(variant, random, 11)];
      const objective = objectiveOf(variant);
      const found = await (await gradientsOn(lanes, model, objective))(batches);
      const weights = doubles(model);
      const expected = () => batches.reduce((sum, batch) => sum + loss(model.config, weights, batch), 0);
      assert.ok(Math.abs(found.loss - expected()) < 1e-5 * (1 + Math.abs(expected())), `loss ${found.loss}, reference ${expected()}`);
      for (const [name, values] of weights) {
        const gradient = found.gradients.get(name)!;
        assert.equal(gradient.length, values.length, name);
        const scale = 1e-2 + gradient.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        for (const at of random.shuffled([...values.keys()]).slice(0, COORDINATES)) {
          const middle = values[at]!;
          values[at] = middle + STEP;
          const above = loss2(batches);
          values[at] = middle - STEP;
          const below = loss2(batches);
          values[at] = middle;
          const difference = (above - below) / (2 * STEP);
          assert.ok(Math.abs(difference - gradient[at]!) < 1e-4 * scale, `${name}[${at}]: ${gradient[at]}, differences say ${difference}`);
        }
      }
      function loss2(list: Batch[]): number {
        return list.reduce((sum, batch) => sum + loss(model.config, weights, batch), 0);
      }
    }
  });
}

test('law: ragged or in full rows, a batch has the same loss and the same gradients', async () => {
  const [lane] = lanes as [Lane];
  for (const [i, { variant, ...options }] of cases.entries()) {
    const model = tinyModel(i, { ...options, score: needsScores(variant) && !options.values });
    const { config } = model;
    const weights = folded(config, model.tensors);
    for (const seed of [1, 2, 3]) {
      const batch = randomBatch(variant, new Random(['ragged', variant, seed]), 11);
      const [full, ragged] = [false, true].map(async (isRagged) => {
        const form = formOf(batch.terms);
        const graph = trainingGraph(config, form, undefined, isRagged);
        const key = `${i} ${form.key} ${isRagged}`;
        const matrices = foldedMatrices(config).filter(({ name }) => graph.inputs.includes(name));
        const shared = matrices.map((matrix): [string, Feed] => [
          matrix.name,
          { data: weights.get(matrix.name)!, dims: graphShape(matrix) },
        ]);
        await lane.load(key, graph.model, Object.fromEntries(shared));
        const packed = pack(batch.trees, batch.terms.reads, { vocabulary: 11, context: 64 }, isRagged);
        return lane.run(key, batchFeeds(batch, packed, batch.terms.objective, config));
      });
      const [expected, found] = [await full!, await ragged!];
      assert.deepEqual(Object.keys(found).sort(), Object.keys(expected).sort());
      for (const [name, values] of Object.entries(expected)) {
        const most = values.reduce((max, value) => Math.max(max, Math.abs(value)), 1e-3);
        values.forEach((value, at) => {
          assert.ok(Math.abs(value - found[name]![at]!) <= 1e-5 * most, `${variant} ${name}[${at}]: ${value} and ${found[name]![at]}`);
        });
      }
    }
  }
});

test('the preference loss of a hand-computed case', async () => {
  // With a zero head all allowed tokens are equally likely: lp = -log 4 for the chosen, -2 log 2 for the rejected (two binary choices), so the gap is 0
  // and the loss is weight * log(1 + exp(beta * margin)) + nllWeight * log 4.
  const model = tinyModel(3);
  model.tensors.get('lm_head.weight')!.data.fill(0);
  const compute = await gradientsOn(lanes, model, 'preference');
  const batch: Batch = {
    trees: [chain([1, 2, 3])],
    terms: {
      objective: 'preference',
      reads: [0, 1, 2].map((node) => ({ tree: 0, node })),
      allowed: [
        [5, 6, 7, 8],
        [1, 2],
        [9, 0],
      ],
      actions: [
        [{ point: 0, token: 7 }],
        [
          { point: 1, token: 1 },
          { point: 2, token: 0 },
        ],
      ],
      nllWeights: [0.25, 0],
      pairs: [{ chosen: 0, rejected: 1, referenceMargin: 0.5, weight: 2 }],
      beta: 0.8,
    },
  };
  const { loss: found } = await compute([batch]);
  const expected = 2 * Math.log(1 + Math.exp(0.8 * 0.5)) + 0.25 * Math.log(4);
  assert.ok(Math.abs(found - expected) < 1e-6, `${found}, by hand ${expected}`);
});

test('batches without terms, pairs or actions have loss 0 and gradient 0', async () => {
  const model = tinyModel(3);
  const empty: Batch['terms'][] = [
    { objective: 'crossEntropy', reads: [], targets: [], weights: [] },
    { objective: 'preference', reads: [], allowed: [], actions: [], nllWeights: [], pairs: [], beta: 1 },
  ];
  for (const terms of empty) {
    const compute = await gradientsOn(lanes, model, terms.objective);
    const { loss: found, gradients } = await compute([{ trees: [chain([1, 2])], terms }]);
    assert.equal(found + 0, 0);
    for (const [name, gradient] of gradients)
      assert.ok(
        gradient.every((value) => value === 0),
        name,
      );
  }
});

test('terms that do not fit are refused and named, and the trainer goes on', async () => {
  const model = tinyModel(4);
  const optimizer = { kind: 'adamw', beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, clipNorm: 1 } as const;
  await assert.rejects(createTrainer(model, { objective: 'softBCE', optimizer, lanes: 1 }), {
    type: 'BadInput',
    message: /LlamaForSequenceClassification/,
  });
  await assert.rejects(createTrainer(model, { objective: 'crossEntropy', optimizer, lanes: 0 }), { type: 'BadInput', message: /lanes/ });
  await assert.rejects(createTrainer(model, { objective: 'crossEntropy', optimizer: { ...optimizer, beta2: 1 }, lanes: 1 }), {
    message: /beta2/,
  });
  const trainer = await createTrainer(model, { objective: 'crossEntropy', optimizer, lanes: 1 });
  try {
    const good = randomBatch('crossEntropy', new Random(['good']), 11);
    const tree = chain([1, 2, 3]);
    const terms = { objective: 'crossEntropy', reads: [{ tree: 0, node: 1 }], targets: [1], weights: [1] } as const;
    const bad: [Batch, RegExp][] = [
      [{ trees: [tree], terms: { ...terms, reads: [{ tree: 0, node: 3 }], targets: [1], weights: [1] } }, /read: .*"node":3/],
      [{ trees: [tree], terms: { ...terms, reads: [...terms.reads], targets: [11], weights: [1] } }, /targets\[0\]: 11/],
      [{ trees: [tree], terms: { ...terms, reads: [...terms.reads], targets: [1], weights: [Number.NaN] } }, /weights\[0\]/],
      [{ trees: [tree], terms: { ...terms, reads: [...terms.reads], targets: [1], weights: [] } }, /weights: "0 entries"/],
      [
        { trees: [{ ids: [1, 99], parents: [-1, 0] }], terms: { ...terms, reads: [], targets: [], weights: [] } },
        /trees\[0\].ids\[1\]: 99/,
      ],
      [
        { trees: [{ ids: [1, 2], parents: [-1, 1] }], terms: { ...terms, reads: [], targets: [], weights: [] } },
        /trees\[0\].parents\[1\]: 1/,
      ],
      [{ trees: [chain(new Array(65).fill(1))], terms: { ...terms, reads: [], targets: [], weights: [] } }, /at most 64 tokens/],
      [{ trees: [], terms: { ...terms, reads: [], targets: [], weights: [] } }, /at least one tree/],
      [randomBatch('preference', new Random(['other']), 11), /this trainer minimises 'crossEntropy'/],
    ];
    for (const [batch, message] of bad)
      await assert.rejects(trainer.step([good, batch], { learningRate: 0.1 }), { type: 'BadInput', message });
    assert.deepEqual(trainer.model().tensors, model.tensors); // nothing was half done
    await trainer.step([good], { learningRate: 0.1 });
  } finally {
    await trainer.close();
  }
});
