/**
 * Losses and gradients of micro-batches, computed on lanes. Micro-batch i runs on lane i modulo their number, but the sum is always taken in the order
 * of the micro-batches, in double precision: the result does not depend on how many lanes there are.
 */
import { pack } from './batch.ts';
import { fold, foldedMatrices, unfoldGradients } from './fold.ts';
import type { FoldedMatrix } from './fold.ts';
import { dependsOn, gradients } from './graph/gradient.ts';
import type { Feed, Lane } from './lanes/lane.ts';
import { head, llamaGraph, llamaWeights, treeStates, valueHead } from './llama.ts';
import type { AdapterConfig } from './lora.ts';
import { hasValueHead, isScore } from './model.ts';
import { OBJECTIVE_AXES, formOf, lossOf } from './objectives.ts';
import type { Form } from './objectives.ts';
import { batchFeeds } from './terms.ts';
import type { Batch, LlamaConfig, Objective, Tensor } from './types.ts';

/** Micro-batches that may be under way on one lane: one that runs and one that waits, so that it never idles. */
const DEPTH = 2;

/**
 * The graph of one micro-batch: the loss, and one gradient per folded matrix that is trained (and matters to it: a value head may not). `inputs` are the
 * folded matrices that it reads.
 */
export function trainingGraph(config: LlamaConfig, form: Form, adapter?: AdapterConfig): { model: Uint8Array; inputs: string[] } {
  const graph = llamaGraph(config, OBJECTIVE_AXES);
  const weights = llamaWeights(graph, config, { adapter });
  const states = treeStates(graph, config, weights);
  const out = head(config, weights, states);
  const heads = isScore(config) ? { scores: out } : { logits: out, scores: hasValueHead(config) ? valueHead(weights, states) : undefined };
  const loss = lossOf(form, graph, heads);
  const list = foldedMatrices(config, adapter).filter(({ name }) => dependsOn(loss, weights.get(name)!));
  const names = list.flatMap(({ name, trained }) => (trained ? [name] : []));
  const outputs = gradients(
    loss,
    names.map((name) => weights.get(name)!),
  );
  const model = graph.emit({ loss, ...Object.fromEntries(names.map((name, i) => [gradientName(name), outputs[i]!])) });
  return { model, inputs: list.map(({ name }) => name) };
}
const gradientName = (name: string) => `d ${name}`;

export class GradientLanes {
  readonly #config: LlamaConfig;
  readonly #objective: Objective;
  readonly #adapter: AdapterConfig | undefined;
  readonly #list: FoldedMatrix[];
  readonly #matrices = new Map<string, Float32Array>();
  /** Sums of gradients, kept from step to step so that no step has to ask for as much memory as the model, and shared so that lanes can use them. */
  readonly #sums = new Map<string, Float64Array>();
  readonly #shared: Record<string, Feed> = {};
  /** The sessions by the key of their form, each made when a batch first needs it. */
  readonly #sessions = new Map<string, Promise<void>>();
  #lanes: Lane[] = [];

  /** With an adapter only its tensors have gradients; all `tensors` below are then those of the model and of the adapter together. */
  constructor(config: LlamaConfig, objective: Objective, adapter?: AdapterConfig) {
    this.#config = config;
    this.#objective = objective;
    this.#adapter = adapter;
    this.#list = foldedMatrices(config, adapter);
  }

  /** Takes the lanes, and puts the weights into shared memory that all of them read. */
  open(lanes: Lane[], tensors: ReadonlyMap<string, Tensor>): void {
    this.#lanes = lanes;
    for (const { name, tensor } of this.#list) {
      const { data, shape } = tensors.get(tensor)!;
      const memory = new Float32Array(new SharedArrayBuffer(data.byteLength));
      this.#matrices.set(name, memory);
      this.#shared[name] = { data: memory, dims: shape };
    }
    fold(this.#list, tensors, this.#matrices);
  }

  #session(form: Form): Promise<void> {
    let loaded = this.#sessions.get(form.key);
    if (!loaded) {
      const { model, inputs } = trainingGraph(this.#config, form, this.#adapter);
      const shared = Object.fromEntries(inputs.map((name) => [name, this.#shared[name]!]));
      loaded = Promise.all(this.#lanes.map((lane) => lane.load(form.key, model, shared))).then(() => undefined);
      this.#sessions.set(form.key, loaded);
    }
    return loaded;
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
      else if (trained) sums.set(name, new Float64Array(new SharedArrayBuffer(8 * tensors.get(tensor)!.data.length)));
    }
    const limits = { vocabulary: this.#config.vocab_size, context: this.#config.max_position_embeddings };
    // All batches are checked and packed before the first runs: a bad one must not leave others half done.
    const feeds = batches.map((batch) => batchFeeds(batch, pack(batch.trees, limits), this.#objective, this.#config));
    const forms = batches.map(({ terms }) => formOf(terms));
    for (const form of forms) await this.#session(form);
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
        const run = this.#lanes[i % this.#lanes.length]!.run(forms[i]!.key, feeds[i]!);
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
