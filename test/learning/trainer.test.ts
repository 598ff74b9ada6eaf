/** Training as a whole: the optimizers against their definitions, the same bytes whatever the lanes and the stops, and loss that falls. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { sha256 } from '../../core/digest.ts';
import { Random } from '../../core/random.ts';
import { Lane } from '../../learning/lanes/lane.ts';
import { initModel, llamaConfig } from '../../learning/model.ts';
import { readSafetensors, writeSafetensors } from '../../learning/safetensors.ts';
import { createTrainer } from '../../learning/trainer.ts';
import type { TrainerOptions } from '../../learning/trainer.ts';
import type { Batch, Model, OptimizerOptions, Trainer } from '../../learning/types.ts';
import { chain, gradientsOn, randomBatch, tinyModel } from './reference.ts';
import type { Variant } from './reference.ts';

const ADAMW: OptimizerOptions = { kind: 'adamw', beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };
const MUON: OptimizerOptions = { ...ADAMW, kind: 'muon' };
const RATES = { learningRate: 3e-3, muonLearningRate: 0.02 };
/** Features of the tokens of a vocabulary of 11: pairs of a kind and a number. */
const FACTORS = Array.from({ length: 11 }, (_, token) => [token % 4, 4 + Math.floor(token / 4)]);

const digest = (trainer: Trainer) => sha256(writeSafetensors(trainer.model().tensors));
const batchesOf = (objective: Variant, step: number, count = 3): Batch[] =>
  Array.from({ length: count }, (_, i) => randomBatch(objective, new Random(['step', objective, step, i]), 11));
async function withTrainer<T>(model: Model, options: Partial<TrainerOptions>, use: (trainer: Trainer) => Promise<T>): Promise<T> {
  const trainer = await createTrainer(model, { objective: 'crossEntropy', optimizer: ADAMW, lanes: 1, ...options });
  try {
    return await use(trainer);
  } finally {
    await trainer.close();
  }
}

/** A chain that is read everywhere but at its end, and the next token is to be predicted. */
const predicted = (ids: number[]): Batch => ({
  trees: [chain(ids)],
  terms: {
    objective: 'crossEntropy',
    reads: ids.slice(1).map((_, node) => ({ tree: 0, node })),
    targets: ids.slice(1),
    weights: ids.slice(1).map(() => 1),
  },
});

/** The gradients that the trainer's first step sees. */
async function gradientsOf(model: Model, batches: Batch[]): Promise<Map<string, Float32Array>> {
  const lane = new Lane();
  try {
    return (await (await gradientsOn([lane], model, 'crossEntropy'))(batches)).gradients;
  } finally {
    await lane.close();
  }
}
const normOf = (gradients: Map<string, Float32Array>) =>
  Math.sqrt([...gradients.values()].flatMap((g) => [...g]).reduce((sum, x) => sum + x * x, 0));

test('moments that become denormal are the same on any number of lanes, also in the trainers of a process that come later', async () => {
  const optimizer: OptimizerOptions = { ...ADAMW, beta1: 0.5, beta2: 0.6 };
  const trained = (lanes: number) =>
    withTrainer(tinyModel(5), { optimizer, lanes }, async (trainer) => {
      const chains = (ids: number[][]): Batch[] => ids.map((one) => predicted(one));
      await trainer.step(
        chains([
          [1, 2, 3, 9, 10],
          [4, 5, 6],
        ]),
        RATES,
      );
      for (let step = 0; step < 200; step++)
        await trainer.step(
          chains([
            [1, 2, 3],
            [4, 5, 6],
          ]),
          RATES,
        );
      return trainer.save();
    });
  const found: Uint8Array[] = [];
  for (const lanes of [1, 2, 3, 1]) found.push(await trained(lanes));
  const { tensors } = readSafetensors(found[0]!);
  const least = 2 ** -126;
  assert.ok(
    [...tensors.values()].some(({ data }) => data.some((x) => x !== 0 && Math.abs(x) < least)),
    'no moment is denormal',
  );
  for (const other of found) assert.equal(sha256(other), sha256(found[0]!));
});

test('trainers that are made at the same time do not disturb each other', async () => {
  const step = async (seed: number) =>
    withTrainer(tinyModel(seed), {}, async (trainer) => {
      await trainer.step(batchesOf('crossEntropy', 0), RATES);
      return digest(trainer);
    });
  assert.deepEqual(await Promise.all([1, 2, 3].map(step)), [await step(1), await step(2), await step(3)]);
});

test('AdamW does what its definition says, with clipping, and without decay on norms', async () => {
  const model = tinyModel(1);
  const gradients = [await gradientsOf(model, batchesOf('crossEntropy', 0))];
  const norm = normOf(gradients[0]!);
  assert.ok(norm > 1, `clipping must be active in this test, the norm is ${norm}`);
  await withTrainer(model, {}, async (trainer) => {
    const report = await trainer.step(batchesOf('crossEntropy', 0), { learningRate: 0.01 });
    assert.ok(Math.abs(report.gradientNorm - norm) < 1e-6 * norm);
    const after = trainer.model();
    gradients.push(await gradientsOf(after, batchesOf('crossEntropy', 1)));
    await trainer.step(batchesOf('crossEntropy', 1), { learningRate: 0.005 });
    const found = trainer.model().tensors;
    for (const [name, { data, shape }] of model.tensors) {
      // arXiv 1711.05101, Algorithm 2, with the decay multiplied by the rate as in common use.
      for (let i = 0; i < data.length; i++) {
        let [p, m, v] = [data[i]!, 0, 0];
        for (const [t, rate] of [
          [1, 0.01],
          [2, 0.005],
        ] as const) {
          const g = gradients[t - 1]!.get(name)![i]! / Math.max(1, normOf(gradients[t - 1]!));
          m = 0.9 * m + 0.1 * g;
          v = 0.98 * v + 0.02 * g * g;
          const decay = shape.length === 2 ? 0.1 * p : 0;
          p -= rate * (m / (1 - 0.9 ** t) / (Math.sqrt(v / (1 - 0.98 ** t)) + 1e-8) + decay);
        }
        assert.ok(
          Math.abs(found.get(name)!.data[i]! - p) < 1e-6 * (1 + Math.abs(p)),
          `${name}[${i}]: ${found.get(name)!.data[i]}, by hand ${p}`,
        );
      }
    }
  });
});

/** The quintic iteration of https://kellerjordan.github.io/posts/muon in plain loops. */
function newtonSchulz(g: number[][]): number[][] {
  const product = (a: number[][], b: number[][]) => a.map((row) => b[0]!.map((_, j) => row.reduce((sum, x, k) => sum + x * b[k]![j]!, 0)));
  const transposed = (a: number[][]) => a[0]!.map((_, j) => a.map((row) => row[j]!));
  const combine = (p: number, a: number[][], q: number, b: number[][]) => a.map((row, i) => row.map((x, j) => p * x + q * b[i]![j]!));
  const tall = g.length > g[0]!.length;
  const size = Math.sqrt(g.flat().reduce((sum, x) => sum + x * x, 0)) + 1e-7;
  let x = (tall ? transposed(g) : g).map((row) => row.map((value) => value / size));
  for (let i = 0; i < 5; i++) {
    const a = product(x, transposed(x));
    const b = combine(-4.775, a, 2.0315, product(a, a));
    x = combine(3.4445, x, 1, product(b, x));
  }
  return tall ? transposed(x) : x;
}

test('Muon orthogonalises the momentum of the block matrices and leaves the rest to AdamW', async () => {
  const model = tinyModel(2);
  const gradients = await gradientsOf(model, batchesOf('crossEntropy', 0));
  const optimizer: OptimizerOptions = { ...MUON, weightDecay: 0, clipNorm: 1e9 };
  await withTrainer(model, { optimizer }, async (trainer) => {
    await trainer.step(batchesOf('crossEntropy', 0), { learningRate: 0.01, muonLearningRate: 0.02 });
    const found = trainer.model().tensors;
    for (const [name, { data, shape }] of model.tensors) {
      const g = gradients.get(name)!;
      const [rows, columns] = [shape[0]!, shape[1] ?? 1];
      const block = shape.length === 2 && name.startsWith('model.layers.');
      // In the first step the momentum is a multiple of the gradient, and the iteration normalises its size away.
      const update = block
        ? newtonSchulz(Array.from({ length: rows }, (_, r) => Array.from(g.subarray(r * columns, (r + 1) * columns)))).flat()
        : undefined;
      for (let i = 0; i < data.length; i++) {
        const change = update ? 0.02 * Math.sqrt(Math.max(1, rows / columns)) * update[i]! : (0.01 * g[i]!) / (Math.abs(g[i]!) + 1e-8);
        const error = Math.abs(data[i]! - found.get(name)!.data[i]! - change);
        assert.ok(error < 2e-5, `${name}[${i}] changed by ${data[i]! - found.get(name)!.data[i]!}, by hand ${change}`);
      }
    }
    await assert.rejects(trainer.step(batchesOf('crossEntropy', 1), { learningRate: 0.01 }), {
      type: 'BadInput',
      message: /muonLearningRate/,
    });
  });
});

const variants: [string, 'crossEntropy' | 'softBCE' | 'preference', Partial<TrainerOptions>][] = [
  ['AdamW, cross entropy', 'crossEntropy', {}],
  ['Muon, factored tables', 'crossEntropy', { optimizer: MUON, factors: FACTORS }],
  ['Muon, preference', 'preference', { optimizer: MUON }],
  ['AdamW, soft BCE, factored embedding', 'softBCE', { factors: FACTORS }],
];
for (const [what, objective, options] of variants) {
  test(`${what}: one, two and three lanes give the same bytes`, async () => {
    const model = tinyModel(5, { score: objective === 'softBCE' });
    const results = await Promise.all(
      [1, 2, 3].map((lanes) =>
        withTrainer(model, { ...options, objective, lanes }, async (trainer) => {
          const reports = [];
          for (let step = 0; step < 3; step++) reports.push(await trainer.step(batchesOf(objective, step, 5), RATES));
          return { reports, model: digest(trainer), state: sha256(trainer.save()) };
        }),
      ),
    );
    assert.deepEqual(results[1], results[0]);
    assert.deepEqual(results[2], results[0]);
  });

  test(`${what}: stopping and going on at any step gives the bytes of never having stopped`, async () => {
    const steps = 5;
    const model = tinyModel(6, { score: objective === 'softBCE' });
    const run = async (trainer: Trainer, from: number) => {
      for (let step = from; step < steps; step++) await trainer.step(batchesOf(objective, step), RATES);
      return { model: digest(trainer), state: sha256(trainer.save()) };
    };
    const saved: Uint8Array[] = [];
    const undisturbed = await withTrainer(model, { ...options, objective }, async (trainer) => {
      for (let step = 0; step < steps; step++) {
        saved.push(trainer.save());
        await trainer.step(batchesOf(objective, step), RATES);
      }
      return { model: digest(trainer), state: sha256(trainer.save()) };
    });
    // The restoring trainer was made from other weights: everything that matters must be in the saved bytes.
    await withTrainer(tinyModel(99, { score: objective === 'softBCE' }), { ...options, objective }, async (trainer) => {
      await fc.assert(
        fc.asyncProperty(fc.nat(steps - 1), async (at) => {
          trainer.restore(saved[at]!);
          assert.deepEqual(await run(trainer, at), undisturbed);
        }),
        { numRuns: 5, seed: 11 },
      );
    });
  });
}

test('a state that does not fit is refused, by name, and changes nothing', async () => {
  const adamw = await withTrainer(tinyModel(7), {}, async (trainer) => trainer.save());
  await withTrainer(tinyModel(8), { optimizer: MUON }, async (trainer) => {
    const before = trainer.save();
    assert.throws(() => trainer.restore(adamw), { type: 'BadInput', message: /optimizer: "adamw"/ });
    assert.throws(() => trainer.restore(before.slice(0, -4)), { type: 'BadInput', message: /safetensors: tensor '/ });
    assert.throws(() => trainer.restore(writeSafetensors(new Map())), { type: 'BadInput', message: /format/ });
    assert.deepEqual(trainer.save(), before);
  });
  await withTrainer(tinyModel(8, { vocabulary: 12 }), {}, async (trainer) => {
    assert.throws(() => trainer.restore(adamw), { type: 'BadInput', message: /'.*embed_tokens.weight': \[11,8\].*\[12, 8\]/ });
  });
});

test('factored tables: tokens that share all features stay equal, and a factored model goes on as it was', async () => {
  const factors = [...FACTORS.slice(0, 10), FACTORS[3]!]; // token 10 is token 3 under another name
  const model = initModel(llamaConfig({ vocabulary: 11, width: 8, layers: 1, heads: 2, context: 64 }), ['factors'], factors);
  await withTrainer(model, { factors }, async (trainer) => {
    const table = (m: Model) => m.tensors.get('model.embed_tokens.weight')!.data;
    table(trainer.model()).forEach((value, i) => assert.ok(Math.abs(value - table(model)[i]!) < 1e-6)); // the start is kept
    for (let step = 0; step < 3; step++) await trainer.step(batchesOf('crossEntropy', step), RATES);
    for (const name of ['model.embed_tokens.weight', 'lm_head.weight']) {
      const { data } = trainer.model().tensors.get(name)!;
      assert.deepEqual(data.slice(10 * 8, 11 * 8), data.slice(3 * 8, 4 * 8));
      assert.notDeepEqual(data, model.tensors.get(name)!.data);
      // Rows are sums over features: (0, 4) - (1, 4) = (0, 5) - (1, 5), that is row 0 - row 1 = row 4 - row 5.
      for (let i = 0; i < 8; i++) assert.ok(Math.abs(data[i]! - data[8 + i]! - data[32 + i]! + data[40 + i]!) < 1e-5);
    }
  });
  await assert.rejects(createTrainer(model, { objective: 'crossEntropy', optimizer: ADAMW, lanes: 1, factors: FACTORS.slice(1) }), {
    type: 'BadInput',
    message: /factors: "10 tokens" .*11/,
  });
  await assert.rejects(createTrainer(model, { objective: 'crossEntropy', optimizer: ADAMW, lanes: 1, factors: FACTORS.map(() => []) }), {
    message: /factors\[0\]/,
  });
});

test('weights that explode end as Diverged, and the weights stay as they were', async () => {
  const model = tinyModel(9);
  model.tensors.get('lm_head.weight')!.data.fill(3e38);
  await withTrainer(model, {}, async (trainer) => {
    await assert.rejects(trainer.step(batchesOf('crossEntropy', 0), RATES), { type: 'Diverged', message: /step 1: the loss is/ });
    assert.deepEqual(trainer.model().tensors, model.tensors);
  });
});

for (const optimizer of [ADAMW, MUON]) {
  test(`a short run with ${optimizer.kind} learns sequences by heart: the loss falls from about log V to below a tenth of that`, async () => {
    const random = new Random(['overfit']);
    const vocabulary = 32;
    const trees = Array.from({ length: 4 }, (_, i) => chain([i, ...Array.from({ length: 15 }, () => random.below(vocabulary))]));
    const reads = trees.flatMap(({ ids }, tree) => ids.slice(1).map((_, node) => ({ tree, node })));
    const targets = reads.map(({ tree, node }) => trees[tree]!.ids[node + 1]!);
    const batch: Batch = { trees, terms: { objective: 'crossEntropy', reads, targets, weights: reads.map(() => 1 / reads.length) } };
    const model = initModel(llamaConfig({ vocabulary, width: 32, layers: 2, heads: 2, context: 64 }), ['overfit']);
    await withTrainer(model, { optimizer: { ...optimizer, weightDecay: 0 } }, async (trainer) => {
      const losses = [];
      for (let step = 0; step < 60; step++) losses.push((await trainer.step([batch], { learningRate: 1e-2, muonLearningRate: 0.02 })).loss);
      assert.ok(Math.abs(losses[0]! - Math.log(vocabulary)) < 1.5, `the first predictions are guesses, the loss is ${losses[0]}`);
      assert.ok(losses.at(-1)! < 0.1 * losses[0]!, `loss after 60 steps: ${losses.at(-1)}`);
    });
  });
}
