/** Models in memory: new weights, and a trunk under another head. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { headName, initModel, llamaConfig, toCausalModel, toScoreModel, withValueHead } from '../../learning/model.ts';
import { tinyModel } from './reference.ts';

test('a policy becomes a reward model and back; the trunk is copied, not shared', () => {
  const policy = tinyModel(2);
  const weight = Float32Array.from({ length: 8 }, (_, i) => i);
  const score = toScoreModel(policy, weight);
  assert.deepEqual(score.config.architectures, ['LlamaForSequenceClassification']);
  assert.deepEqual(score.tensors.get('score.weight'), { shape: [1, 8], data: weight });
  assert.ok(!score.tensors.has('lm_head.weight'));
  assert.deepEqual(toCausalModel(score, policy.tensors.get('lm_head.weight')!.data), policy);
  score.tensors.get('model.norm.weight')!.data.fill(0);
  assert.notEqual(policy.tensors.get('model.norm.weight')!.data[0], 0);
  assert.throws(() => toScoreModel(policy, new Float32Array(7)), { type: 'BadInput', message: /score.weight: "7 numbers"/ });
});

test('a value head stands beside the language-model head, and goes with it', () => {
  const policy = tinyModel(2, { tied: true });
  const critic = withValueHead(policy);
  assert.deepEqual(critic.tensors.get('value_head.weight'), { shape: [1, 8], data: new Float32Array(8) });
  assert.equal(critic.config.value_head, true);
  assert.equal(policy.config.value_head, undefined);
  const score = toScoreModel(critic, new Float32Array(8));
  assert.ok(!score.tensors.has('value_head.weight') && !('value_head' in score.config));
  assert.throws(() => withValueHead(score), { type: 'BadInput', message: /value_head/ });
});

test('new weights are a function of the key alone, with the stated spread', () => {
  const config = llamaConfig({ vocabulary: 64, width: 64, layers: 2, heads: 4, context: 32 });
  const model = initModel(config, ['seed', 1]);
  assert.deepEqual(initModel(config, ['seed', 1]), model);
  assert.notDeepEqual(initModel(config, ['seed', 2]), model);
  const deviation = (name: string) => {
    const { data } = model.tensors.get(name)!;
    return Math.sqrt(data.reduce((sum, x) => sum + x * x, 0) / data.length);
  };
  const expected: [string, number][] = [
    ['model.embed_tokens.weight', 0.25],
    [headName(config), 1 / 8],
    ['model.layers.0.self_attn.q_proj.weight', 1 / 8],
    ['model.layers.1.mlp.up_proj.weight', 1 / 8],
  ];
  for (const part of ['self_attn.o_proj', 'mlp.down_proj']) assert.equal(deviation(`model.layers.1.${part}.weight`), 0);
  for (const [name, value] of expected)
    assert.ok(Math.abs(deviation(name) / value - 1) < 0.05, `${name}: ${deviation(name)}, stated ${value}`);
  assert.ok(model.tensors.get('model.norm.weight')!.data.every((x) => x === 1));
});
