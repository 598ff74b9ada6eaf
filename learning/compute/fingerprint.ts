/**
 * The numeric fingerprint: what decides which bytes a floating-point computation gives. Under equal fingerprints equal work gives equal bytes; under
 * different ones it may not, so work begun under one is not continued under another. The number of lanes is not part of it: it never changes a result.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { arch, cpus } from 'node:os';
import { graphicsDevices, nvidiaDevices } from '../devices.ts';
import { currentProvider } from '../providers.ts';
import type { Provider } from '../providers.ts';

/**
 * Raised whenever the same work adds its numbers in another order, so that a checkpoint of an older version is not gone on with and a difference in a replay
 * is explained. 2: micro-batches of like length. 3: sums of gradients in waves, gradients of keys over nested chunks,
 * AdamW with one division fewer. 4: sums of gradients and AdamW in float32. 5: ragged batches without padding, the last layer for the reads. 6: smaller
 * micro-batches at a step's end.
 */
const ARITHMETIC = 6;

/** The instruction sets between which ONNX Runtime's kernels choose on x86-64 and ARM, by their names in /proc/cpuinfo. */
const DISPATCHED = [
  'avx',
  'avx2',
  'fma',
  'f16c',
  'avx_vnni',
  'avx512f',
  'avx512bw',
  'avx512dq',
  'avx512vl',
  'avx512_vnni',
  'avx512_bf16',
  'amx_tile',
  'amx_int8',
  'amx_bf16',
  'asimd',
  'asimddp',
  'asimdhp',
  'i8mm',
  'bf16',
  'sve',
];

/**
 * For example `cpu/onnxruntime-1.30.0/arithmetic-6/x64/avx+avx2+fma`, or `cuda+NVIDIA-H100-80GB-HBM3+580.159.04/onnxruntime-1.30.0/...`. Where the system does not tell its
 * instruction sets, the processor's model stands for them.
 */
export function numericFingerprint(provider = currentProvider()): string {
  const { version } = createRequire(import.meta.url)('onnxruntime-node/package.json') as { version: string };
  const on = provider.name === 'cpu' ? 'cpu' : [provider.name, ...device(provider)].map(plain).join('+');
  return [on, `onnxruntime-${version}`, `arithmetic-${ARITHMETIC}`, arch(), instructionSets()].join('/');
}

/** Name and driver of the device: kernels are chosen and compiled for them. Which of several equal devices it is does not matter. */
function device(provider: Provider): string[] {
  const all = nvidiaDevices() ?? graphicsDevices();
  const one = all[provider.device] ?? all[0];
  return one === undefined ? ['unknown-device'] : [one.name, ...(one.driver === null ? [] : [one.driver])];
}

const plain = (text: string): string => text.replace(/[^A-Za-z0-9.:-]+/g, '-');

function instructionSets(): string {
  let text: string;
  try {
    text = readFileSync('/proc/cpuinfo', 'utf8');
  } catch {
    // Not Linux.
    return plain(cpus()[0]?.model ?? 'unknown');
  }
  const line = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(text)?.[1] ?? '';
  const flags = new Set(line.split(' '));
  return DISPATCHED.filter((name) => flags.has(name)).join('+');
}
