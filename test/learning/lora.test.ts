/**
 * LoRA adapters and the layouts of transformers and peft. The folders under golden/layouts were written by those libraries, with the outputs that they
 * compute (`bench/parity/layouts.ts --golden`); gradients and steps of adapters are compared with peft's in parity.test.ts.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { sha256 } from '../../core/digest.ts';
import { Random } from '../../core/random.ts';
import { readAdapterFolder, writeAdapterFolder } from '../../learning/adapter-files.ts';
import { createDecoder } from '../../learning/decoder.ts';
import { initAdapter, mergeAdapter, parseAdapterConfig } from '../../learning/lora.ts';
import type { Adapter } from '../../learning/lora.ts';
import { readModelFolder, readSafetensorsFile } from '../../learning/model-files.ts';
import { readSafetensors, writeSafetensors } from '../../learning/safetensors.ts';
import { createTrainer } from '../../learning/trainer.ts';
import type { Model, OptimizerOptions } from '../../learning/types.ts';
import { randomBatch, tinyModel } from './reference.ts';

const ADAMW: OptimizerOptions = { kind: 'adamw', beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };
const LAYOUTS = join(import.meta.dirname, 'golden', 'layouts');
const HOME = mkdtempSync(join(tmpdir(), 'ratchet-test-lora-'));
after(() => rmSync(HOME, { recursive: true, force: true }));

/** An adapter both of whose factors matter. */
function randomAdapter(model: Model, options: Parameters<typeof initAdapter>[1], seed: number): Adapter {
  const adapter = initAdapter(model, options, ['test']);
  for (const [name, { data }] of adapter.tensors) {
    const random = new Random(['adapter', seed, name]);
    for (let i = 0; i < data.length; i++) data[i] = 0.4 * random.normal();
  }
  return adapter;
}

for (const name of readdirSync(LAYOUTS)) {
  test(`what transformers and peft wrote as '${name}' gives their outputs`, async () => {
    const path = join(LAYOUTS, name);
    const expected = readSafetensorsFile(join(path, 'expected.safetensors'));
    const adapted = readdirSync(path).includes('adapter_config.json');
    const base = adapted ? (JSON.parse(readFileSync(join(path, 'adapter_config.json'), 'utf8')) as Record<string, string>) : null;
    const stored = readModelFolder(base ? join(LAYOUTS, base['base_model_name_or_path']!) : path).model;
    const model = adapted ? mergeAdapter(stored, readAdapterFolder(path, stored.config)) : stored;
    const ids = [...expected.get('ids')!.data];
    const decoder = await createDecoder(model, { rows: 1, context: ids.length });
    try {
      const rows = await decoder.step([{ row: 0, ids, reads: [...ids.keys()], keep: 0 }]);
      const wanted = expected.get('outputs')!.data;
      const found = rows.flatMap((row) => [...row]);
      assert.equal(found.length, wanted.length);
      const worst = found.reduce((most, x, i) => Math.max(most, Math.abs(x - wanted[i]!)), 0);
      assert.ok(worst <= 1e-4, `outputs differ by ${worst}`);
    } finally {
      await decoder.close();
    }
  });
}

test('a new adapter changes nothing; merging adds alpha / r B A, or alpha / sqrt(r) B A', () => {
  const model = tinyModel(1, { keyValueHeads: 1 });
  assert.deepEqual(mergeAdapter(model, initAdapter(model, { rank: 2, alpha: 4 }, ['new'])), model);
  for (const rankStabilised of [false, true]) {
    const adapter = randomAdapter(model, { rank: 2, alpha: 3, targets: ['k_proj'], rankStabilised }, 1);
    assert.deepEqual([...adapter.tensors.keys()].slice(0, 2), [
      'base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight',
      'base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight',
    ]);
    const merged = mergeAdapter(model, adapter);
    const name = 'model.layers.1.self_attn.k_proj';
    const [a, b] = ['A', 'B'].map((factor) => adapter.tensors.get(`base_model.model.${name}.lora_${factor}.weight`)!.data);
    const before = model.tensors.get(`${name}.weight`)!;
    const [rows, columns] = before.shape as [number, number];
    const scale = rankStabilised ? 3 / Math.SQRT2 : 3 / 2;
    for (let o = 0; o < rows; o++) {
      for (let i = 0; i < columns; i++) {
        const change = scale * (b![2 * o]! * a![i]! + b![2 * o + 1]! * a![columns + i]!);
        const expected = before.data[o * columns + i]! + change;
        assert.ok(Math.abs(merged.tensors.get(`${name}.weight`)!.data[o * columns + i]! - expected) < 1e-6);
      }
    }
    for (const [other, tensor] of model.tensors) if (!other.includes('k_proj')) assert.deepEqual(merged.tensors.get(other), tensor);
  }
});

test('only the adapter is trained and has optimizer state; the same bytes on one and two lanes and across a stop', async () => {
  const model = tinyModel(2, { score: true });
  const before = sha256(writeSafetensors(model.tensors));
  const adapter = initAdapter(model, { rank: 2, alpha: 4, targets: ['q_proj', 'down_proj'], trainHead: true }, ['test']);
  const batches = (step: number) => [0, 1, 2].map((i) => randomBatch('softBCE', new Random(['lora', step, i]), 11));
  const train = async (lanes: number, stopAfter: number | null): Promise<string> => {
    const options = { objective: 'softBCE', optimizer: ADAMW, lanes, adapter } as const;
    let trainer = await createTrainer(model, options);
    try {
      for (let step = 0; step < 4; step++) {
        await trainer.step(batches(step), { learningRate: 0.01 });
        if (step !== stopAfter) continue;
        const state = trainer.save();
        const kinds = [...readSafetensors(state).tensors.keys()];
        assert.equal(kinds.length, 3 * adapter.tensors.size);
        assert.ok(kinds.every((name) => /^(parameter|adamw\.[mv])\/base_model\.model\./.test(name)));
        await trainer.close();
        trainer = await createTrainer(model, options);
        trainer.restore(state);
      }
      const trained = trainer.adapter()!;
      for (const [name, { data }] of trained.tensors) assert.notDeepEqual(data, adapter.tensors.get(name)!.data, name);
      assert.deepEqual(trainer.model(), mergeAdapter(model, trained));
      return sha256(writeSafetensors(trained.tensors));
    } finally {
      await trainer.close();
    }
  };
  const whole = await train(1, null);
  assert.equal(await train(2, null), whole);
  assert.equal(await train(1, 1), whole);
  assert.equal(sha256(writeSafetensors(model.tensors)), before);
});

test('an adapter comes back from its folder', () => {
  const model = tinyModel(3, { score: true });
  const adapter = randomAdapter(model, { rank: 3, alpha: 2, targets: ['up_proj', 'v_proj'], trainHead: true }, 2);
  const path = join(HOME, 'adapter');
  writeAdapterFolder(path, model.config, adapter, { base: '/models/base' });
  const found = readAdapterFolder(path, model.config);
  assert.deepEqual(new Map([...found.tensors].sort()), new Map([...adapter.tensors].sort()));
  assert.deepEqual(found.config, { ...adapter.config, base_model_name_or_path: '/models/base' });
  assert.deepEqual(found.config.target_modules, ['v_proj', 'up_proj']);
  assert.throws(() => writeAdapterFolder(path, model.config, adapter), { type: 'BadInput', message: /an empty folder/ });
  assert.throws(() => readAdapterFolder(path, tinyModel(3).config), {
    type: 'BadInput',
    message: /task_type: "SEQ_CLS".*LlamaForCausalLM/,
  });
  const weights = join(path, 'adapter_model.safetensors');
  writeFileSync(weights, readFileSync(weights).subarray(0, -1));
  assert.throws(() => readAdapterFolder(path, model.config), {
    type: 'BadInput',
    message: /adapter_model.*score.weight' ends at byte .*truncated/,
  });
});

test('target_modules are understood as PEFT understands them', () => {
  const { config } = tinyModel(4);
  const targets = (value: unknown) =>
    parseAdapterConfig({ peft_type: 'LORA', r: 1, lora_alpha: 1, target_modules: value }, config).target_modules;
  const all = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'];
  assert.deepEqual(targets('all-linear'), all);
  assert.deepEqual(targets(['v_proj', 'self_attn.q_proj']), ['q_proj', 'v_proj']);
  assert.deepEqual(targets('.*\\.(gate|up)_proj'), ['gate_proj', 'up_proj']);
  assert.deepEqual(targets([0, 1].map((layer) => `model.layers.${layer}.mlp.down_proj`)), ['down_proj']);
});

test('an adapter that asks for more than plain LoRA, or does not fit, is refused; the field or tensor is named', () => {
  const model = tinyModel(5, { tied: true });
  const plain = { peft_type: 'LORA', task_type: 'CAUSAL_LM', r: 2, lora_alpha: 4, target_modules: ['q_proj'] };
  const wrong: [unknown, RegExp][] = [
    [[], /adapter_config.json: \[\]/],
    [{ ...plain, peft_type: 'IA3' }, /peft_type: "IA3"/],
    [{ ...plain, r: 0 }, /adapter_config.json: r: 0/],
    [{ ...plain, lora_alpha: '4' }, /lora_alpha: "4"/],
    [{ ...plain, use_dora: true }, /use_dora: true/],
    [{ ...plain, rank_pattern: { q_proj: 3 } }, /rank_pattern/],
    [{ ...plain, layers_to_transform: [0] }, /layers_to_transform/],
    [{ ...plain, bias: 'all' }, /bias: "all"/],
    [{ ...plain, init_lora_weights: 'pissa' }, /init_lora_weights: "pissa"/],
    [{ ...plain, task_type: 'SEQ_CLS' }, /task_type: "SEQ_CLS"/],
    [{ ...plain, modules_to_save: ['embed_tokens'] }, /modules_to_save: "embed_tokens"/],
    [{ ...plain, modules_to_save: ['lm_head'] }, /modules_to_save: "lm_head".*tied/],
    [{ ...plain, target_modules: ['q_proj', 'lm_head'] }, /target_modules\[1\]: "lm_head"/],
    [{ ...plain, target_modules: ['model.layers.0.self_attn.q_proj'] }, /'q_proj' of every layer or of none/],
    [{ ...plain, target_modules: '(' }, /target_modules: "\("/],
  ];
  for (const [config, message] of wrong) assert.throws(() => parseAdapterConfig(config, model.config), { type: 'BadInput', message });
  const adapter = initAdapter(model, { rank: 2, alpha: 4, targets: ['q_proj'] }, ['test']);
  const name = 'base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight';
  const changed = (change: (tensors: Adapter['tensors']) => void): Adapter => {
    const tensors = new Map([...adapter.tensors].map(([key, { shape, data }]) => [key, { shape, data: data.slice() }]));
    change(tensors);
    return { config: adapter.config, tensors };
  };
  const misfits: [Adapter, RegExp][] = [
    [changed((tensors) => tensors.delete(name)), /adapter tensor '.*lora_B.weight': null.*\[8, 2\]/],
    [changed((tensors) => tensors.set(name, { shape: [2, 8], data: new Float32Array(16) })), /lora_B.weight': \[2,8\]/],
    [changed((tensors) => (tensors.get(name)!.data[0] = Number.NaN)), /lora_B.weight'.*finite/],
    [changed((tensors) => tensors.set('x', { shape: [1], data: new Float32Array(1) })), /adapter tensor 'x'/],
  ];
  for (const [misfit, message] of misfits) assert.throws(() => mergeAdapter(model, misfit), { type: 'BadInput', message });
});
