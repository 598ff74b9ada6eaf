/** One golden file of `bench/parity/golden.py` against this engine. Shared by the test of the committed files and by the live comparison in `bench/parity/`. */
import { readFileSync } from 'node:fs';
import { parseConfig } from '../../learning/config.ts';
import { createDecoder } from '../../learning/decoder.ts';
import type { Lane } from '../../learning/lanes/lane.ts';
import { mergeAdapter, parseAdapterConfig } from '../../learning/lora.ts';
import type { Adapter } from '../../learning/lora.ts';
import { readSafetensors } from '../../learning/safetensors.ts';
import { createTrainer } from '../../learning/trainer.ts';
import type { Batch, Model, OptimizerOptions, Tensor } from '../../learning/types.ts';
import { gradientsOn } from './reference.ts';

/** Largest allowed difference: absolute for outputs, loss and weights, relative to a tensor's largest element for gradients. */
export const TOLERANCE = 1e-4;

/** The largest differences, and the tensors that they are in. */
export interface Differences {
  outputs: number;
  loss: number;
  gradients: number;
  weights: number;
  worstGradient: string;
  worstWeight: string;
}

/** The largest magnitude; NaN where one is NaN. */
export function most(values: Iterable<number>): number {
  let largest = 0;
  for (const value of values) largest = Math.max(largest, Math.abs(value));
  return largest;
}
/** Is the difference worse than the worst so far? NaN is worse than any number. */
const isWorse = (found: number, worst: number): boolean => !Number.isNaN(worst) && !(found <= worst);
function difference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return a.length === b.length ? most(Array.from(a, (value, i) => value - b[i]!)) : Infinity;
}

/** The head's outputs at the reads of a batch, flat: logits or scores. */
async function outputsOf(model: Model, { trees, terms: { reads } }: Batch): Promise<number[]> {
  const decoder = await createDecoder(model, { rows: trees.length, context: model.config.max_position_embeddings });
  try {
    const nodes = trees.map(({ ids, parents }, row) => ({ row, ids, parents, reads: [...ids.keys()], keep: 0 }));
    const outputs = await decoder.step(nodes);
    const starts = trees.map((_, tree) => trees.slice(0, tree).reduce((sum, { ids }) => sum + ids.length, 0));
    return reads.flatMap(({ tree, node }) => [...outputs[starts[tree]! + node]!]);
  } finally {
    await decoder.close();
  }
}

/** Outputs, loss, every gradient, and the weights after the file's steps of AdamW, against what the file holds. Throws where the tensors are not the same ones. */
export async function compareWithGolden(file: string, lane: Lane): Promise<Differences> {
  const { tensors, metadata } = readSafetensors(readFileSync(file));
  const json = (key: string) => JSON.parse(metadata[key]!) as unknown;
  const group = (prefix: string) =>
    new Map(
      [...tensors].flatMap(([name, tensor]): [string, Tensor][] => (name.startsWith(prefix) ? [[name.slice(prefix.length), tensor]] : [])),
    );
  const config = parseConfig(json('config'));
  const model: Model = { config, tensors: group('weights/') };
  const adapter: Adapter | undefined = metadata['adapter']
    ? { config: parseAdapterConfig(json('adapter'), config), tensors: group('adapter/') }
    : undefined;
  const batches = json('batches') as Batch[];
  const first = batches[0]!;
  const worst: Differences = { outputs: 0, loss: 0, gradients: 0, weights: 0, worstGradient: '', worstWeight: '' };

  const found = await outputsOf(adapter ? mergeAdapter(model, adapter) : model, first);
  worst.outputs = difference(found, tensors.get('outputs')!.data);

  const { loss, gradients } = await (await gradientsOn([lane], model, first.terms.objective, adapter))([first]);
  worst.loss = Math.abs(loss - (json('loss') as number));
  const expected = group('gradients/');
  const [ours, theirs] = [[...gradients.keys()].sort().join(), [...expected.keys()].sort().join()];
  if (ours !== theirs) throw new Error(`gradients of ${ours}; ${theirs} were expected`);
  for (const [name, { data }] of expected) {
    const relative = difference(gradients.get(name)!, data) / most(data);
    if (isWorse(relative, worst.gradients)) Object.assign(worst, { gradients: relative, worstGradient: name });
  }

  const trainer = await createTrainer(model, {
    objective: first.terms.objective,
    optimizer: json('optimizer') as OptimizerOptions,
    lanes: 1,
    ...(adapter && { adapter }),
  });
  try {
    const learningRate = json('learning_rate') as number;
    for (let step = 0; step < (json('steps') as number); step++) await trainer.step([batches[step % batches.length]!], { learningRate });
    const after = adapter ? trainer.adapter()!.tensors : trainer.model().tensors;
    for (const [name, { data }] of group('trained/')) {
      const apart = difference(after.get(name)!.data, data);
      if (isWorse(apart, worst.weights)) Object.assign(worst, { weights: apart, worstWeight: name });
    }
  } finally {
    await trainer.close();
  }
  return worst;
}
