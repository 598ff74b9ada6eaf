/**
 * Compares an execution provider with the CPU on the same weights and batches: losses, gradients, weights after a training step, constrained
 * log-probabilities, decoding; then times them per size of model. Each provider runs in a process of its own, as compute children do.
 *
 *   node bench/providers.ts webgpu,cuda [small|medium|large ...]
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sha256 } from '../core/digest.ts';
import { Random } from '../core/random.ts';
import { createDecoder } from '../learning/decoder.ts';
import { GradientLanes } from '../learning/gradient-lanes.ts';
import { LaneMemory } from '../learning/lanes/arithmetic.ts';
import { openLanes } from '../learning/lanes/lane.ts';
import { initModel, llamaConfig } from '../learning/model.ts';
import { createReader } from '../learning/reader.ts';
import { readSafetensors, writeSafetensors } from '../learning/safetensors.ts';
import { createTrainer } from '../learning/trainer.ts';
import type { Batch, Model, Tensor, TokenTree } from '../learning/types.ts';

/** About 1, 16 and 60 million parameters. */
const SIZES = {
  small: { vocabulary: 1000, layers: 4, width: 128, heads: 4, feedForward: 384, context: 256 },
  medium: { vocabulary: 4000, layers: 8, width: 384, heads: 6, feedForward: 1024, context: 256 },
  large: { vocabulary: 8000, layers: 12, width: 640, heads: 10, feedForward: 1712, context: 256 },
};
type Size = keyof typeof SIZES;

/** Timed runs of each kind; the median counts. */
const REPEATS: Record<Size, number> = { small: 5, medium: 3, large: 1 };
const ROWS = 16;
const TOKENS = 256;
const OPTIMIZER = { kind: 'adamw', beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 } as const;
/** Matrices that write to the residual stream start at zero; then nothing below them would be compared. */
const NOISE = 0.02;

function modelOf(size: Size): Model {
  const model = initModel(llamaConfig(SIZES[size]), ['providers', size]);
  for (const [name, { data, shape }] of model.tensors) {
    const random = new Random(['providers', 'noise', name]);
    if (shape.length === 2) for (let i = 0; i < data.length; i++) data[i]! += NOISE * (random.uniform() - 0.5);
  }
  return model;
}

const chain = (ids: number[]): TokenTree => ({ ids, parents: ids.map((_, i) => i - 1) });

function batchOf(size: Size, rows: number, tokens: number): Batch {
  const random = new Random(['providers', 'batch']);
  const trees = Array.from({ length: rows }, () => chain(Array.from({ length: tokens }, () => random.below(SIZES[size].vocabulary))));
  const reads = trees.flatMap((tree, t) => tree.ids.slice(0, -1).map((_, node) => ({ tree: t, node })));
  const targets = trees.flatMap((tree) => tree.ids.slice(1));
  return { trees, terms: { objective: 'crossEntropy', reads, targets, weights: reads.map(() => 1 / reads.length) } };
}

async function timed(times: number, work: () => Promise<unknown>): Promise<number> {
  const taken: number[] = [];
  for (let i = 0; i < times; i++) {
    const start = performance.now();
    await work();
    taken.push(performance.now() - start);
  }
  return taken.sort((a, b) => a - b)[Math.floor(times / 2)]!;
}

interface Measured {
  milliseconds: Record<string, number>;
  digests: Record<string, string>;
  rssMegabytes: number;
}

/** Numbers go to a safetensors file, times to a JSON file. */
async function measure(size: Size, out: string): Promise<void> {
  const model = modelOf(size);
  const repeats = REPEATS[size];
  const batch = batchOf(size, ROWS, TOKENS);
  const tensors = new Map<string, Tensor>();
  const keep = (name: string, data: ArrayLike<number>) => tensors.set(name, { shape: [data.length], data: Float32Array.from(data) });
  const milliseconds: Record<string, number> = {};
  const digests: Record<string, string> = {};

  const memory = await LaneMemory.create();
  const lanes = await openLanes(1, (lane) => lane.share(memory));
  const gradients = new GradientLanes(model.config, 'crossEntropy');
  milliseconds['open'] = await timed(1, async () => gradients.open(lanes, memory));
  const kept = memory.copies(model.tensors);
  const batches = [batch];
  const once = await gradients.compute(batches, kept);
  keep('loss', [once.loss]);
  for (const [name, gradient] of once.gradients) keep(`gradient ${name}`, gradient);
  const digest = async () => {
    const again = await gradients.compute(batches, kept);
    return sha256(
      Buffer.concat([...again.gradients.values()].map(({ buffer, byteOffset, byteLength }) => Buffer.from(buffer, byteOffset, byteLength))),
    );
  };
  digests['gradients, once'] = await digest();
  digests['gradients, again'] = await digest();
  milliseconds['gradient, 4096 tokens'] = await timed(repeats, () => gradients.compute(batches, kept));
  await Promise.all(lanes.map((lane) => lane.close()));

  const trainer = await createTrainer(model, { objective: 'crossEntropy', optimizer: OPTIMIZER, lanes: 2 });
  await trainer.step(batches, { learningRate: 1e-3 });
  for (const [name, { data }] of trainer.model().tensors) keep(`weights ${name}`, data);
  milliseconds['training step, 4096 tokens'] = await timed(repeats, () => trainer.step(batches, { learningRate: 1e-3 }));
  await trainer.close();

  const reader = await createReader(model, { lanes: 2 });
  const reads = batch.terms.reads.filter((_, i) => i % 8 === 0);
  const sixth = Math.floor(SIZES[size].vocabulary / 6);
  const allowed = reads.map((_, i) => Array.from({ length: 6 }, (_, j) => j * sixth + (i % sixth)));
  const read = () => reader.logProbabilities([{ trees: batch.trees, reads, allowed }]);
  keep(
    'log-probabilities',
    (await read())[0]!.flatMap((row) => [...row]),
  );
  milliseconds['reading, 4096 tokens'] = await timed(repeats, read);
  await reader.close();

  const rows = 64;
  const decoder = await createDecoder(model, { rows, context: TOKENS, lanes: 2 });
  const prompt = Array.from({ length: rows }, (_, row) => ({
    row,
    ids: batch.trees[row % ROWS]!.ids.slice(0, 96),
    reads: [95],
    keep: 96,
  }));
  keep(
    'prompt logits',
    (await decoder.step(prompt)).flatMap((row) => [...row]),
  );
  const step = () => decoder.step(prompt.map(({ row, ids }) => ({ row, ids: [ids[row]!], reads: [0], keep: 1 })));
  keep(
    'decoding logits',
    (await step()).flatMap((row) => [...row]),
  );
  milliseconds['decoding step, 64 rows'] = await timed(2 * repeats, step);
  await decoder.close();

  writeFileSync(`${out}.safetensors`, writeSafetensors(tensors, {}));
  const measured: Measured = { milliseconds, digests, rssMegabytes: process.memoryUsage.rss() / 2 ** 20 };
  writeFileSync(`${out}.json`, JSON.stringify(measured));
}

type Run = Measured & { provider: string; tensors: Map<string, Tensor> };

function runOn(provider: string, size: Size, folder: string): Run {
  const out = join(folder, provider.replace(':', '-'));
  const env = { ...process.env, RATCHET_EXECUTION_PROVIDER: provider };
  const { status, signal } = spawnSync(process.execPath, [import.meta.filename, 'measure', size, out], { env, stdio: 'inherit' });
  if (status !== 0) throw new Error(`${provider}, ${size}: ended with ${status ?? signal}`);
  const measured = JSON.parse(readFileSync(`${out}.json`, 'utf8')) as Measured;
  return { ...measured, provider, tensors: readSafetensors(readFileSync(`${out}.safetensors`)).tensors };
}

function report(cpu: Run, other: Run): void {
  const worst = new Map<string, { absolute: number; relative: number; values: number; where: string }>();
  for (const [name, { data }] of cpu.tensors) {
    const kind = name.replace(/^(gradient|weights) .*/, '$1');
    const entry = worst.get(kind) ?? { absolute: 0, relative: 0, values: 0, where: name };
    const got = other.tensors.get(name)!.data;
    let [error, norm] = [0, 0];
    for (let i = 0; i < data.length; i++) {
      // Written so that a number that is not one becomes the worst.
      const difference = Math.abs(got[i]! - data[i]!);
      if (!(difference <= entry.absolute)) entry.absolute = difference;
      error += difference ** 2;
      norm += data[i]! ** 2;
    }
    const relative = Math.sqrt(error / norm);
    if (!(relative <= entry.relative)) Object.assign(entry, { relative, where: name });
    worst.set(kind, { ...entry, values: entry.values + data.length });
  }
  for (const [kind, { absolute, relative, values, where }] of worst) {
    const numbers = `max abs difference ${absolute.toExponential(1)}, relative L2 at most ${relative.toExponential(1)}`;
    console.log(`  ${kind}: ${numbers} (${where}), ${values} values`);
  }
  for (const [what, ms] of Object.entries(cpu.milliseconds)) {
    const its = other.milliseconds[what]!;
    console.log(`  ${what}: cpu ${ms.toFixed(1)} ms, ${other.provider} ${its.toFixed(1)} ms, ratio ${(ms / its).toFixed(2)}`);
  }
  const same = other.digests['gradients, once'] === other.digests['gradients, again'];
  console.log(`  the same gradients twice: ${same ? 'the same bytes' : 'OTHER BYTES'}`);
  console.log(`  resident: cpu ${cpu.rssMegabytes.toFixed(0)} MB, ${other.provider} ${other.rssMegabytes.toFixed(0)} MB`);
}

function compare(providers: string[], size: Size): void {
  const folder = mkdtempSync(join(tmpdir(), 'ratchet-providers-'));
  try {
    const cpu = runOn('cpu', size, folder);
    const parameters = [...cpu.tensors].reduce((sum, [name, { data }]) => sum + (name.startsWith('weights') ? data.length : 0), 0);
    for (const provider of providers) {
      console.log(`\n${provider} against cpu, ${size}: ${(parameters / 1e6).toFixed(1)} M parameters`);
      report(cpu, runOn(provider, size, folder));
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const [command = 'webgpu', ...rest] = process.argv.slice(2);
if (command === 'measure') await measure(rest[0] as Size, rest[1]!);
else for (const size of (rest.length ? rest : ['small']) as Size[]) compare(command.split(','), size);
