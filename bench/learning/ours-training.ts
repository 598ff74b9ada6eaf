/** Ratchet's trainer as a contestant. Orders: `prepare` (model folder, batch file, micro-batches), `step` (count). */
import { readFileSync } from 'node:fs';
import { microBatches } from '../../learning/batch.ts';
import { readModelFolder } from '../../learning/model-files.ts';
import { createTrainer } from '../../learning/trainer.ts';
import type { Batch, Trainer } from '../../learning/types.ts';
import { serve } from './serve.ts';
import type { Sequence } from './workload.ts';

let trainer: Trainer | undefined;
let batches: Batch[];

/** A step's micro-batches; every counted position is read. The loss is the mean over them, as `transformers` takes it. */
function stepOf(sequences: Sequence[], count: number): Batch[] {
  const counted = sequences.reduce((sum, { targets }) => sum + targets.length, 0);
  return microBatches(sequences, count, ({ ids }) => ids.length).map((part) => ({
    trees: part.map(({ ids }) => ({ ids, parents: ids.map((_, i) => i - 1) })),
    terms: {
      objective: 'crossEntropy',
      reads: part.flatMap(({ targets }, tree) => targets.map((target) => ({ tree, node: target - 1 }))),
      targets: part.flatMap(({ ids, targets }) => targets.map((target) => ids[target]!)),
      weights: part.flatMap(({ targets }) => targets.map(() => 1 / counted)),
    },
  }));
}

await serve(async (order) => {
  if (order.order === 'prepare') {
    const { model } = readModelFolder(order['model'] as string);
    const sequences = JSON.parse(readFileSync(order['batch'] as string, 'utf8')) as Sequence[];
    batches = stepOf(sequences, order['microBatches'] as number);
    await trainer?.close();
    trainer = await createTrainer(model, {
      objective: 'crossEntropy',
      optimizer: { kind: 'adamw', beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01, clipNorm: 1 },
      lanes: (order['lanes'] as number | undefined) ?? 2,
    });
    return {};
  }
  const losses: number[] = [];
  for (let i = 0; i < (order['count'] as number); i++) losses.push((await trainer!.step(batches, { learningRate: 1e-3 })).loss);
  return { losses };
});
