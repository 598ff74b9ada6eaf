/**
 * The file layouts, live in both directions: what transformers and peft write is read here and gives their outputs, and what is written here is loaded
 * by them and gives ours. `node bench/parity/layouts.ts`; with `--golden` what they write replaces the folders of test/learning/golden/.
 */
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readAdapterFolder, writeAdapterFolder } from '../../learning/adapter-files.ts';
import { llamaConfig } from '../../learning/model.ts';
import { initAdapter, mergeAdapter } from '../../learning/lora.ts';
import type { Adapter } from '../../learning/lora.ts';
import { initModel, isScore, toScoreModel, withValueHead } from '../../learning/model.ts';
import { readModelFolder, readSafetensorsFile, writeModelFolder, writeSafetensorsFile } from '../../learning/model-files.ts';
import { createDecoder } from '../../learning/decoder.ts';
import type { Model } from '../../learning/types.ts';
import { Random } from '../../core/random.ts';
import { runPython } from '../python.ts';

const python = (...args: string[]) =>
  runPython(join(import.meta.dirname, 'requirements.txt'), join(import.meta.dirname, 'layouts.py'), args);
const LIMIT = 1e-4;
const LENGTH = 24;

/** The head's outputs at every position of a plain sequence, flat. */
async function outputsOf(model: Model, ids: number[]): Promise<Float32Array> {
  const decoder = await createDecoder(model, { rows: 1, context: ids.length });
  try {
    const rows = await decoder.step([{ row: 0, ids, reads: [...ids.keys()], keep: ids.length }]);
    return Float32Array.from(rows.flatMap((row) => [...row]));
  } finally {
    await decoder.close();
  }
}

async function compare(folder: string, name: string): Promise<boolean> {
  const path = join(folder, name);
  const expected = readSafetensorsFile(join(path, 'expected.safetensors'));
  const adapted = readdirSync(path).includes('adapter_config.json');
  const base = adapted
    ? join(
        folder,
        (JSON.parse(readFileSync(join(path, 'adapter_config.json'), 'utf8')) as { base_model_name_or_path: string })
          .base_model_name_or_path,
      )
    : path;
  const { model } = readModelFolder(base);
  const found = await outputsOf(adapted ? mergeAdapter(model, readAdapterFolder(path, model.config)) : model, [
    ...expected.get('ids')!.data,
  ]);
  const wanted = expected.get('outputs')!.data;
  const difference = found.reduce((most, x, i) => Math.max(most, Math.abs(x - wanted[i]!)), found.length === wanted.length ? 0 : Infinity);
  console.log(`${difference <= LIMIT ? 'ok' : 'WRONG'}: ${name}: outputs differ by at most ${difference.toExponential(2)}`);
  return difference <= LIMIT;
}

/** A model all of whose weights matter: new ones have zeros. */
function random(model: Model, seed: number): Model {
  for (const [name, { data, shape }] of model.tensors) {
    const draws = new Random(['layouts', seed, name]);
    for (let i = 0; i < data.length; i++) data[i] = shape.length === 1 ? 0.5 + draws.uniform() : 0.3 * draws.normal();
  }
  return model;
}

async function writeOurs(folder: string): Promise<void> {
  const size = { vocabulary: 24, width: 16, layers: 2, heads: 4, keyValueHeads: 2, feedForward: 20, context: 64 };
  const causal = (changes: object, seed: number) => random(initModel(llamaConfig({ ...size, ...changes }), ['layouts']), seed);
  const policy = causal({}, 1);
  const score = random(toScoreModel(policy, new Float32Array(16)), 4);
  const draws = new Random(['layouts', 'ids']);
  const ids = Array.from({ length: LENGTH }, () => draws.below(24));
  const save = async (name: string, model: Model, write: (path: string) => void) => {
    write(join(folder, name));
    const outputs = await outputsOf(model, ids);
    const shape = isScore(model.config) ? [LENGTH] : [LENGTH, 24];
    const numbers = { shape: [LENGTH], data: Float32Array.from(ids) };
    writeSafetensorsFile(
      join(folder, name, 'expected.safetensors'),
      new Map([
        ['ids', numbers],
        ['outputs', { shape, data: outputs }],
      ]),
    );
  };
  const plain = (name: string, model: Model, options = {}) => save(name, model, (path) => writeModelFolder(path, model, null, options));
  await plain('policy', policy);
  await plain('policy-sharded', policy, { shardBytes: 4000 });
  await plain('tied-scaled', causal({ tied: true, headWidth: 6 }, 2));
  await plain('value-head', random(withValueHead(policy), 3));
  await plain('score', score);
  // Rounded numbers are compared as they are read back.
  writeModelFolder(join(folder, 'bfloat16'), policy, null, { dtype: 'BF16', shardBytes: 2000 });
  await save('bfloat16', readModelFolder(join(folder, 'bfloat16')).model, () => undefined);
  const adapters: [string, Model, Adapter][] = [
    ['adapter', policy, initAdapter(policy, { rank: 3, alpha: 5 }, ['layouts'])],
    [
      'adapter-score',
      score,
      initAdapter(score, { rank: 2, alpha: 3, targets: ['k_proj', 'up_proj'], rankStabilised: true, trainHead: true }, ['layouts']),
    ],
  ];
  for (const [name, model, adapter] of adapters) {
    const base = join(folder, model === policy ? 'policy' : 'score');
    random({ config: model.config, tensors: adapter.tensors }, 5);
    await save(name, mergeAdapter(model, adapter), (path) => writeAdapterFolder(path, model.config, adapter, { base }));
  }
}

const home = mkdtempSync(join(tmpdir(), 'ratchet-layouts-'));
try {
  const golden = process.argv.includes('--golden');
  const theirs = golden ? join(import.meta.dirname, '..', '..', 'test', 'learning', 'golden', 'layouts') : join(home, 'theirs');
  if (golden) rmSync(theirs, { recursive: true, force: true });
  console.log('written by transformers and peft, read here:');
  python('write', theirs);
  let right = true;
  for (const name of readdirSync(theirs).sort()) right = (await compare(theirs, name)) && right;
  console.log('written here, read by transformers and peft:');
  await writeOurs(join(home, 'ours'));
  python('check', join(home, 'ours'));
  if (!right) process.exitCode = 1;
} finally {
  rmSync(home, { recursive: true, force: true });
}
