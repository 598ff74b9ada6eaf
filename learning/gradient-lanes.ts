/**
 * Losses and gradients of micro-batches, computed on lanes. Micro-batch i runs on lane i modulo their number, but the sum is always taken in the order
 * of the micro-batches, in double precision: the result does not depend on how many lanes there are.
 */
import { pack } from './batch.ts';
import { fold, foldedMatrices, unfoldGradients } from './fold.ts';
import type { FoldedMatrix } from './fold.ts';
import { dependsOn, gradients } from './graph/gradient.ts';
import type { Feed, Lane } from './lanes/lane.ts';
import { head, llamaGraph, llamaWeights, treeStates } from './llama.ts';
import type { AdapterConfig } from './lora.ts';
import { OBJECTIVE_AXES, batchFeeds, lossOf } from './objectives.ts';
import type { Batch, LlamaConfig, Objective, Tensor } from './types.ts';

/** Micro-batches that may be under way on one lane: one that runs and one that waits, so that it never idles. */
const DEPTH = 2;
const SESSION = 'train';

/** The graph of one micro-batch: the loss, and one gradient per folded matrix that is trained (and matters to it: a value head may not). */
export function trainingGraph(config: LlamaConfig, objective: Objective, adapter?: AdapterConfig): Uint8Array {
  const graph = llamaGraph(config, OBJECTIVE_AXES);
  const weights = llamaWeights(graph, config, { adapter });
  const loss = lossOf(objective, graph, head(config, weights, treeStates(graph, config, weights)));
  const names = foldedMatrices(config, adapter).flatMap(({ name, trained }) =>
    trained && dependsOn(loss, weights.get(name)!) ? [name] : [],
  );
  const outputs = gradients(
    loss,
    names.map((name) => weights.get(name)!),
  );
  return graph.emit({ loss, ...Object.fromEntries(names.map((name, i) => [gradientName(name), outputs[i]!])) });
}
const gradientName = (name: string) => `d ${name}`;

export class GradientLanes {
  readonly #config: LlamaConfig;
  readonly #objective: Objective;
  readonly #adapter: AdapterConfig | undefined;
  readonly #list: FoldedMatrix[];
  readonly #matrices = new Map<string, Float32Array>();
  /** Sums of gradients, kept from step to step so that no step has to ask for as much memory as the model. */
  readonly #sums = new Map<string, Float64Array>();
  #lanes: Lane[] = [];

  /** With an adapter only its tensors have gradients; all `tensors` below are then those of the model and of the adapter together. */
  constructor(config: LlamaConfig, objective: Objective, adapter?: AdapterConfig) {
    this.#config = config;
    this.#objective = objective;
    this.#adapter = adapter;
    this.#list = foldedMatrices(config, adapter);
  }

  /** Loads the training graph; the weights are shared memory that all lanes read. */
  async open(lanes: Lane[], tensors: ReadonlyMap<string, Tensor>): Promise<void> {
    this.#lanes = lanes;
    const shared: Record<string, Feed> = {};
    for (const { name, tensor } of this.#list) {
      const { data, shape } = tensors.get(tensor)!;
      const memory = new Float32Array(new SharedArrayBuffer(data.byteLength));
      this.#matrices.set(name, memory);
      shared[name] = { data: memory, dims: shape };
    }
    const model = trainingGraph(this.#config, this.#objective, this.#adapter);
    await Promise.all(lanes.map((lane) => lane.load(SESSION, model, shared)));
    fold(this.#list, tensors, this.#matrices);
  }

  /** Gives the lanes other values of the tensors that are trained. Not while gradients are being computed. */
  setWeights(tensors: ReadonlyMap<string, Tensor>): void {
    fold(
      this.#list.filter(({ trained }) => trained),
      tensors,
      this.#matrices,
    );
  }

  /**
   * The loss and the gradient of every trained tensor (by its name), summed over the micro-batches. `tensors` are the weights last set. The arrays
   * are overwritten by the next call.
   */
  async compute(batches: Batch[], tensors: ReadonlyMap<string, Tensor>): Promise<{ loss: number; gradients: Map<string, Float64Array> }> {
    const sums = this.#sums;
    for (const { name, tensor, trained } of this.#list) {
      const sum = sums.get(name);
      if (sum) sum.fill(0);
      else if (trained) sums.set(name, new Float64Array(tensors.get(tensor)!.data.length));
    }
    const limits = { vocabulary: this.#config.vocab_size, context: this.#config.max_position_embeddings };
    // All batches are checked and packed before the first runs: a bad one must not leave others half done.
    const feeds = batches.map((batch) => batchFeeds(batch, pack(batch.trees, limits), this.#objective, limits.vocabulary));
    const runs: Promise<Record<string, Float32Array>>[] = [];
    let loss = 0;
    const take = async (i: number) => {
      const outputs = await runs[i]!;
      loss += outputs['loss']![0]!;
      for (const [name, sum] of sums) {
        const gradient = outputs[gradientName(name)];
        if (!gradient) continue; // it does not matter to the loss
        for (let j = 0; j < sum.length; j++) sum[j]! += gradient[j]!;
      }
    };
    try {
      const window = DEPTH * this.#lanes.length;
      for (let i = 0; i < feeds.length; i++) {
        if (i >= window) await take(i - window);
        const run = this.#lanes[i % this.#lanes.length]!.run(SESSION, feeds[i]!);
        run.catch(() => undefined); // seen below, when its turn comes
        runs.push(run);
      }
      for (let i = Math.max(0, feeds.length - window); i < feeds.length; i++) await take(i);
    } finally {
      await Promise.allSettled(runs); // nobody may change the weights while a lane still reads them
    }
    return { loss, gradients: unfoldGradients(this.#list, tensors, sums) };
  }
}
