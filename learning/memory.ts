/**
 * What training and decoding must at least hold in memory, and the refusal of what cannot fit. Lower bounds, counted from shapes: nothing that could run is
 * refused, and what certainly could not is refused before it has filled the machine. Only numbers that are there for the whole of a step are counted.
 */
import { RatchetError } from '../core/errors.ts';
import type { Batch, LlamaConfig, OptimizerOptions, Tensor } from './types.ts';

const FLOAT32 = 4;
/** Node with ONNX Runtime loaded, before any model. */
const PROCESS_BYTES = 80 * 2 ** 20;

/** The bound of this process as its owner set it (`RATCHET_MEMORY_BYTES`); null where nobody did. */
export function memoryBound(env: Record<string, string | undefined> = process.env): number | null {
  const bound = Number(env['RATCHET_MEMORY_BYTES']);
  return bound > 0 ? bound : null;
}

/** Throws OutOfMemory naming need and bound where `bytes` beside the process itself exceed it. */
export function requireMemory(what: string, bytes: number, bound = memoryBound()): void {
  const need = PROCESS_BYTES + bytes;
  if (bound === null || need <= bound) return;
  throw new RatchetError(
    'OutOfMemory',
    `${what} needs at least ${megabytes(need)}, and ${megabytes(bound)} are allowed; give the slot more (RATCHET_MEMORY_MB)`,
  );
}

const megabytes = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20).toLocaleString('en-US')} MiB`;

/**
 * A trainer of a model of `parameters` numbers that changes `trained` of them: the model as given, as kept and as the lanes read it; of what is trained the
 * optimizer's state, the sums of gradients, and the gradients of one micro-batch.
 */
export function trainerBytes(parameters: number, trained: number, optimizer: OptimizerOptions['kind']): number {
  const state = optimizer === 'adamw' ? 2 * FLOAT32 : FLOAT32;
  return parameters * 3 * FLOAT32 + trained * (state + 2 * FLOAT32);
}

/**
 * What one micro-batch keeps from its forward pass for the backward pass, and its logits. Of the last layer, which ragged batches compute for the reads alone,
 * only what is there of every token and every read.
 */
export function activationBytes(config: LlamaConfig, batch: Batch): number {
  const {
    hidden_size: width,
    intermediate_size: feedForward,
    num_attention_heads: heads,
    num_key_value_heads: keyHeads,
    head_dim,
  } = config;
  const lengths = batch.trees.map(({ ids }) => ids.length);
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const pairs = lengths.reduce((sum, length) => sum + (length * (length + 1)) / 2, 0);
  const reads = batch.terms.reads.length;
  // The normed input, keys and values; queries, the heads' result, the second normed input, gate, its activation, up, their product.
  const perToken = width + 2 * keyHeads * head_dim;
  const perQuery = width + 2 * heads * head_dim + 4 * feedForward;
  const logits = config.architectures[0] === 'LlamaForCausalLM' ? reads * config.vocab_size : 0;
  const inner = (config.num_hidden_layers - 1) * (tokens * (perToken + perQuery) + pairs * heads);
  return FLOAT32 * (inner + tokens * perToken + reads * perQuery + logits);
}

/** A reader or decoder: the model as given and as the lanes read it. */
export function readingBytes(parameters: number): number {
  return 2 * FLOAT32 * parameters;
}

export function parameterCount(tensors: ReadonlyMap<string, Tensor>): number {
  let count = 0;
  for (const { data } of tensors.values()) count += data.length;
  return count;
}

/** `17.2 M parameters`. */
export const showParameters = (count: number): string => `${(count / 1e6).toFixed(1)} M parameters`;
