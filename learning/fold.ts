/**
 * The weights as the graphs use them: the gain of every RMSNorm is multiplied into the columns of the matrices that read its output, so that no pass
 * over the tokens is spent on gains. Folding happens once a step; gradients are unfolded by the product rule.
 */
import { EMBEDDING, FINAL_NORM, headName, layerName } from './model.ts';
import type { LlamaConfig, Tensor } from './types.ts';

/** A matrix of the graph, and the norm whose gain its columns carry. */
export interface FoldedMatrix {
  name: string;
  gain: string | undefined;
}

/** The matrices of the graph, under their Hugging Face names, in the order of computation. */
export function foldedMatrices(config: LlamaConfig): FoldedMatrix[] {
  const list: FoldedMatrix[] = [{ name: EMBEDDING, gain: undefined }];
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    for (const part of ['q_proj', 'k_proj', 'v_proj'])
      list.push({ name: layerName(layer, `self_attn.${part}`), gain: layerName(layer, 'input_layernorm') });
    list.push({ name: layerName(layer, 'self_attn.o_proj'), gain: undefined });
    for (const part of ['gate_proj', 'up_proj'])
      list.push({ name: layerName(layer, `mlp.${part}`), gain: layerName(layer, 'post_attention_layernorm') });
    list.push({ name: layerName(layer, 'mlp.down_proj'), gain: undefined });
  }
  list.push({ name: headName(config), gain: FINAL_NORM });
  return list;
}

/** Writes the folded matrices of a model into `into` (one array per matrix). */
export function fold(config: LlamaConfig, tensors: ReadonlyMap<string, Tensor>, into: ReadonlyMap<string, Float32Array>): void {
  for (const { name, gain } of foldedMatrices(config)) {
    const { data, shape } = tensors.get(name)!;
    const out = into.get(name)!;
    if (gain === undefined) out.set(data);
    else {
      const g = tensors.get(gain)!.data;
      const width = shape[1]!;
      for (let i = 0; i < data.length; i += width) for (let j = 0; j < width; j++) out[i + j] = data[i + j]! * g[j]!;
    }
  }
}

/** Folded matrices in memory of their own. */
export function folded(config: LlamaConfig, tensors: ReadonlyMap<string, Tensor>): Map<string, Float32Array> {
  const into = new Map(foldedMatrices(config).map(({ name }) => [name, new Float32Array(tensors.get(name)!.data.length)]));
  fold(config, tensors, into);
  return into;
}

/**
 * Turns gradients of the folded matrices into those of the tensors, in place: with W' = W diag(g), dW = dW' diag(g) and dg_j = sum_i dW'_ij W_ij.
 * The gains' gradients are added to the map.
 */
export function unfoldGradients(config: LlamaConfig, tensors: ReadonlyMap<string, Tensor>, gradients: Map<string, Float64Array>): void {
  for (const { name, gain } of foldedMatrices(config)) {
    if (gain === undefined) continue;
    const g = tensors.get(gain)!.data;
    const weight = tensors.get(name)!.data;
    const dW = gradients.get(name)!;
    let dg = gradients.get(gain);
    if (!dg) gradients.set(gain, (dg = new Float64Array(g.length)));
    const width = g.length;
    for (let i = 0; i < dW.length; i += width) {
      for (let j = 0; j < width; j++) {
        const d = dW[i + j]!;
        dg[j]! += d * weight[i + j]!;
        dW[i + j] = d * g[j]!;
      }
    }
  }
}
