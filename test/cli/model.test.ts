/** `ratchet model`, through the real command, on folders that transformers and peft wrote. */
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { prepare } from '../../cli/launch.ts';
import { worldNamed } from '../../environments/registry.ts';
import { tokenizerJson } from '../../environments/tokenizer.ts';
import { readAdapterFolder } from '../../learning/adapter-files.ts';
import { Lane } from '../../learning/lanes/lane.ts';
import { mergeAdapter } from '../../learning/lora.ts';
import { initModel, llamaConfig } from '../../learning/model.ts';
import { readModelFolder, writeModelFolder } from '../../learning/model-files.ts';
import { NO_SERVERS, ratchet } from './cli.ts';

const LAYOUTS = join(import.meta.dirname, '..', 'learning', 'golden', 'layouts');
const BASE = join(LAYOUTS, 'sharded-bfloat16');
const ADAPTER = join(LAYOUTS, 'adapter');
const HOME = mkdtempSync(join(tmpdir(), 'ratchet-test-model-'));
after(() => rmSync(HOME, { recursive: true, force: true }));

async function model(...args: string[]): Promise<string> {
  const { code, out, err } = await ratchet(['model', ...args], { env: NO_SERVERS });
  assert.equal(code, 0, err);
  return out;
}

describe('ratchet model', { concurrency: 2 }, () => {
  test('show: what a model and its adapter are', async () => {
    const out = await model('show', BASE, '--adapter', ADAPTER);
    // 2 tables of 24 x 16; per layer 2 x 16 x 16 + 2 x 8 x 16 + 3 x 16 x 20 + 2 x 16; 16 of the last norm
    assert.match(out, /^LlamaForCausalLM, 4,304 parameters, BF16, .* in 3 files$/m);
    assert.match(out, /2 layers of width 16, 4 heads of 4 over 2 of keys and values, feed-forward 20/);
    // Rank 3, per layer (inputs + outputs) of q 32, k 24, v 24, o 32, gate 36, up 36, down 36
    assert.match(out, /adapter: rank 3, alpha 5 .* 1,320 parameters/);
    const json = JSON.parse(await model('show', BASE, '--json')) as { tensors: { name: string; dtype: string }[]; adapter: null };
    assert.equal(json.tensors.length, 2 + 2 * 9 + 1);
    assert.ok(json.adapter === null && json.tensors.every(({ dtype }) => dtype === 'BF16'));
  });

  test('merge and export: the merged model, then in shards of bfloat16', async () => {
    const merged = join(HOME, 'merged');
    await model('merge', BASE, ADAPTER, '-o', merged);
    const base = readModelFolder(BASE).model;
    const expected = mergeAdapter(base, readAdapterFolder(ADAPTER, base.config));
    assert.deepEqual(new Map([...readModelFolder(merged).model.tensors].sort()), new Map([...expected.tensors].sort()));
    const small = join(HOME, 'small');
    assert.match(await model('export', merged, '-o', small, '--dtype', 'bfloat16', '--shard-size', '4KB'), /in 3 files/);
    assert.equal(readdirSync(small).filter((name) => name.endsWith('.safetensors')).length, 3);
    assert.equal(readModelFolder(small).model.config['torch_dtype'], 'bfloat16');
  });

  test('what says how a model is used goes with it', async () => {
    const usage = {
      'generation_config.json': '{"eos_token_id": 2}',
      'tokenizer_config.json': '{"pad_token": "a"}',
      'chat_template.jinja': '{{ x }}',
    };
    const from = join(HOME, 'with-usage');
    cpSync(BASE, from, { recursive: true });
    for (const [name, text] of Object.entries(usage)) writeFileSync(join(from, name), text);
    const [exported, merged] = [join(HOME, 'exported'), join(HOME, 'merged-with-usage')];
    await Promise.all([model('export', from, '-o', exported), model('merge', from, ADAPTER, '-o', merged)]);
    for (const folder of [exported, merged])
      for (const [name, text] of Object.entries(usage)) assert.equal(readFileSync(join(folder, name), 'utf8'), text);
  });

  test('a run can start from a folder in shards of bfloat16', () => {
    const { codec } = worldNamed('household');
    const size = { vocabulary: codec.vocabulary.length, layers: 2, width: 32, heads: 2, feedForward: 64, context: 384 };
    const start = initModel(llamaConfig(size), ['test']);
    const folder = join(HOME, 'start');
    writeModelFolder(folder, start, tokenizerJson(codec), { dtype: 'BF16', shardBytes: 20_000 });
    const { initial } = prepare('agentprm-household', { scale: 'micro', set: [`policy.initial=${folder}`] });
    assert.equal(initial?.tokenizerJson, tokenizerJson(codec));
    for (const [name, { data }] of start.tensors) {
      const found = initial.model.tensors.get(name)!.data;
      assert.ok(found.every((x, i) => Math.abs(x - data[i]!) <= Math.abs(data[i]!) / 256));
    }
  });

  test('graph: files that ONNX Runtime takes', async () => {
    const lane = new Lane();
    try {
      const cases = [
        [BASE, '--kind', 'decode'],
        ['2x8x2', '--kind', 'read', '--vocabulary', '11'],
        [join(LAYOUTS, 'score'), '--kind', 'train', '--adapter', join(LAYOUTS, 'adapter-score')],
      ];
      for (const [i, args] of cases.entries()) {
        const file = join(HOME, `${i}.onnx`);
        await model('graph', ...args, '-o', file);
        await lane.load(file, readFileSync(file));
      }
    } finally {
      await lane.close();
    }
  });

  test('bad input is refused: exit code 2, the field named', async () => {
    const cases: [string[], RegExp][] = [
      [['show', HOME], /config\.json: there is no such file/],
      [['graph', '2x9x2', '-o', join(HOME, 'x')], /head_dim: 4\.5/],
      [['graph', 'large', '-o', join(HOME, 'x')], /model: "large" is not valid; a folder with config\.json, or a size/],
      [['merge', BASE, join(LAYOUTS, 'adapter-score'), '-o', join(HOME, 'x')], /task_type: "SEQ_CLS"/],
      [['export', BASE, '-o', LAYOUTS], /an empty folder/],
      [['export', BASE, '--reward-model', '-o', join(HOME, 'x')], /--reward-model: .*LlamaForSequenceClassification/],
      [['export', BASE, '-o', join(HOME, 'x'), '--shard-size', '5'], /--shard-size: "5" is not valid/],
    ];
    await Promise.all(
      cases.map(async ([args, message]) => {
        const { code, err } = await ratchet(['model', ...args], { env: NO_SERVERS });
        assert.match(err, message);
        assert.equal(code, 2);
        assert.doesNotMatch(err, /\n\s+at /);
      }),
    );
  });
});
