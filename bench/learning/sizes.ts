/** The models that are compared, and the shape of a training batch. */
import { llamaConfig } from '../../learning/model.ts';
import type { LlamaConfig } from '../../learning/types.ts';

export interface Size {
  name: string;
  layers: number;
  width: number;
  heads: number;
  feedForward: number;
}

export const SIZES: readonly Size[] = [
  { name: '1M', layers: 4, width: 128, heads: 4, feedForward: 384 },
  { name: '6M', layers: 6, width: 256, heads: 8, feedForward: 768 },
  { name: '16M', layers: 8, width: 384, heads: 12, feedForward: 1152 },
  { name: '60M', layers: 14, width: 576, heads: 18, feedForward: 1728 },
];

/** `full` is what is stated; `quick` measures the smallest model; `check` runs all code on a toy, and its figures mean nothing. */
export type Effort = 'full' | 'quick' | 'check';
const TOY: Size = { name: 'toy', layers: 2, width: 32, heads: 2, feedForward: 64 };
/** The sizes that are compared with PyTorch, those of which the memory is shown, and those along which the parameters grow. */
export function sizesOf(effort: Effort): { compared: readonly Size[]; large: readonly Size[]; growing: readonly Size[] } {
  if (effort === 'check') return { compared: [TOY], large: [TOY], growing: [TOY] };
  if (effort === 'quick') return { compared: SIZES.slice(0, 1), large: [], growing: SIZES.slice(0, 1) };
  return { compared: SIZES.slice(0, 3), large: SIZES.slice(2), growing: SIZES };
}

export const VOCABULARY = 1000;
/** Sequences and tokens of a training batch. */
export const BATCH = { sequences: 16, tokens: 256 };

export function configOf(size: Size, { vocabulary = VOCABULARY, context = 1024 } = {}): LlamaConfig {
  const { layers, width, heads, feedForward } = size;
  return llamaConfig({ vocabulary, width, layers, heads, feedForward, context });
}
