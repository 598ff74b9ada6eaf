/**
 * Losses and gradients of micro-batches, computed on lanes. A micro-batch runs on the lane that is free first, but sums are always taken in the order of
 * the micro-batches, in double precision: the result depends neither on how many lanes there are nor on their speed. Lanes also take the sums and fold the
 * weights, each its share of the matrices, so that no core waits while one thread adds.
 */
import { pack } from './batch.ts';
import { foldOrders, foldShares, foldedMatrices, trainedTensors, unfoldOrders } from './fold.ts';
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
/** Waves of micro-batches whose gradients may be held at a time: a lane may be so far ahead of the slowest. */
const HELD_WAVES = 3;

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
  /**
   * Sums of gradients by folded matrix, and gradients of gains by their names. Kept from step to step so that no step has to ask for as much memory as the
   * model, and shared so that lanes can use them.
   */
  readonly #sums = new Map<string, Float64Array>();
  /** The tensors that are trained, each with the name of the sum that holds its gradient in the end. */
  readonly #holders: Map<string, string>;
  readonly #shared: Record<string, Feed> = {};
  /** The sessions by the key of their form, each made when a batch first needs it. */
  readonly #sessions = new Map<string, Promise<void>>();
  #lanes: Lane[] = [];
  /** The matrices that each lane sums and folds. */
  #shares: FoldedMatrix[][] = [];
  #folded = false;

  /** With an adapter only its tensors have gradients; all `tensors` below are then those of the model and of the adapter together. */
  constructor(config: LlamaConfig, objective: Objective, adapter?: AdapterConfig) {
    this.#config = config;
    this.#objective = objective;
    this.#adapter = adapter;
    this.#list = foldedMatrices(config, adapter);
    this.#holders = trainedTensors(this.#list);
  }

  /** Takes the lanes, and puts the weights into shared memory that all of them read. */
  open(lanes: Lane[], tensors: ReadonlyMap<string, Tensor>): void {
    this.#lanes = lanes;
    this.#shares = foldShares(this.#list, tensors, lanes.length);
    const sum = (name: string, tensor: string) =>
      this.#sums.set(name, new Float64Array(new SharedArrayBuffer(8 * tensors.get(tensor)!.data.length)));
    for (const { name, tensor, gain, trained } of this.#list) {
      const { data, shape } = tensors.get(tensor)!;
      const memory = new Float32Array(new SharedArrayBuffer(data.byteLength));
      this.#matrices.set(name, memory);
      this.#shared[name] = { data: memory, dims: shape };
      if (trained) sum(name, tensor);
      if (gain !== undefined && this.#holders.has(gain)) sum(gain, gain);
    }
  }

  /** Every lane folds its share of the matrices: all of them at first, then those that training changes. Weights in shared memory are not copied for it. */
  async #fold(tensors: ReadonlyMap<string, Tensor>): Promise<void> {
    const wanted = ({ trained }: FoldedMatrix) => trained || !this.#folded;
    await Promise.all(this.#shares.map((share, i) => this.#lanes[i]!.fold(foldOrders(share.filter(wanted), tensors, this.#matrices))));
    this.#folded = true;
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

  /**
   * The loss and the gradient of every trained tensor (by its name), summed over the micro-batches. Only trained `tensors` may differ from those of the
   * call before. The arrays are overwritten by the next call.
   */
  async compute(batches: Batch[], tensors: ReadonlyMap<string, Tensor>): Promise<{ loss: number; gradients: Map<string, Float64Array> }> {
    const limits = { vocabulary: this.#config.vocab_size, context: this.#config.max_position_embeddings };
    const forms = batches.map(({ terms }) => formOf(terms));
    for (const form of forms) await this.#session(form);
    const folding = this.#fold(tensors);
    folding.catch(() => undefined); // seen below
    const losses: number[] = [];
    /** Micro-batches are summed in waves, one for each lane, because a pass over the sums serves several. */
    const wave = this.#lanes.length;
    const arrived: (Record<string, Float32Array> | undefined)[] = [];
    const summed = Array.from({ length: Math.ceil(batches.length / wave) }, () => Promise.withResolvers<void>());
    for (const { promise } of summed) promise.catch(() => undefined); // seen at the end
    let waves = 0;
    /** Sums what has come, in the order of the micro-batches. */
    const take = (i: number, outputs: Record<string, Float32Array>) => {
      losses[i] = outputs['loss']![0]!;
      arrived[i] = outputs;
      for (let from = waves * wave; from < batches.length; from += wave) {
        const list = Array.from({ length: Math.min(wave, batches.length - from) }, (_, k) => arrived[from + k]);
        if (!list.every((one) => one !== undefined)) return;
        arrived.fill(undefined, from, from + wave);
        summed[waves++]!.resolve(this.#sum(list, from === 0));
      }
    };
    let next = 0;
    let failed = false;
    /** One micro-batch after the other on a lane, until no more than `spare` are left for others. */
    const work = async (lane: Lane, spare: number) => {
      while (!failed && batches.length - next > spare) {
        const i = next++;
        const batch = batches[i]!;
        try {
          const feeds = batchFeeds(batch, pack(batch.trees, limits), this.#objective, this.#config);
          await folding;
          // A lane that is faster than another waits here, so that only so many gradients are held.
          await summed[Math.floor(i / wave) - HELD_WAVES]?.promise;
          take(i, await lane.run(forms[i]!.key, feeds));
        } catch (error) {
          failed = true;
          for (const { reject } of summed) reject(error); // nobody waits for what will not come
          throw error;
        }
      }
    };
    // Each lane has one run and one that waits, so that it never idles; the last ones go to whoever is free first.
    const workers = this.#lanes.flatMap((lane) =>
      Array.from({ length: DEPTH }, (_, depth) => ({ lane, spare: depth * this.#lanes.length })),
    );
    const runs = await Promise.allSettled(workers.map(({ lane, spare }) => work(lane, spare)));
    // Nobody may change the weights or the sums while a lane still uses them.
    const rest = await Promise.allSettled([folding, ...summed.map(({ promise }) => promise)]);
    for (const end of [...runs, ...rest]) if (end.status === 'rejected') throw end.reason;
    await Promise.all(this.#shares.map((share, i) => this.#lanes[i]!.unfold(unfoldOrders(share, tensors, this.#sums))));
    return {
      loss: losses.reduce((a, b) => a + b, 0),
      gradients: new Map([...this.#holders].map(([tensor, holder]) => [tensor, this.#sums.get(holder)!])),
    };
  }

  /** Adds the outputs of micro-batches to the sums, each lane those of its share. A matrix without a gradient does not matter to the loss. */
  async #sum(outputs: Record<string, Float32Array>[], begins: boolean): Promise<void> {
    await Promise.all(
      this.#shares.map((share, i) =>
        this.#lanes[i]!.sum(
          share.flatMap(({ name, trained }) => {
            const gradients = outputs.flatMap((one) => one[gradientName(name)] ?? []);
            return trained ? { sum: this.#sums.get(name)!, gradients, begins } : [];
          }),
        ),
      ),
    );
  }
}
