/** Models on disk: the safetensors format, the Hugging Face layout, and the refusal of everything that is not well formed, by name. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { headName, initModel, llamaConfig, modelFiles, readModel, toCausalModel, toScoreModel } from '../../learning/model.ts';
import { readSafetensors, writeSafetensors } from '../../learning/safetensors.ts';
import type { LlamaConfig, Tensor } from '../../learning/types.ts';
import { tinyModel } from './reference.ts';

const TOKENIZER = '{"version":"1.0"}';

test('law: safetensors keeps every bit of every tensor', () => {
  const tensor = fc.tuple(fc.array(fc.nat(4), { maxLength: 3 }), fc.infiniteStream(fc.float())).map(([shape, numbers]): Tensor => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => numbers.next().value as number),
  }));
  fc.assert(
    fc.property(
      fc.dictionary(
        fc.string({ unit: 'grapheme' }).filter((name) => name !== '__metadata__'),
        tensor,
      ),
      (dictionary) => {
        const tensors = new Map(Object.entries(dictionary));
        const { tensors: found, metadata } = readSafetensors(writeSafetensors(tensors, { step: '7' }));
        assert.deepEqual(metadata, { step: '7' });
        assert.deepEqual([...found.keys()].sort(), [...tensors.keys()].sort());
        for (const [name, { shape, data }] of tensors) {
          assert.deepEqual(found.get(name)!.shape, shape);
          assert.deepEqual(new Uint8Array(found.get(name)!.data.buffer), new Uint8Array(data.buffer));
        }
      },
    ),
  );
});

/** The example of the format's own description, laid out by hand: https://github.com/huggingface/safetensors#format */
function file(header: unknown, body: number[]): Uint8Array {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return new Uint8Array(Buffer.concat([length, json, Buffer.from(body)]));
}

test('safetensors: bytes laid out by hand are read as the format says', () => {
  const bytes = file(
    { b: { dtype: 'F32', shape: [1], data_offsets: [8, 12] }, a: { dtype: 'F32', shape: [2, 1], data_offsets: [0, 8] } },
    [
      // 1, -2 and 0.5 in IEEE 754 single precision, little-endian
      0, 0, 128, 63, 0, 0, 0, 192, 0, 0, 0, 63,
    ],
  );
  const { tensors } = readSafetensors(bytes);
  assert.deepEqual([...tensors.get('a')!.data], [1, -2]);
  assert.deepEqual([...tensors.get('b')!.data], [0.5]);
  const written = writeSafetensors(tensors);
  assert.equal(Number(new DataView(written.buffer).getBigUint64(0, true)) % 8, 0); // numbers start aligned
});

test('safetensors: what is wrong is refused, and the tensor is named', () => {
  const good = { dtype: 'F32', shape: [2], data_offsets: [0, 8] };
  const eight = new Array<number>(8).fill(0);
  const wrong: [Uint8Array, RegExp][] = [
    [new Uint8Array(4), /4 bytes are too few/],
    [file({ a: good }, eight).slice(0, 20), /header claims \d+ bytes/],
    [file('not JSON', eight), /header is not JSON/],
    [file('[]', eight), /no JSON object/],
    [file({ a: { ...good, dtype: 'F16', shape: [4] } }, eight), /tensor 'a' has dtype "F16"/],
    [file({ a: { ...good, shape: [-1] } }, eight), /tensor 'a' has the shape/],
    [file({ a: { ...good, data_offsets: [4] } }, eight), /tensor 'a' has the offsets/],
    [file({ a: good }, eight.slice(2)), /tensor 'a' ends at byte 8 of 6; the file is truncated/],
    [file({ a: { ...good, shape: [3] } }, eight), /tensor 'a' of shape \[3\] needs 12 bytes, not 8/],
    [file({ a: good, b: { ...good, shape: [1], data_offsets: [4, 8] } }, eight), /tensor 'b' starts at byte 4 of the data, not at 8/],
    [file({ a: good }, [...eight, 0]), /1 bytes at the end belong to no tensor/],
    [file({ a: null }, []), /tensor 'a'/],
  ];
  for (const [bytes, message] of wrong) assert.throws(() => readSafetensors(bytes), { type: 'BadInput', message });
});

test('law: a model file cut short anywhere is refused', () => {
  const bytes = modelFiles(tinyModel(1), TOKENIZER)['model.safetensors'];
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), (length) => {
      assert.throws(() => readSafetensors(bytes.slice(0, length)), { type: 'BadInput' });
    }),
  );
});

test('a model comes back from its files, and equal models have equal files', () => {
  for (const model of [tinyModel(1), tinyModel(1, { score: true })]) {
    const files = modelFiles(model, TOKENIZER);
    const { model: found, tokenizerJson } = readModel(files);
    assert.equal(tokenizerJson, TOKENIZER);
    assert.deepEqual(found.config, model.config);
    assert.deepEqual(new Map([...found.tensors].sort()), new Map([...model.tensors].sort()));
    const shuffled = {
      config: Object.fromEntries(Object.entries(model.config).toReversed()) as LlamaConfig,
      tensors: new Map([...model.tensors].toReversed()),
    };
    assert.deepEqual(modelFiles(shuffled, TOKENIZER), files);
  }
  assert.deepEqual(
    Object.keys(JSON.parse(new TextDecoder().decode(modelFiles(tinyModel(1), TOKENIZER)['config.json'])) as object).includes('rope_theta'),
    true,
  );
});

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

test('a model that is not well formed is refused; the field or tensor is named', () => {
  const encode = (value: unknown) => new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value));
  const model = tinyModel(3);
  const files = modelFiles(model, TOKENIZER);
  const configs: [Record<string, unknown> | string, RegExp][] = [
    ['{', /config.json is not JSON/],
    ['null', /config.json: null/],
    [{ architectures: ['GPT2LMHeadModel'] }, /architectures: \["GPT2LMHeadModel"\]/],
    [{ hidden_act: 'gelu' }, /hidden_act: "gelu" .*"silu"/],
    [{ tie_word_embeddings: true }, /tensor 'lm_head.weight'/],
    [{ tie_word_embeddings: 'yes' }, /tie_word_embeddings: "yes"/],
    [{ attention_bias: true }, /attention_bias: true/],
    [{ rope_scaling: { type: 'dynamic', factor: 2 } }, /rope_scaling.rope_type: "dynamic"/],
    [{ rope_scaling: { type: 'linear' } }, /rope_scaling.factor: null/],
    [{ rope_parameters: { rope_type: 'default', rope_theta: 5 } }, /rope_parameters.rope_theta: 5 .*10000/],
    [{ attention_dropout: 0.1 }, /attention_dropout: 0.1/],
    [{ quantization_config: {} }, /quantization_config/],
    [{ num_key_value_heads: 3 }, /num_key_value_heads: 3 .*divisor of num_attention_heads \(2\)/],
    [{ head_dim: 3 }, /head_dim: 3 .*even/],
    [{ num_hidden_layers: 3 }, /tensor 'model.layers.2.input_layernorm.weight': null/],
    [{ num_hidden_layers: 1 }, /tensor 'model.layers.1.input_layernorm.weight'/],
    [{ vocab_size: 12 }, /shape of tensor 'model.embed_tokens.weight': \[11,8\] .*\[12, 8\]/],
    [{ hidden_size: -1 }, /hidden_size: -1/],
  ];
  for (const [change, message] of configs) {
    const config = typeof change === 'string' ? change : { ...model.config, ...change };
    assert.throws(() => readModel({ ...files, 'config.json': encode(config) }), { type: 'BadInput', message });
  }
  const weights = (change: (tensors: Map<string, Tensor>) => void) => {
    const tensors = new Map([...model.tensors].map(([name, { shape, data }]) => [name, { shape, data: data.slice() }]));
    change(tensors);
    return { ...files, 'model.safetensors': writeSafetensors(tensors) };
  };
  const name = 'model.layers.1.mlp.up_proj.weight';
  assert.throws(() => readModel(weights((tensors) => tensors.delete(name))), {
    type: 'BadInput',
    message: /'model.layers.1.mlp.up_proj.weight': null .*\[12, 8\]/,
  });
  assert.throws(() => readModel(weights((tensors) => tensors.set(name, { shape: [8, 12], data: tensors.get(name)!.data }))), {
    message: /up_proj.weight': \[8,12\]/,
  });
  assert.throws(() => readModel(weights((tensors) => (tensors.get(name)!.data[5] = Number.NaN))), {
    type: 'BadInput',
    message: /up_proj.weight'.*finite/,
  });
  assert.throws(() => readModel(weights((tensors) => tensors.set('surplus', { shape: [1], data: new Float32Array(1) }))), {
    message: /tensor 'surplus'/,
  });
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
