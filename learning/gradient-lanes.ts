/**
 * Losses and gradients of micro-batches, computed on lanes. A micro-batch runs on the lane that is free first, but sums are always taken in the order of
 * the micro-batches, in waves of a fixed number of them: the result depends neither on how many lanes there are nor on their speed. Lanes also take the sums
 * and fold the weights, a share of the matrices at a time, so that no core waits while another one adds.
 */
import { pack } from './batch.ts';
import { foldOrders, foldShares, foldedMatrices, trainedTensors, unfoldings } from './fold.ts';
import type { FoldedMatrix } from './fold.ts';
import { dependsOn, gradients } from './graph/gradient.ts';
import { WAVE } from './lanes/folding.ts';
import type { ShareOrder } from './lanes/folding.ts';
import { SHARES_PER_LANE, keepBusy, mayTake, sharedFloats, spread } from './lanes/lane.ts';
import type { Feed, Lane } from './lanes/lane.ts';
import { head, llamaGraph, llamaWeights, treeStates, valueHead } from './llama.ts';
import type { AdapterConfig } from './lora.ts';
import { hasValueHead, isScore } from './model.ts';
import { OBJECTIVE_AXES, formOf, lossOf } from './objectives.ts';
import type { Form } from './objectives.ts';
import { batchFeeds } from './terms.ts';
import type { Batch, LlamaConfig, Objective, Tensor } from './types.ts';

/**
 * Micro-batches for each lane whose gradients may be held at a time, in whole waves: sums wait for a lane that has nothing to run, as long as what is held
 * stays below `HELD_BYTES` (or is one wave).
 */
const HELD = 4;
const HELD_BYTES = 512 * 2 ** 20;

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
  readonly #sums = new Map<string, Float32Array>();
  /** Gradients of gains while they are summed. */
  readonly #gains = new Map<string, Float64Array>();
  /** The tensors that are trained, each with the name of the sum that holds its gradient in the end, and the sum of its squares then. */
  readonly #holders: Map<string, string>;
  readonly #squares = new Map<string, Float64Array>();
  readonly #shared: Record<string, Feed> = {};
  /** The sessions by the key of their form, each made when a batch first needs it. */
  readonly #sessions = new Map<string, Promise<void>>();
  #lanes: Lane[] = [];
  /** The matrices that are summed and folded together. */
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
    this.#shares = foldShares(this.#list, tensors, SHARES_PER_LANE * lanes.length);
    for (const { name, tensor, gain, trained } of this.#list) {
      const { data, shape } = tensors.get(tensor)!;
      const memory = sharedFloats(data.length);
      this.#matrices.set(name, memory);
      this.#shared[name] = { data: memory, dims: shape };
      if (trained) this.#sums.set(name, sharedFloats(data.length));
      if (gain === undefined || !this.#holders.has(gain) || this.#gains.has(gain)) continue;
      const { length } = tensors.get(gain)!.data;
      this.#sums.set(gain, sharedFloats(length));
      this.#gains.set(gain, sharedDoubles(length));
    }
    for (const tensor of this.#holders.keys()) this.#squares.set(tensor, sharedDoubles(1));
  }

  /** The lanes fold the matrices: all of them at first, then those that training changes. Weights in shared memory are not copied for it. */
  async #fold(tensors: ReadonlyMap<string, Tensor>): Promise<void> {
    const wanted = ({ trained }: FoldedMatrix) => trained || !this.#folded;
    await spread(this.#lanes, this.#shares, (lane, share) => lane.fold(foldOrders(share.filter(wanted), tensors, this.#matrices)));
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
   * The loss and the gradient of every trained tensor (by its name), summed over the micro-batches, with the sum of its squares. Only trained `tensors` may
   * differ from those of the call before. The arrays are overwritten by the next call.
   */
  async compute(
    batches: Batch[],
    tensors: ReadonlyMap<string, Tensor>,
  ): Promise<{ loss: number; gradients: Map<string, Float32Array>; squares: Map<string, number> }> {
    const limits = { vocabulary: this.#config.vocab_size, context: this.#config.max_position_embeddings };
    const forms = batches.map(({ terms }) => formOf(terms));
    for (const form of forms) await this.#session(form);
    const folding = this.#fold(tensors);
    folding.catch(() => undefined); // seen below

    const outputs: Outputs[] = [];
    const waves = Math.ceil(batches.length / WAVE);
    const waveBytes = WAVE * [...this.#sums.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
    const wished = Math.min(Math.ceil((HELD * this.#lanes.length) / WAVE), Math.floor(HELD_BYTES / waveBytes));
    const held = Math.max(Math.ceil(this.#lanes.length / WAVE), wished);
    const shares = this.#shares.map((matrices) => ({ matrices, summed: 0, busy: false }));
    let next = 0;
    let complete = 0;

    const run = async (lane: Lane, i: number) => {
      const batch = batches[i]!;
      const feeds = batchFeeds(batch, pack(batch.trees, limits), this.#objective, this.#config);
      await folding;
      outputs[i] = await lane.run(forms[i]!.key, feeds);
      const arrived = batches.findIndex((_, k) => outputs[k] === undefined);
      complete = arrived < 0 ? waves : Math.floor(arrived / WAVE);
    };
    const sum = async (lane: Lane, share: (typeof shares)[number]) => {
      const [from, to] = [share.summed, complete];
      share.busy = true;
      const arrays = Array.from({ length: to - from }, (_, k) => outputs.slice((from + k) * WAVE, (from + k + 1) * WAVE));
      await lane.sum(this.#order(share.matrices, arrays, from === 0, to === waves, tensors));
      share.busy = false;
      share.summed = to;
    };
    const working = keepBusy(this.#lanes, (lane, open) => {
      const oldest = Math.min(...shares.map(({ summed }) => summed));
      if (oldest === waves) return undefined;
      // A micro-batch, unless too many gradients are held, or a share of the sums.
      const left = Math.floor(next / WAVE) < oldest + held ? batches.length - next : 0;
      if (mayTake(open, left, this.#lanes.length)) return run(lane, next++);
      const share = open === 0 ? shares.find(({ summed, busy }) => !busy && summed < complete) : undefined;
      return share ? sum(lane, share) : 'later';
    });
    // Nobody may change the weights or the sums while a lane still uses them.
    for (const end of await Promise.allSettled([working, folding])) if (end.status === 'rejected') throw end.reason;
    return {
      loss: outputs.reduce((total, { loss }) => total + loss![0]!, 0),
      gradients: new Map([...this.#holders].map(([tensor, holder]) => [tensor, this.#sums.get(holder)!])),
      squares: new Map([...this.#squares].map(([tensor, square]) => [tensor, square[0]!])),
    };
  }

  /** Adds gradients to the sums of a share, wave by wave, and after the last wave makes gradients of tensors of them. A matrix that does not matter to a loss has none. */
  #order(
    share: readonly FoldedMatrix[],
    waves: Outputs[][],
    begins: boolean,
    ends: boolean,
    tensors: ReadonlyMap<string, Tensor>,
  ): ShareOrder {
    const trained = share.filter((matrix) => matrix.trained);
    const unfolding = ends ? unfoldings(trained, tensors, this.#sums, this.#gains) : [];
    const own = new Set(trained.flatMap(({ tensor, gain }) => (gain === undefined ? [tensor] : [tensor, gain])));
    return {
      matrices: trained.map(({ name }, i) => ({
        sum: this.#sums.get(name)!,
        waves: waves.map((wave) => wave.flatMap((one) => one[gradientName(name)] ?? [])),
        begins,
        unfolding: unfolding[i],
      })),
      gains: ends
        ? [...own].flatMap((name) => (this.#gains.has(name) ? { from: this.#gains.get(name)!, to: this.#sums.get(name)! } : []))
        : [],
      squares: ends
        ? [...own].flatMap((tensor) => {
            const holder = this.#holders.get(tensor);
            return holder === undefined ? [] : { gradient: this.#sums.get(holder)!, into: this.#squares.get(tensor)! };
          })
        : [],
    };
  }
}

type Outputs = Record<string, Float32Array>;
const sharedDoubles = (length: number) => new Float64Array(new SharedArrayBuffer(Float64Array.BYTES_PER_ELEMENT * length));
