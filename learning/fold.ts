/**
 * The weights as the graphs use them: the gain of every RMSNorm is multiplied into the columns of the matrices that read its output, so that no pass
 * over the tokens is spent on gains; the scale of a LoRA adapter goes into its second factor. Folding happens once a step; gradients are unfolded by
 * the product rule.
 */
import { EMBEDDING, FINAL_NORM, VALUE_HEAD, hasValueHead, headName, isTied, layerName } from './model.ts';
import { BLOCK_PARTS, loraName, loraScale, loraTargets, savedName, savesHead } from './lora.ts';
import type { AdapterConfig, BlockPart } from './lora.ts';
import type { LlamaConfig, Tensor } from './types.ts';

/** A matrix of a graph: the tensor that it is made from, times a factor, with the gain of a norm in its columns. */
export interface FoldedMatrix {
  /** Its name in the graph: the tensor's, but that the head of a model with tied embeddings is a matrix of its own there. */
  name: string;
  tensor: string;
  /** The norm whose gain its columns carry. */
  gain: string | undefined;
  factor: number;
  /** Whether training changes the tensor: all without an adapter, with one only its own. */
  trained: boolean;
}

/** The matrices of the graph in the order of computation, those of an adapter after the matrix that they change. */
export function foldedMatrices(config: LlamaConfig, adapter?: AdapterConfig): FoldedMatrix[] {
  const targets = new Set(adapter ? loraTargets(config, adapter) : []);
  const list: FoldedMatrix[] = [];
  const put = (name: string, gain?: string, tensor = name, trained = !adapter) => list.push({ name, tensor, gain, factor: 1, trained });
  const block = (layer: number, part: BlockPart, norm?: string) => {
    const name = layerName(layer, BLOCK_PARTS[part]);
    const gain = norm && layerName(layer, norm);
    put(name, gain);
    if (!targets.has(name)) return;
    const [a, b] = [loraName(name, 'A'), loraName(name, 'B')];
    put(a, gain, a, true);
    list.push({ name: b, tensor: b, gain: undefined, factor: loraScale(adapter!), trained: true });
  };
  put(EMBEDDING);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    for (const part of ['q_proj', 'k_proj', 'v_proj'] as const) block(layer, part, 'input_layernorm');
    block(layer, 'o_proj');
    for (const part of ['gate_proj', 'up_proj'] as const) block(layer, part, 'post_attention_layernorm');
    block(layer, 'down_proj');
  }
  const head = headName(config);
  if (adapter && savesHead(config, adapter)) put(head, FINAL_NORM, savedName(head), true);
  else put(head, FINAL_NORM, isTied(config) ? EMBEDDING : head);
  if (hasValueHead(config)) put(VALUE_HEAD, FINAL_NORM);
  return list;
}

/** Writes folded matrices into `into`, one array per matrix. `tensors` are those of the model and of its adapter. */
export function fold(matrices: FoldedMatrix[], tensors: ReadonlyMap<string, Tensor>, into: ReadonlyMap<string, Float32Array>): void {
  for (const { name, tensor, gain, factor } of matrices) {
    const { data, shape } = tensors.get(tensor)!;
    const out = into.get(name)!;
    if (gain !== undefined) {
      const g = tensors.get(gain)!.data;
      const width = shape[1]!;
      for (let i = 0; i < data.length; i += width) for (let j = 0; j < width; j++) out[i + j] = data[i + j]! * g[j]!;
    } else if (factor !== 1) for (let i = 0; i < data.length; i++) out[i] = data[i]! * factor;
    else out.set(data);
  }
}

/** Folded matrices of a model without adapter, in memory of their own. */
export function folded(config: LlamaConfig, tensors: ReadonlyMap<string, Tensor>): Map<string, Float32Array> {
  const matrices = foldedMatrices(config);
  const into = new Map(matrices.map(({ name, tensor }) => [name, new Float32Array(tensors.get(tensor)!.data.length)]));
  fold(matrices, tensors, into);
  return into;
}

/**
 * From gradients of the folded matrices (by their names, changed in place) to those of the trained tensors: with W' = f W diag(g), dW = f dW' diag(g)
 * and dg_j = f sum_i dW'_ij W_ij. Matrices of one tensor, as the embeddings and a tied head, are summed. Gains are trained unless an adapter is.
 */
export function unfoldGradients(
  matrices: FoldedMatrix[],
  tensors: ReadonlyMap<string, Tensor>,
  gradients: ReadonlyMap<string, Float64Array>,
): Map<string, Float64Array> {
  const trainGains = matrices.every(({ trained }) => trained);
  const result = new Map<string, Float64Array>();
  for (const { name, tensor, gain, factor, trained } of matrices) {
    if (!trained) continue;
    const dW = gradients.get(name)!;
    if (factor !== 1) for (let i = 0; i < dW.length; i++) dW[i]! *= factor;
    if (gain !== undefined) {
      const g = tensors.get(gain)!.data;
      const weight = tensors.get(tensor)!.data;
      const width = g.length;
      const dg = result.get(gain) ?? new Float64Array(width);
      for (let i = 0; i < dW.length; i += width) {
        for (let j = 0; j < width; j++) {
          const d = dW[i + j]!;
          dg[j]! += d * weight[i + j]!;
          dW[i + j] = d * g[j]!;
        }
      }
      if (trainGains) result.set(gain, dg);
    }
    const before = result.get(tensor);
    if (before) for (let i = 0; i < dW.length; i++) before[i]! += dW[i]!;
    else result.set(tensor, dW);
  }
  return result;
}
