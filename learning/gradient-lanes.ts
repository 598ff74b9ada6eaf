/**
 * Losses and gradients of micro-batches, computed on lanes. A micro-batch runs on the lane that is free first and leaves its gradients in a slot, but they
 * are always added in the order of the micro-batches: the result depends neither on how many lanes there are nor on their speed. Lanes also take the sums and
 * fold the weights, a share of the matrices at a time, so that no core waits while another one adds.
 */
import { isRagged, pack } from './batch.ts';
import { foldOrders, foldShares, foldedMatrices, graphShape, trainedTensors, unfoldings } from './fold.ts';
import type { FoldedMatrix } from './fold.ts';
import { dependsOn, gradients } from './graph/gradient.ts';
import type { LaneMemory } from './lanes/arithmetic.ts';
import { foldPart } from './lanes/folding.ts';
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
 * Slots for each lane, which bound how many micro-batches' gradients are held at a time: sums wait for a lane that has nothing to run, as long as there is a
 * free slot and all slots together are within `HELD_BYTES` (or there is one for each lane, if the memory has room for that).
 */
const SLOTS_PER_LANE = 4;
const HELD_BYTES = 512 * 2 ** 20;
/** Left of a memory's bound by slots: what lies between arrays. */
const SPARE_BYTES = 2 ** 24;

/**
 * The graph of one micro-batch: the loss, and one gradient per folded matrix that is trained (and matters to it: a value head may not). `inputs` are the
 * folded matrices that it reads, `trained` those of them with a gradient. Ragged: for batches packed so.
 */
export function trainingGraph(
  config: LlamaConfig,
  form: Form,
  adapter?: AdapterConfig,
  ragged = false,
): { model: Uint8Array; inputs: string[]; trained: string[] } {
  const graph = llamaGraph(config, OBJECTIVE_AXES);
  const weights = llamaWeights(graph, config, { adapter });
  const states = treeStates(graph, config, weights, ragged);
  const out = head(config, weights, states);
  const heads = isScore(config) ? { scores: out } : { logits: out, scores: hasValueHead(config) ? valueHead(weights, states) : undefined };
  const loss = lossOf(form, graph, heads);
  const list = foldedMatrices(config, adapter).filter(({ name }) => dependsOn(loss, weights.get(name)!));
  const trained = list.filter((matrix) => matrix.trained).map(({ name }) => name);
  const outputs = gradients(
    loss,
    trained.map((name) => weights.get(name)!),
  );
  const model = graph.emit({ loss, ...Object.fromEntries(trained.map((name, i) => [gradientName(name), outputs[i]!])) });
  return { model, inputs: list.map(({ name }) => name), trained };
}
const gradientName = (name: string) => `d ${name}`;

/** What decides the graph of a micro-batch; equal keys, equal graphs. */
interface Shape {
  form: Form;
  ragged: boolean;
  key: string;
}

function shapeOf({ terms, trees }: Batch): Shape {
  const form = formOf(terms);
  const ragged = isRagged(trees, terms.reads);
  return { form, ragged, key: ragged ? `${form.key}, ragged` : form.key };
}

export class GradientLanes {
  readonly #config: LlamaConfig;
  readonly #objective: Objective;
  readonly #adapter: AdapterConfig | undefined;
  readonly #list: FoldedMatrix[];
  readonly #matrices = new Map<string, Float32Array>();
  readonly #shared: Record<string, Feed> = {};
  /** Where micro-batches leave their gradients, by folded matrix. */
  readonly #slots = new Map<string, ReturnType<LaneMemory['row']>>();
  /** Sums of gradients by folded matrix. */
  readonly #sums = new Map<string, Float32Array>();
  /** Gradients of gains while they are summed. */
  readonly #gains = new Map<string, Float64Array>();
  /**
   * Gradients of tensors by their holders: in place of the sum, or, where that is transposed, in the memory of the matrix itself, which nobody reads from the
   * last run of a step until it is folded for the next one.
   */
  readonly #gradients = new Map<string, Float32Array>();
  /** The tensors that are trained, each with the name of what holds its gradient in the end, and the sum of its squares then. */
  readonly #holders: Map<string, string>;
  readonly #squares = new Map<string, Float64Array>();
  /** By the key of their shape, each made when a batch first needs it: the matrices that it gives gradients of. */
  readonly #sessions = new Map<string, Promise<ReadonlySet<string>>>();
  #lanes: Lane[] = [];
  #memory: LaneMemory | undefined;
  #slotCount = 0;
  /** The trained matrices that are summed and folded together. */
  #shares: FoldedMatrix[][] = [];
  /** Whether the matrices that are not trained have been folded. */
  #folded = false;

  /** With an adapter only its tensors have gradients; all `tensors` below are then those of the model and of the adapter together. */
  constructor(config: LlamaConfig, objective: Objective, adapter?: AdapterConfig) {
    this.#config = config;
    this.#objective = objective;
    this.#adapter = adapter;
    this.#list = foldedMatrices(config, adapter);
    this.#holders = trainedTensors(this.#list);
  }

  /** Takes lanes that share `memory`, and what is needed of that. */
  open(lanes: Lane[], memory: LaneMemory): void {
    this.#lanes = lanes;
    this.#memory = memory;
    this.#shares = foldShares(
      this.#list.filter(({ trained }) => trained),
      SHARES_PER_LANE * lanes.length,
    );
    for (const matrix of this.#list) {
      const { name, gain, outputs, inputs, transposed, trained } = matrix;
      // What is not trained is only read, and need not take of the memory's bound.
      const own = trained ? memory.floats(outputs * inputs) : sharedFloats(outputs * inputs);
      this.#matrices.set(name, own);
      this.#shared[name] = { data: own, dims: graphShape(matrix) };
      if (trained) {
        const sum = memory.floats(outputs * inputs);
        this.#sums.set(name, sum);
        this.#gradients.set(name, transposed ? own : sum);
      }
      if (gain === undefined || !this.#holders.has(gain) || this.#gains.has(gain)) continue;
      this.#gradients.set(gain, memory.floats(inputs));
      this.#gains.set(gain, memory.doubles(inputs));
    }
    for (const tensor of this.#holders.keys()) this.#squares.set(tensor, memory.doubles(1));

    const bytes = [...this.#sums.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
    const wished = Math.max(lanes.length, Math.min(SLOTS_PER_LANE * lanes.length, Math.floor(HELD_BYTES / bytes)));
    this.#slotCount = Math.max(1, Math.min(wished, Math.floor((memory.room - SPARE_BYTES) / bytes)));
    for (const [name, { length }] of this.#sums) this.#slots.set(name, memory.row(length, this.#slotCount));
  }

  /** The lanes fold the matrices that training changes; the others are folded once. */
  async #fold(tensors: ReadonlyMap<string, Tensor>): Promise<void> {
    const frozen = this.#folded ? [] : this.#list.filter(({ trained }) => !trained);
    foldOrders(frozen, tensors, this.#matrices).forEach(foldPart);
    this.#folded = true;
    await spread(this.#lanes, this.#shares, (lane, share) => lane.fold(foldOrders(share, tensors, this.#matrices)));
  }

  #session({ form, ragged, key }: Shape): Promise<ReadonlySet<string>> {
    const load = async () => {
      const { model, inputs, trained } = trainingGraph(this.#config, form, this.#adapter, ragged);
      const shared = Object.fromEntries(inputs.map((name) => [name, this.#shared[name]!]));
      const slots = Array.from({ length: this.#slotCount }, (_, slot) =>
        Object.fromEntries(
          trained.map((name): [string, Feed] => [
            gradientName(name),
            { ...this.#shared[name]!, data: this.#slots.get(name)!.arrays[slot]! },
          ]),
        ),
      );
      await Promise.all(this.#lanes.map((lane) => lane.load(key, model, shared, slots)));
      return new Set(trained);
    };
    const loaded = this.#sessions.get(key) ?? load();
    this.#sessions.set(key, loaded);
    return loaded;
  }

  /**
   * The loss and the gradient of every trained tensor (by its name), summed over the micro-batches, with the sum of its squares. Trained `tensors`, and
   * all gains, must be in the memory of the lanes; only trained ones may differ from those of the call before. The arrays are overwritten by the next call.
   */
  async compute(
    batches: Batch[],
    tensors: ReadonlyMap<string, Tensor>,
  ): Promise<{ loss: number; gradients: Map<string, Float32Array>; squares: Map<string, number> }> {
    for (const [name, { shape, data }] of tensors) if (shape.length === 1 || this.#holders.has(name)) this.#memory!.owned(data);
    const limits = { vocabulary: this.#config.vocab_size, context: this.#config.max_position_embeddings };
    const shapes = batches.map(shapeOf);
    const given: ReadonlySet<string>[] = [];
    for (const shape of shapes) given.push(await this.#session(shape));
    const folding = this.#fold(tensors);
    folding.catch(() => undefined); // seen below

    const losses: (number | undefined)[] = batches.map(() => undefined);
    const shares = this.#shares.map((matrices) => ({ matrices, summed: 0, busy: false }));
    let next = 0;
    /** Micro-batches that have run, as well as all before them. */
    let complete = 0;

    const run = async (lane: Lane, i: number) => {
      const batch = batches[i]!;
      const slot = i % this.#slotCount;
      const feeds = batchFeeds(batch, pack(batch.trees, batch.terms.reads, limits, shapes[i]!.ragged), this.#objective, this.#config);
      for (const [name, { arrays }] of this.#slots) if (!given[i]!.has(name)) arrays[slot]!.fill(0);
      await folding;
      const { loss } = await lane.run(shapes[i]!.key, feeds, slot);
      losses[i] = loss![0]!;
      while (losses[complete] !== undefined) complete++;
    };
    const sum = async (lane: Lane, share: (typeof shares)[number]) => {
      const [from, to] = [share.summed, complete];
      share.busy = true;
      await lane.sum(this.#order(share.matrices, from, to, to === batches.length ? tensors : undefined));
      share.busy = false;
      share.summed = to;
    };
    const working = keepBusy(this.#lanes, (lane, open) => {
      const oldest = Math.min(...shares.map(({ summed }) => summed));
      if (oldest === batches.length) return undefined;
      // A micro-batch, unless no slot is free for it, or a share of the sums.
      const left = next < oldest + this.#slotCount ? batches.length - next : 0;
      if (mayTake(open, left, this.#lanes.length)) return run(lane, next++);
      const share = open === 0 ? shares.find(({ summed, busy }) => !busy && summed < complete) : undefined;
      return share ? sum(lane, share) : 'later';
    });
    // Nobody may change the weights or the sums while a lane still uses them.
    for (const end of await Promise.allSettled([working, folding])) if (end.status === 'rejected') throw end.reason;
    return {
      loss: losses.reduce((total: number, loss) => total + loss!, 0),
      gradients: new Map([...this.#holders].map(([tensor, holder]) => [tensor, this.#gradients.get(holder)!])),
      squares: new Map([...this.#squares].map(([tensor, square]) => [tensor, square[0]!])),
    };
  }

  /** Adds the gradients of micro-batches `from` to `to` to the sums of a share; with `tensors`, after the last ones, makes gradients of these of them. */
  #order(share: readonly FoldedMatrix[], from: number, to: number, tensors: ReadonlyMap<string, Tensor> | undefined): ShareOrder {
    const unfolding = tensors ? unfoldings(share, tensors, this.#gradients, this.#gains) : [];
    const own = new Set(share.flatMap(({ tensor, gain }) => (gain === undefined ? [tensor] : [tensor, gain])));
    const matrices = share.map(({ name }, i) => {
      return { sum: this.#sums.get(name)!, slots: this.#slots.get(name)!.row, from, to, unfolding: unfolding[i] };
    });
    if (!tensors) return { matrices, gains: [], squares: [] };
    return {
      matrices,
      gains: [...own].flatMap((name) => (this.#gains.has(name) ? { from: this.#gains.get(name)!, to: this.#gradients.get(name)! } : [])),
      squares: [...own].flatMap((tensor) => {
        const holder = this.#holders.get(tensor);
        return holder === undefined ? [] : { gradient: this.#gradients.get(holder)!, into: this.#squares.get(tensor)! };
      }),
    };
  }
}
