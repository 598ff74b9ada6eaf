/**
 * The same numbers as PyTorch, transformers and peft: outputs, loss, every gradient and the weights after 20 steps of AdamW, against golden files that
 * `bench/parity/golden.py` made with those libraries (each file names the versions). A case is added there; nothing here knows its name.
 */
import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { basename, join } from 'node:path';
import { after, before, test } from 'node:test';
import { Lane } from '../../learning/lanes/lane.ts';
import { TOLERANCE, compareWithGolden, most } from './golden-case.ts';

const FOLDER = join(import.meta.dirname, 'golden');
const files = globSync('*.safetensors', { cwd: FOLDER }).sort();

let lane: Lane;
before(() => {
  lane = new Lane();
});
after(() => lane.close());

test('there are golden files, made by the pinned script', () => {
  assert.ok(files.length >= 6, files.join());
});

test('a number that is none is never within a tolerance', () => {
  assert.ok(Number.isNaN(most([Number.NaN, 1e-7])) && Number.isNaN(most([1, Number.NaN, 2])));
});

for (const file of files) {
  test(`${basename(file, '.safetensors')}: outputs, loss, gradients and 20 steps as PyTorch has them`, async (t) => {
    const worst = await compareWithGolden(join(FOLDER, file), lane);
    const kinds = ['outputs', 'loss', 'gradients', 'weights'] as const;
    t.diagnostic(kinds.map((kind) => `${kind} ${worst[kind].toExponential(1)}`).join(', '));
    for (const kind of kinds) assert.ok(worst[kind] <= TOLERANCE, `${kind} differ by ${worst[kind]}: ${JSON.stringify(worst)}`);
  });
}
