/** Models on disk: the safetensors format, Hugging Face's folders, and the refusal of everything that is not well formed, by name. */
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { configJson, inspectModelFolder, readModel, readModelFolder, weightPieces, writeModelFolder } from '../../learning/model-files.ts';
import { withValueHead } from '../../learning/model.ts';
import { SafetensorsReader, readSafetensors, safetensorsPieces, writeSafetensors } from '../../learning/safetensors.ts';
import type { LlamaConfig, Model, Tensor } from '../../learning/types.ts';
import { tinyModel } from './reference.ts';

const TOKENIZER = '{"version":"1.0"}';
const HOME = mkdtempSync(join(tmpdir(), 'ratchet-test-models-'));
after(() => rmSync(HOME, { recursive: true, force: true }));
const folder = () => mkdtempSync(join(HOME, 'model-'));

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
    [file({ a: { ...good, dtype: 'I64', shape: [1] } }, eight), /tensor 'a' has dtype "I64"/],
    [file({ a: { ...good, dtype: 'BF16' } }, eight), /tensor 'a' of shape \[2\] needs 4 bytes, not 8/],
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

test('half-precision numbers are read as IEEE 754 and bfloat16 define them', () => {
  // binary16: 1, -2, the smallest subnormal, the largest number, -0; bfloat16: the upper half of the float32 of 1, -2, 0.5
  const half = [0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00, 0xff, 0x7b, 0x00, 0x80];
  const brain = [0x80, 0x3f, 0x00, 0xc0, 0x00, 0x3f];
  const header = {
    half: { dtype: 'F16', shape: [5], data_offsets: [0, 10] },
    brain: { dtype: 'BF16', shape: [3], data_offsets: [10, 16] },
  };
  const { tensors } = readSafetensors(file(header, [...half, ...brain]));
  assert.deepEqual([...tensors.get('half')!.data], [1, -2, 2 ** -24, 65504, -0]);
  assert.deepEqual([...tensors.get('brain')!.data], [1, -2, 0.5]);
});

test('law: numbers stored as bfloat16 are the nearest there are, ties to even', () => {
  const stored = (data: Float32Array) => {
    const bytes = Buffer.concat([...safetensorsPieces(new Map([['x', { shape: [data.length], data }]]), { dtype: 'BF16' })]);
    return readSafetensors(bytes).tensors.get('x')!.data;
  };
  // 1 + 1/256 and 1 + 3/256 lie half-way between neighbours that are 1/128 apart
  assert.deepEqual([...stored(Float32Array.of(1 + 1 / 256, 1 + 3 / 256, -1 - 1 / 256))], [1, 1 + 4 / 256, -1]);
  const moderate = fc.float({ min: Math.fround(-1e30), max: Math.fround(1e30), noNaN: true });
  fc.assert(
    fc.property(fc.array(moderate, { minLength: 1 }), (list) => {
      const data = Float32Array.from(list);
      const bits = new Int32Array(1);
      const number = new Float32Array(bits.buffer);
      const neighbour = (x: number, steps: number) => {
        number[0] = x;
        bits[0]! += steps * 0x10000; // the next bfloat16 away from or towards zero
        return number[0];
      };
      stored(data).forEach((found, i) => {
        const error = Math.abs(found - data[i]!);
        for (const steps of [1, -1]) {
          const other = Math.abs(neighbour(found, steps) - data[i]!);
          assert.ok(!(other < error), `${data[i]} became ${found}`);
        }
      });
    }),
  );
  assert.throws(() => stored(Float32Array.of(3.4e38)), { type: 'BadInput', message: /tensor 'x'.*bfloat16/ });
});

test('law: a file that comes in any pieces is what it is as a whole', () => {
  const model = tinyModel(1);
  for (const dtype of ['F32', 'BF16'] as const) {
    const bytes = Buffer.concat([...safetensorsPieces(model.tensors, { dtype })]);
    const whole = readSafetensors(bytes);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1 }), (lengths) => {
        const reader = new SafetensorsReader(bytes.length);
        for (let at = 0, i = 0; at < bytes.length; at += lengths[i++ % lengths.length]!)
          reader.push(bytes.subarray(at, at + lengths[i % lengths.length]!));
        assert.deepEqual(reader.end(), whole);
      }),
      { numRuns: 30 },
    );
  }
});

const fileOf = (model: Model) => Buffer.concat([...weightPieces(model)]);
const same = (a: ReadonlyMap<string, Tensor>, b: ReadonlyMap<string, Tensor>) =>
  assert.deepEqual(new Map([...a].sort()), new Map([...b].sort()));

test('law: a model file cut short anywhere, or with more behind it, is refused', async () => {
  const bytes = fileOf(tinyModel(1));
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), (length) => {
      assert.throws(() => readSafetensors(bytes.subarray(0, length)), { type: 'BadInput' });
    }),
  );
  const config = configJson(tinyModel(1).config);
  await assert.rejects(readModel(config, [bytes.subarray(0, -8)], bytes.length), { type: 'BadInput', message: /truncated/ });
  await assert.rejects(readModel(config, [bytes, bytes], bytes.length), { type: 'BadInput', message: /more than/ });
});

test('a model comes back from its stored form, and equal models have equal bytes', async () => {
  for (const model of [tinyModel(1), tinyModel(1, { score: true }), tinyModel(1, { tied: true }), withValueHead(tinyModel(1))]) {
    const [config, weights] = [configJson(model.config), fileOf(model)];
    const found = await readModel(config, [weights], weights.length);
    assert.deepEqual(found.config, model.config);
    same(found.tensors, model.tensors);
    const shuffled = {
      config: Object.fromEntries(Object.entries(model.config).toReversed()) as LlamaConfig,
      tensors: new Map([...model.tensors].toReversed()),
    };
    assert.deepEqual([configJson(shuffled.config), fileOf(shuffled)], [config, weights]);
  }
});

test('a model comes back from its folder, whole or in shards, and the value head has a file of its own', () => {
  const cases: [Model, number | undefined, string[]][] = [
    [tinyModel(1), undefined, ['config.json', 'model.safetensors', 'tokenizer.json']],
    [tinyModel(1, { tied: true }), 1e9, ['config.json', 'model.safetensors', 'tokenizer.json']],
    // 1,304 numbers of 4 bytes
    [
      tinyModel(1),
      2000,
      [
        'config.json',
        'model-00001-of-00003.safetensors',
        'model-00002-of-00003.safetensors',
        'model-00003-of-00003.safetensors',
        'model.safetensors.index.json',
        'tokenizer.json',
      ],
    ],
    [
      withValueHead(tinyModel(1)),
      undefined,
      ['config.json', 'model-00001-of-00001.safetensors', 'model.safetensors.index.json', 'tokenizer.json', 'value_head.safetensors'],
    ],
  ];
  for (const [model, shardBytes, names] of cases) {
    const path = folder();
    writeModelFolder(path, model, TOKENIZER, shardBytes === undefined ? {} : { shardBytes });
    assert.deepEqual(readdirSync(path).sort(), names);
    const { model: found, tokenizerJson } = readModelFolder(path);
    assert.equal(tokenizerJson, TOKENIZER);
    assert.deepEqual(found.config, model.config);
    same(found.tensors, model.tensors);
    if (shardBytes === undefined) continue;
    for (const { header } of inspectModelFolder(path).files) {
      const bytes = header.tensors.reduce((sum, { begin, end }) => sum + end - begin, 0);
      assert.ok(bytes <= shardBytes || header.tensors.length === 1);
    }
  }
  assert.throws(() => writeModelFolder(HOME, tinyModel(1), null), { type: 'BadInput', message: /an empty folder/ });
});

test('a folder of bfloat16 says so, and is read as the rounded numbers', () => {
  const path = folder();
  const model = tinyModel(1);
  writeModelFolder(path, model, null, { dtype: 'BF16' });
  const { model: found, tokenizerJson } = readModelFolder(path);
  assert.equal(tokenizerJson, null);
  assert.equal(found.config['torch_dtype'], 'bfloat16');
  for (const [name, { data }] of model.tensors) {
    const stored = found.tensors.get(name)!.data;
    // bfloat16 has 8 significant bits
    for (let i = 0; i < data.length; i++) assert.ok(Math.abs(stored[i]! - data[i]!) <= Math.abs(data[i]!) / 256, name);
  }
  assert.ok(inspectModelFolder(path).files.every(({ header }) => header.tensors.every(({ dtype }) => dtype === 'BF16')));
});

test('what other programs store besides is dropped, unless it says something else', () => {
  const model = tinyModel(1, { tied: true });
  const embedding = model.tensors.get('model.embed_tokens.weight')!;
  const frequencies: Tensor = { shape: [2], data: new Float32Array(2) };
  const path = folder();
  writeModelFolder(path, model, null);
  const put = (head: Tensor) =>
    writeFileSync(
      join(path, 'model.safetensors'),
      writeSafetensors(
        new Map([...model.tensors, ['lm_head.weight', head], ['model.layers.0.self_attn.rotary_emb.inv_freq', frequencies]]),
      ),
    );
  put(embedding);
  same(readModelFolder(path).model.tensors, model.tensors);
  put({ ...embedding, data: embedding.data.map((x) => x + 1) });
  assert.throws(() => readModelFolder(path), { type: 'BadInput', message: /'lm_head.weight'.*tie_word_embeddings/ });
});

test('fields that are left out have the defaults of transformers', async () => {
  const model = tinyModel(1);
  const { head_dim: _h, num_key_value_heads: _k, rope_theta: _r, tie_word_embeddings: _t, ...rest } = model.config;
  const found = await readModel(JSON.stringify(rest), [fileOf(model)], fileOf(model).length);
  assert.deepEqual(found.config, model.config);
  const newer = await readModel(
    JSON.stringify({ ...rest, rope_parameters: { rope_theta: 5e5, rope_type: 'default' } }),
    [fileOf(model)],
    fileOf(model).length,
  );
  assert.equal(newer.config.rope_theta, 5e5);
});

test('a model that is not well formed is refused; the field or tensor is named', async () => {
  const model = tinyModel(3);
  const text = configJson(model.config);
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
    const changed = typeof config === 'string' ? config : JSON.stringify(config);
    await assert.rejects(readModel(changed, [writeSafetensors(model.tensors)], writeSafetensors(model.tensors).length), {
      type: 'BadInput',
      message,
    });
  }
  const weights = (change: (tensors: Map<string, Tensor>) => void) => {
    const tensors = new Map([...model.tensors].map(([name, { shape, data }]) => [name, { shape, data: data.slice() }]));
    change(tensors);
    const bytes = writeSafetensors(tensors);
    return readModel(text, [bytes], bytes.length);
  };
  const name = 'model.layers.1.mlp.up_proj.weight';
  await assert.rejects(
    weights((tensors) => tensors.delete(name)),
    {
      type: 'BadInput',
      message: /'model.layers.1.mlp.up_proj.weight': null .*\[12, 8\]/,
    },
  );
  await assert.rejects(
    weights((tensors) => tensors.set(name, { shape: [8, 12], data: tensors.get(name)!.data })),
    {
      message: /up_proj.weight': \[8,12\]/,
    },
  );
  await assert.rejects(
    weights((tensors) => (tensors.get(name)!.data[5] = Number.NaN)),
    {
      type: 'BadInput',
      message: /up_proj.weight'.*finite/,
    },
  );
  await assert.rejects(
    weights((tensors) => tensors.set('surplus', { shape: [1], data: new Float32Array(1) })),
    {
      message: /tensor 'surplus'/,
    },
  );
});

test('a folder whose files disagree is refused; the file and the tensor are named', () => {
  const original = folder();
  writeModelFolder(original, tinyModel(1), TOKENIZER, { shardBytes: 2000 });
  const second = 'model-00002-of-00003.safetensors';
  const index = 'model.safetensors.index.json';
  const edit = (path: string, change: (map: Record<string, string>) => void) => {
    const value = JSON.parse(readFileSync(join(path, index), 'utf8')) as { weight_map: Record<string, string> };
    change(value.weight_map);
    writeFileSync(join(path, index), JSON.stringify(value));
  };
  const wrong: [(path: string) => void, RegExp][] = [
    [(path) => rmSync(join(path, second)), /model-00002-of-00003.safetensors: there is no such file/],
    [(path) => rmSync(join(path, 'config.json')), /config.json: there is no such file/],
    [(path) => writeFileSync(join(path, 'config.json'), '{'), /config.json is not JSON/],
    [(path) => writeFileSync(join(path, index), '[]'), /index.json: weight_map: null/],
    [(path) => edit(path, (map) => (map['model.norm.weight'] = '../x.safetensors')), /'model.norm.weight': "..\/x.safetensors"/],
    [(path) => edit(path, (map) => delete map['model.norm.weight']), /tensor 'model.norm.weight'.*says nothing of it/],
    [(path) => edit(path, (map) => (map['model.norm.weight'] = second)), /tensor 'model.norm.weight'.*says model-00002/],
    [(path) => edit(path, (map) => (map['surplus'] = second)), /tensor 'surplus'.*it is not/],
    [
      (path) => writeFileSync(join(path, second), readFileSync(join(path, second)).subarray(0, -4)),
      /model-00002-of-00003.safetensors: safetensors: tensor 'model.layers.*truncated/,
    ],
  ];
  for (const [change, message] of wrong) {
    const path = folder();
    cpSync(original, path, { recursive: true });
    change(path);
    assert.throws(() => readModelFolder(path), { type: 'BadInput', message });
  }
  assert.throws(() => readModelFolder(join(HOME, 'none')), { type: 'BadInput', message: /none\/config.json: there is no such file/ });
});
