/** Execution providers: how one is named, what is said where it is absent, and that graphs written for other providers compute the same. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { Random } from '../../core/random.ts';
import { numericFingerprint } from '../../learning/compute/fingerprint.ts';
import { diagnoseAccelerators } from '../../learning/diagnose.ts';
import { graphicsDevices, parseNvidia } from '../../learning/devices.ts';
import { createDecoder } from '../../learning/decoder.ts';
import { gradients } from '../../learning/graph/gradient.ts';
import { Graph } from '../../learning/graph/graph.ts';
import type { Value } from '../../learning/graph/graph.ts';
import { gather } from '../../learning/graph/indexing.ts';
import { LOWERED, MOST_TENSORS } from '../../learning/graph/lowering.ts';
import { encodeOnnx } from '../../learning/graph/onnx.ts';
import * as op from '../../learning/graph/operators.ts';
import { Lane } from '../../learning/lanes/lane.ts';
import type { Feed } from '../../learning/lanes/lane.ts';
import { decodeGraph } from '../../learning/llama.ts';
import { currentProvider, parseProvider, PROVIDER_NAMES, showProvider } from '../../learning/providers.ts';
import { gradientsOn, randomBatch, tinyModel } from './reference.ts';

const CPU = { name: 'cpu', device: 0 } as const;
const VARIABLE = 'RATCHET_EXECUTION_PROVIDER';

/** What `make` gives where this process's provider is `name`. */
function under<T>(name: string, make: () => T): T {
  const before = process.env[VARIABLE];
  process.env[VARIABLE] = name;
  try {
    return make();
  } finally {
    if (before === undefined) delete process.env[VARIABLE];
    else process.env[VARIABLE] = before;
  }
}

/** Operator and numbers of operands and results of every node of an ONNX model (fields of onnx.proto: graph 7, node 1; input 1, output 2, op_type 4). */
function nodesOf(model: Uint8Array): { op: string; inputs: number; outputs: number }[] {
  const fields = (bytes: Uint8Array) => {
    const reader = new BinaryReader(bytes);
    const found: { field: number; bytes: Uint8Array }[] = [];
    while (reader.pos < reader.len) {
      const [field, type] = reader.tag();
      if (type === WireType.LengthDelimited) found.push({ field, bytes: reader.bytes() });
      else reader.skip(type);
    }
    return found;
  };
  const inside = (bytes: Uint8Array, field: number) => fields(bytes).filter((one) => one.field === field);
  return inside(model, 7)
    .flatMap((graph) => inside(graph.bytes, 1))
    .map(({ bytes }) => ({
      op: Buffer.from(inside(bytes, 4)[0]!.bytes).toString(),
      inputs: inside(bytes, 1).length,
      outputs: inside(bytes, 2).length,
    }));
}

describe('configuration', () => {
  test('a provider is a name, with a device where there can be several; the CPU where nothing is said', () => {
    assert.deepEqual(currentProvider({}), CPU);
    assert.deepEqual(currentProvider({ [VARIABLE]: '' }), CPU);
    assert.deepEqual(currentProvider({ [VARIABLE]: 'cuda:3' }), { name: 'cuda', device: 3 });
    for (const name of PROVIDER_NAMES) assert.deepEqual(parseProvider(showProvider(parseProvider(name))), parseProvider(name));
    for (const wrong of ['gpu', 'CUDA', 'cuda:', 'cuda:x', 'cuda:-1', 'webgpu:1', 'cpu:0', 'cuda cpu'])
      assert.throws(() => currentProvider({ [VARIABLE]: wrong }), {
        type: 'BadInput',
        message: /RATCHET_EXECUTION_PROVIDER.*cpu, cuda, webgpu/,
      });
  });

  test('the numeric fingerprint tells provider and device', () => {
    assert.match(numericFingerprint(CPU), /^cpu\/onnxruntime-\d+\.\d+\.\d+\//);
    assert.match(numericFingerprint({ name: 'cuda', device: 0 }), /^cuda\+[^/]+\/onnxruntime-/);
    // A line as nvidia-smi 580 prints it.
    assert.deepEqual(parseNvidia('NVIDIA H100 80GB HBM3, 580.159.04, 81559\n'), [
      { name: 'NVIDIA H100 80GB HBM3', driver: '580.159.04', memoryBytes: 81559 * 2 ** 20 },
    ]);
  });

  test('graphics devices are known by their PCI ids; displays without are passed over', (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'ratchet-drm-'));
    t.after(() => rmSync(folder, { recursive: true }));
    for (const card of ['card0', 'card1', 'card0-HDMI-A-1']) mkdirSync(join(folder, card, 'device'), { recursive: true });
    writeFileSync(join(folder, 'card1', 'device', 'vendor'), '0x10de\n');
    writeFileSync(join(folder, 'card1', 'device', 'device'), '0x2330\n');
    assert.deepEqual(graphicsDevices(folder), [{ name: 'pci:10de:2330', driver: null, memoryBytes: null }]);
    assert.deepEqual(graphicsDevices(join(folder, 'none')), []);
  });
});

describe('a provider that is absent', () => {
  /** What `openLanes` throws in a process of its own, whose native libraries may complain as they like. */
  async function refusal(provider: string, env: Record<string, string>): Promise<{ type: string; message: string }> {
    const { stdout } = await promisify(execFile)(process.execPath, [fileURLToPath(new URL('./open-lanes.ts', import.meta.url))], {
      env: { ...process.env, ...env, [VARIABLE]: provider },
    });
    return JSON.parse(stdout) as { type: string; message: string };
  }
  const elsewhere = process.platform === 'win32' ? 'coreml' : 'dml';

  test('on another platform: Unavailable, with what is there', async () => {
    const { type, message } = await refusal(elsewhere, {});
    assert.equal(type, 'Unavailable');
    assert.match(
      message,
      /cannot be used here: onnxruntime-node on this platform has cpu, .*part of onnxruntime-node on .* only.*doctor --gpu/,
    );
  });

  test('without a device: Unavailable, with the reason and how to get what is missing', async () => {
    const cuda = await refusal('cuda', { CUDA_VISIBLE_DEVICES: '-1' });
    assert.equal(cuda.type, 'Unavailable');
    assert.match(cuda.message, /provider cuda:0 cannot be used here: .*ONNXRUNTIME_NODE_INSTALL=cuda12 npm rebuild onnxruntime-node/s);
    const webgpu = await refusal('webgpu', { VK_DRIVER_FILES: '/nowhere.json' });
    assert.equal(webgpu.type, 'Unavailable');
    assert.match(webgpu.message, /provider webgpu cannot be used here: .*Vulkan/s);
  });
});

test('the doctor tries every provider of the platform: what is absent is noted with its remedy, and fails where it is configured', async () => {
  const elsewhere = process.platform === 'win32' ? 'coreml' : 'dml';
  const env = {
    ...process.env,
    [VARIABLE]: elsewhere,
    CUDA_VISIBLE_DEVICES: '-1',
    VK_DRIVER_FILES: '/nowhere.json',
    LD_LIBRARY_PATH: '/nowhere',
  };
  const findings = await diagnoseAccelerators(env);
  const of = (name: string) => findings.find((finding) => finding.name === name);
  assert.deepEqual(of('provider cpu'), { name: 'provider cpu', state: 'ok', found: 'computes', fix: null });
  assert.equal(of(`provider ${elsewhere}`)!.state, 'failed');
  for (const { name, state, fix } of findings) if (name.startsWith('provider')) assert.equal(fix === null, state === 'ok', name);
  for (const name of ['devices', 'vulkan loader', 'cuda provider', 'cuda libraries']) assert.ok(of(name), name);
  if (process.platform !== 'linux' || process.arch !== 'x64') return;
  assert.match(of('provider webgpu')!.fix!, /libvulkan1/);
  assert.match(of('provider cuda')!.fix!, /ONNXRUNTIME_NODE_INSTALL=cuda12 npm rebuild onnxruntime-node/);
});

describe('graphs for other providers', () => {
  let lane: Lane;
  before(() => {
    lane = new Lane(CPU);
  });
  after(() => lane.close());
  const providers = PROVIDER_NAMES.filter((name) => name !== 'cpu');

  /** Every operator that some provider lacks, in all the forms that the models use, with its gradient. */
  function everything(): { bytes: Uint8Array; operators: string[]; feeds: () => Record<string, Feed> } {
    const sizes = { A: 3, B: 2, C: 4, D: 6, V: 5 };
    const graph = new Graph({ ...sizes, T: 'symbolic' });
    const random = new Random(['providers']);
    const data = new Map<string, Feed>();
    const size = (axis: string) => axis.split('*').reduce((product, factor) => product * (sizes[factor as 'A'] ?? 7), 1);
    const input = (...axes: string[]): Value => {
      const name = `x${data.size}`;
      const dims = axes.map(size);
      data.set(name, { data: Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, () => random.normal()), dims });
      return graph.input(name, 'float32', axes);
    };
    const ids = graph.input('ids', 'int64', ['T']);
    const [a, b, x, y, z, w] = [
      input('A', 'C'),
      input('C', 'B'),
      input('A', 'B', 'C'),
      input('C', 'A', 'B', 'D'),
      input('V', 'D'),
      input('T', 'D'),
    ] as const;
    const parts = [
      op.matmul(a, b, { alpha: 0.5 }),
      op.matmul(b, a, { transA: true, transB: true }),
      op.matmul(x, x, { transB: true, alpha: 0.3 }),
      op.matmul(x, x, { transA: true }),
      op.matmul(y, y, { batchA: true, batchB: true, transB: true }),
      op.logSoftmax(a),
      op.rmsNorm(y, 1e-5),
      op.silu(x),
      op.mul(gather(z, ids), w),
    ];
    const loss = parts.map((part) => op.total(op.mul(part, part))).reduce((sum, term) => op.add(sum, term));
    const flows = gradients(loss, [a, b, x, y, z, w]);
    const outputs = [...parts, loss, ...flows].map((value, i): [string, Value] => [`out${i}`, value]);
    // More rows than the table has, so that some rows of its gradient meet.
    data.set('ids', { data: BigInt64Array.from([4, 1, 1, 0, 1, 4, 1], BigInt), dims: [7] });
    const feeds = () => Object.fromEntries([...data].map(([name, feed]) => [name, { ...feed, data: feed.data.slice() }]));
    const plan = graph.plan(Object.fromEntries(outputs));
    return { bytes: encodeOnnx(plan), operators: plan.nodes.map((node) => node.op), feeds };
  }

  for (const name of providers) {
    test(`${name}: operators that it lacks are written with others and give the same values and gradients`, async () => {
      const own = under('cpu', everything);
      const other = under(name, everything);
      await lane.load('own', own.bytes);
      await lane.load(name, other.bytes);
      const expected = await lane.run('own', own.feeds());
      const found = await lane.run(name, other.feeds());
      assert.deepEqual(Object.keys(found).sort(), Object.keys(expected).sort());
      for (const [output, values] of Object.entries(expected)) {
        const scale = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        // Float32 sums of at most a few dozen terms, taken in another order.
        found[output]!.forEach((value, i) =>
          assert.ok(Math.abs(value - values[i]!) <= 1e-5 * scale, `${output}[${i}]: ${value}, ${values[i]}`),
        );
      }
      for (const lacking of LOWERED[name]) {
        assert.ok(own.operators.includes(lacking), `${lacking} is not among what is compared`);
        assert.ok(!other.operators.includes(lacking), `${lacking} is still there`);
      }
    });
  }

  test('a kernel is given no more tensors than its provider takes, and long cuts and joins in groups give the same numbers', async () => {
    const most = MOST_TENSORS.webgpu!;
    // Up to more groups than a kernel takes, so that groups have groups.
    for (const parts of [most - 1, most, 16, 60]) {
      const build = () => {
        const names = Array.from({ length: parts }, (_, i) => `T${i}`);
        const graph = new Graph({ ...Object.fromEntries(names.map((name) => [name, 'symbolic' as const])), A: 'symbolic', C: 3 });
        const x = graph.input('x', 'float32', ['C', 'A']);
        const ends = names.map((name) => graph.input(`e${name}`, 'float32', [name])); // they tell the lengths
        const cut = op.split(x, 1, names);
        const back = op.concat(cut.toReversed(), 1, 'A');
        const plan = graph.plan({ back, first: cut[0]!, last: cut.at(-1)!, ends: op.total(op.concat(ends, 0, 'A')) });
        return { plan, bytes: encodeOnnx(plan) };
      };
      const [own, other] = [under('cpu', build), under('webgpu', build)];
      for (const node of other.plan.nodes)
        assert.ok(
          Math.max(node.inputs.length, node.outputs.length) < most,
          `${node.name}: ${node.inputs.length} and ${node.outputs.length}`,
        );
      assert.equal(new Set(other.plan.nodes.map(({ name }) => name)).size, other.plan.nodes.length, 'names are unique');
      const lengths = Array.from({ length: parts }, (_, i) => 1 + (i % 3));
      const total = lengths.reduce((a, b) => a + b);
      const feeds = (): Record<string, Feed> => ({
        x: { data: Float32Array.from({ length: 3 * total }, (_, i) => i), dims: [3, total] },
        ...Object.fromEntries(lengths.map((length, i) => [`eT${i}`, { data: new Float32Array(length).fill(i), dims: [length] }])),
      });
      await lane.load(`own ${parts}`, own.bytes);
      await lane.load(`cut ${parts}`, other.bytes);
      assert.deepEqual(await lane.run(`cut ${parts}`, feeds()), await lane.run(`own ${parts}`, feeds()));
    }
  });

  test('a decoder for WebGPU, 16 rows in a run, gives what the one for the CPU gives; no node of its graph has too many tensors', async () => {
    const model = tinyModel(4);
    const random = new Random(['providers', 'decoder']);
    const prompts = Array.from({ length: 16 }, () => Array.from({ length: 1 + random.below(9) }, () => random.below(11)));
    const outputs = async (name: string) => {
      // The graph is written when it is first needed; what computes it is the CPU in either case.
      const decoder = await createDecoder(model, { rows: 16, context: 32 });
      try {
        const step = (ids: (row: number) => number[]) =>
          under(name, () =>
            decoder.step(prompts.map((_, row) => ({ row, ids: ids(row), reads: [ids(row).length - 1], keep: ids(row).length }))),
          );
        return [...(await step((row) => prompts[row]!)), ...(await step((row) => [row % 11, 3]))];
      } finally {
        await decoder.close();
      }
    };
    for (const node of nodesOf(under('webgpu', () => decodeGraph(model.config, 16))))
      assert.ok(Math.max(node.inputs, node.outputs) < MOST_TENSORS.webgpu!, `${node.op}: ${node.inputs} and ${node.outputs}`);
    const [own, other] = [await outputs('cpu'), await outputs('webgpu')];
    own.forEach((values, i) => values.forEach((value, j) => assert.ok(Math.abs(value - other[i]![j]!) < 1e-5, `output ${i}`)));
  });

  test('a whole training graph for WebGPU gives the gradients of the one for the CPU', async () => {
    const model = tinyModel(3);
    const batches = [randomBatch('preference', new Random(['providers', 'batch']), 11)];
    const [own, other] = await Promise.all(
      ['cpu', 'webgpu'].map(async (name) => {
        const lanes = [new Lane(CPU)];
        const compute = await under(name, () => gradientsOn(lanes, model, 'preference'));
        const { gradients: all } = await compute(batches);
        await lanes[0]!.close();
        return all;
      }),
    );
    for (const [name, values] of own!) {
      const found = other!.get(name)!;
      const norm = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
      const error = Math.sqrt(values.reduce((sum, value, i) => sum + (value - found[i]!) ** 2, 0));
      assert.ok(error <= 1e-5 * norm, `${name}: relative error ${error / norm}`);
    }
  });
});
