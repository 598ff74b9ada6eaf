/**
 * The weights as the graphs use them: the gain of every RMSNorm is multiplied into the columns of the matrices that read its output, so that no pass
 * over the tokens is spent on gains; the scale of a LoRA adapter goes into its second factor; and a matrix is held in the direction in which its products are
 * fast. Folding happens once a step; gradients are unfolded by the product rule.
 */
import { EMBEDDING, FINAL_NORM, VALUE_HEAD, expectedShapes, hasValueHead, headName, isTied, layerName } from './model.ts';
import { BLOCK_PARTS, adapterShapes, loraName, loraScale, loraTargets, savedName, savesHead } from './lora.ts';
import { foldPart } from './lanes/folding.ts';
import type { FoldOrder, Unfolding } from './lanes/folding.ts';
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
  /** O and I of the tensor [O, I]. */
  outputs: number;
  inputs: number;
  /** Whether the graph holds its transpose [I, O]: where it is not the narrower side that comes out (`linear` says why). */
  transposed: boolean;
  /** Whether training changes the tensor: all without an adapter, with one only its own. */
  trained: boolean;
}

/** The matrices of the graph in the order of computation, those of an adapter after the matrix that they change. */
export function foldedMatrices(config: LlamaConfig, adapter?: AdapterConfig): FoldedMatrix[] {
  const targets = new Set(adapter ? loraTargets(config, adapter) : []);
  const list: FoldedMatrix[] = [];
  const shapes = new Map([...expectedShapes(config), ...(adapter ? adapterShapes(config, adapter) : [])]);
  const put = (name: string, gain?: string, tensor = name, trained = !adapter, factor = 1) => {
    const [outputs, inputs] = shapes.get(tensor) as [number, number];
    list.push({ name, tensor, gain, factor, outputs, inputs, transposed: name !== EMBEDDING && inputs <= outputs, trained });
  };
  const block = (layer: number, part: BlockPart, norm?: string) => {
    const name = layerName(layer, BLOCK_PARTS[part]);
    const gain = norm && layerName(layer, norm);
    put(name, gain);
    if (!targets.has(name)) return;
    const [a, b] = [loraName(name, 'A'), loraName(name, 'B')];
    put(a, gain, a, true);
    put(b, undefined, b, true, loraScale(adapter!));
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

/** The shape of a matrix in the graph. */
export const graphShape = ({ outputs, inputs, transposed }: FoldedMatrix) => (transposed ? [inputs, outputs] : [outputs, inputs]);

/** What folds matrices into `into`, one array per matrix. `tensors` are those of the model and of its adapter. */
export function foldOrders(
  matrices: readonly FoldedMatrix[],
  tensors: ReadonlyMap<string, Tensor>,
  into: ReadonlyMap<string, Float32Array>,
): FoldOrder[] {
  const data = (name: string) => tensors.get(name)!.data;
  return matrices.map(({ name, tensor, gain, factor, inputs, transposed }) => ({
    weight: data(tensor),
    gain: gain === undefined ? undefined : data(gain),
    factor,
    inputs,
    transposed,
    matrix: into.get(name)!,
  }));
}

/** Folded matrices of a model without adapter, in memory of their own. */
export function folded(config: LlamaConfig, tensors: ReadonlyMap<string, Tensor>): Map<string, Float32Array> {
  const matrices = foldedMatrices(config);
  const into = new Map(matrices.map(({ name, tensor }) => [name, new Float32Array(tensors.get(tensor)!.data.length)]));
  foldOrders(matrices, tensors, into).forEach(foldPart);
  return into;
}

/** The tensors whose gradients training needs, each with the gradient that holds its own in the end: of its first matrix, or its own for a gain. */
export function trainedTensors(matrices: readonly FoldedMatrix[]): Map<string, string> {
  const trainGains = matrices.every(({ trained }) => trained);
  const holders = new Map<string, string>();
  for (const { name, tensor, gain, trained } of matrices) {
    if (!trained) continue;
    if (gain !== undefined && trainGains) holders.set(gain, gain);
    if (!holders.has(tensor)) holders.set(tensor, name);
  }
  return holders;
}

/**
 * What turns gradients of folded matrices into those of the tensors, in `gradients` by the name of the tensor's first matrix; those of gains come into
 * `gains`, by their names. Matrices of one tensor, as the embeddings and a tied head, are summed. One entry for each matrix, all of them trained, to be used in this order.
 */
export function unfoldings(
  matrices: readonly FoldedMatrix[],
  tensors: ReadonlyMap<string, Tensor>,
  gradients: ReadonlyMap<string, Float32Array>,
  gains: ReadonlyMap<string, Float64Array>,
): Unfolding[] {
  const first = new Map<string, string>();
  const met = new Set<string>();
  return matrices.map(({ name, tensor, gain, factor, inputs, transposed }) => {
    const adds = first.has(tensor);
    if (!adds) first.set(tensor, name);
    const gainBegins = gain !== undefined && !met.has(gain);
    if (gain !== undefined) met.add(gain);
    return {
      weight: tensors.get(tensor)!.data,
      gain: gain === undefined ? undefined : tensors.get(gain)!.data,
      factor,
      inputs,
      transposed,
      gainGradient: gain === undefined ? undefined : gains.get(gain),
      gainBegins,
      into: gradients.get(first.get(tensor)!)!,
      adds,
    };
  });
}

/**
 * Cuts the matrices into `count` lists of about as many numbers, in their order within each. Matrices of one tensor or under one gain stay together,
 * because their gradients are summed in their order.
 */
export function foldShares(matrices: readonly FoldedMatrix[], count: number): FoldedMatrix[][] {
  const groups: FoldedMatrix[][] = [];
  const groupOf = new Map<string, FoldedMatrix[]>();
  for (const matrix of matrices) {
    // No matrix joins two groups: a gain is first met at its first matrix, and only the head shares a tensor.
    const names = [matrix.tensor, ...(matrix.gain === undefined ? [] : [matrix.gain])];
    let group = names.map((name) => groupOf.get(name)).find((one) => one !== undefined);
    if (!group) groups.push((group = []));
    group.push(matrix);
    for (const name of names) groupOf.set(name, group);
  }
  const size = (list: readonly FoldedMatrix[]) => list.reduce((sum, { outputs, inputs }) => sum + outputs * inputs, 0);
  const shares: FoldedMatrix[][] = Array.from({ length: count }, () => []);
  for (const group of groups.toSorted((a, b) => size(b) - size(a)))
    shares.reduce((least, share) => (size(share) < size(least) ? share : least)).push(...group);
  return shares;
}
