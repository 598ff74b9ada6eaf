/**
 * The same numbers as PyTorch, transformers and peft: outputs, loss, every gradient and the weights after 20 steps of AdamW, against golden files that
 * `bench/parity/golden.py` made with those libraries (each file names the versions). A case is added there; nothing here knows its name.
 */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { after, before, test } from 'node:test';
import { parseConfig } from '../../learning/config.ts';
import { createDecoder } from '../../learning/decoder.ts';
import { GradientLanes } from '../../learning/gradient-lanes.ts';
import { Lane } from '../../learning/lanes/lane.ts';
import { mergeAdapter, parseAdapterConfig } from '../../learning/lora.ts';
import type { Adapter } from '../../learning/lora.ts';
import { readSafetensors } from '../../learning/safetensors.ts';
import { createTrainer } from '../../learning/trainer.ts';
import type { Batch, Model, OptimizerOptions, Tensor } from '../../learning/types.ts';

/** Largest allowed difference: absolute for outputs and weights, relative to a tensor's largest element for gradients. */
const TOLERANCE = 1e-4;

const FOLDER = join(import.meta.dirname, 'golden');
const files = globSync('*.safetensors', { cwd: FOLDER }).sort();

let lane: Lane;
before(() => {
  lane = new Lane();
});
after(() => lane.close());

function most(values: Iterable<number>): number {
  let largest = 0;
  for (const value of values) largest = Math.max(largest, Math.abs(value));
  return largest;
}
const difference = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  assert.equal(a.length, b.length);
  return most(Array.from(a, (value, i) => value - b[i]!));
};

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

test('there are golden files, made by the pinned script', () => {
  assert.ok(files.length >= 6, files.join());
});

for (const file of files) {
  test(`${basename(file, '.safetensors')}: outputs, loss, gradients and 20 steps as PyTorch has them`, async (t) => {
    const { tensors, metadata } = readSafetensors(readFileSync(join(FOLDER, file)));
    const json = (key: string) => JSON.parse(metadata[key]!) as unknown;
    const group = (prefix: string) =>
      new Map(
        [...tensors].flatMap(([name, tensor]): [string, Tensor][] =>
          name.startsWith(prefix) ? [[name.slice(prefix.length), tensor]] : [],
        ),
      );
    const config = parseConfig(json('config'));
    const model: Model = { config, tensors: group('weights/') };
    const adapter: Adapter | undefined = metadata['adapter']
      ? { config: parseAdapterConfig(json('adapter'), config), tensors: group('adapter/') }
      : undefined;
    const batches = json('batches') as Batch[];
    const first = batches[0]!;

    const worst = { outputs: 0, gradients: 0, weights: 0 };
    const found = await outputsOf(adapter ? mergeAdapter(model, adapter) : model, first);
    worst.outputs = difference(found, tensors.get('outputs')!.data);
    assert.ok(worst.outputs <= TOLERANCE, `outputs differ by ${worst.outputs}`);

    const engine = new GradientLanes(config, first.terms.objective, adapter?.config);
    const all = new Map([...model.tensors, ...(adapter?.tensors ?? [])]);
    engine.open([lane], all);
    const { loss, gradients } = await engine.compute([first], all);
    const expectedLoss = json('loss') as number;
    assert.ok(Math.abs(loss - expectedLoss) <= TOLERANCE, `loss ${loss}, PyTorch ${expectedLoss}`);
    const expected = group('gradients/');
    assert.deepEqual([...gradients.keys()].sort(), [...expected.keys()].sort());
    for (const [name, { data }] of expected) {
      const relative = difference(gradients.get(name)!, data) / most(data);
      worst.gradients = Math.max(worst.gradients, relative);
      assert.ok(relative <= TOLERANCE, `the gradient of ${name} differs by ${relative} of its largest element`);
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
        worst.weights = Math.max(worst.weights, apart);
        assert.ok(apart <= TOLERANCE, `${name} differs by ${apart} after the steps`);
      }
    } finally {
      await trainer.close();
    }
    t.diagnostic(
      Object.entries(worst)
        .map(([what, value]) => `${what} ${value.toExponential(1)}`)
        .join(', '),
    );
  });
}
