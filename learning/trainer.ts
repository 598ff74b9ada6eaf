/**
 * Trains one model: gradients from the lanes, clipping, optimizer, checkpoints. The bytes that come out depend on model, options and batches alone,
 * never on the number of lanes. It does not choose batches or rates; that is the business of `training-loop.ts` and of the stages.
 */
import { RatchetError, badInput } from '../core/errors.ts';
import { Factors } from './factors.ts';
import { GradientLanes } from './gradient-lanes.ts';
import { LaneMemory } from './lanes/arithmetic.ts';
import { openLanes } from './lanes/lane.ts';
import type { Lane } from './lanes/lane.ts';
import { checkAdapter, copyAdapter, mergeAdapter } from './lora.ts';
import type { Adapter } from './lora.ts';
import { activationBytes, parameterCount, requireMemory, showParameters, trainerBytes } from './memory.ts';
import { checkModel, copyTensor } from './model.ts';
import { NewtonSchulz } from './newton-schulz.ts';
import { checkObjective } from './objectives.ts';
import { FACTORED, Optimizer } from './optimizer.ts';
import { readSafetensors, writeSafetensors } from './safetensors.ts';
import type { Batch, LlamaConfig, Model, Objective, OptimizerOptions, StepReport, Tensor, Trainer } from './types.ts';

export interface TrainerOptions {
  objective: Objective;
  optimizer: OptimizerOptions;
  /** Threads; one per core is best. Does not change the result. */
  lanes: number;
  /**
   * `factors[v]` lists the features of token v: the rows of embedding and language-model head are sums of rows of learned feature tables. The model's
   * tables are replaced by the nearest factored ones at the start, so it must be new (`initModel` with the same factors) or come from such training.
   */
  factors?: number[][];
  /** Train this adapter (a copy of it) and leave the model as it is. */
  adapter?: Adapter;
}

const PARAMETER = 'parameter/';

class LlamaTrainer implements Trainer {
  readonly #config: LlamaConfig;
  /** The weights in Hugging Face's layout; tables of factored parameters are folded into it. */
  readonly #tensors: Map<string, Tensor>;
  readonly #adapter: Adapter | undefined;
  /** What the optimizer changes: the tensors themselves, feature tables in their place, or an adapter's tensors. */
  readonly #parameters: Map<string, Tensor>;
  readonly #factors: Factors | undefined;
  /** Gradients of the feature tables. */
  readonly #tableGradients = new Map<string, Float32Array>();
  readonly #memory: LaneMemory;
  readonly #optimizer: Optimizer;
  readonly #gradients: GradientLanes;
  readonly #newtonSchulz = new NewtonSchulz();
  #lanes: Lane[] = [];
  #busy = false;
  /** What is held between steps, in bytes. */
  readonly #held: number;

  constructor(model: Model, options: TrainerOptions, held: number, memory: LaneMemory) {
    checkModel(model.config, model.tensors);
    checkObjective(options.objective, model.config);
    this.#config = { ...model.config };
    this.#held = held;
    this.#memory = memory;
    // Matrices that an adapter leaves as they are need not take of the memory's bound.
    const inMemory = ({ shape }: Tensor) => !options.adapter || shape.length === 1;
    const copies = memory.copies(new Map([...model.tensors].filter(([, tensor]) => inMemory(tensor))));
    this.#tensors = new Map([...model.tensors].map(([name, tensor]) => [name, copies.get(name) ?? copyTensor(tensor)]));
    if (options.adapter) {
      checkAdapter(model.config, options.adapter);
      if (options.factors) throw badInput('factors', 'given', 'none beside an adapter: the tables are not trained');
      const { config, tensors } = copyAdapter(options.adapter);
      this.#adapter = { config, tensors: memory.copies(tensors) };
    }
    this.#parameters = new Map(this.#adapter?.tensors ?? this.#tensors);
    this.#factors = options.factors && new Factors(options.factors);
    if (this.#factors) {
      const { tokens, features } = this.#factors;
      if (tokens !== model.config.vocab_size)
        throw badInput('factors', `${tokens} tokens`, `the vocabulary has ${model.config.vocab_size}`);
      const width = model.config.hidden_size;
      const shape = [features, width];
      const tables = this.#factored().map(([name, { data }]): [string, Tensor] => [
        name,
        { shape, data: this.#factors!.table(data, width) },
      ]);
      for (const [name, table] of memory.copies(new Map(tables))) {
        this.#parameters.set(name, table);
        this.#tableGradients.set(name, memory.floats(table.data.length));
      }
    }
    this.#optimizer = new Optimizer(options.optimizer, this.#parameters, this.#newtonSchulz, memory);
    this.#gradients = new GradientLanes(this.#config, options.objective, this.#adapter?.config);
    this.#foldTables();
  }

  async open(lanes: number): Promise<void> {
    this.#lanes = await openLanes(lanes, (lane) => lane.share(this.#memory));
    try {
      this.#gradients.open(this.#lanes, this.#memory);
      this.#optimizer.open(this.#lanes);
      await this.#newtonSchulz.open(this.#lanes, this.#optimizer.muonShapes());
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  /** The tensors of the model and of the adapter. */
  #all(): Map<string, Tensor> {
    return this.#adapter ? new Map([...this.#tensors, ...this.#adapter.tensors]) : this.#tensors;
  }

  /** The tensors that are kept as feature tables. */
  #factored(): [string, Tensor][] {
    return this.#factors ? FACTORED.flatMap((name) => (this.#tensors.has(name) ? [[name, this.#tensors.get(name)!]] : [])) : [];
  }
  #foldTables(): void {
    for (const [name, { data }] of this.#factored()) this.#factors!.rows(this.#parameters.get(name)!.data, this.#config.hidden_size, data);
  }

  async step(batches: Batch[], rates: { learningRate: number; muonLearningRate?: number }): Promise<StepReport> {
    if (batches.length === 0) throw badInput('batches', [], 'at least one micro-batch');
    // As many micro-batches run at once as there are lanes; the largest alone is what must fit in any case.
    const largest = batches.reduce((most, batch) => Math.max(most, activationBytes(this.#config, batch)), 0);
    requireMemory('a step with its largest micro-batch', this.#held + largest);
    if (this.#busy) throw new Error('a step is under way; steps are taken one after the other');
    this.#busy = true;
    try {
      const { loss, gradients, squares } = await this.#gradients.compute(batches, this.#all());
      for (const [name] of this.#factored()) {
        const gradient = this.#tableGradients.get(name)!;
        gradient.set(this.#factors!.tableGradient(gradients.get(name)!, this.#config.hidden_size));
        gradients.set(name, gradient);
        squares.set(name, this.#memory.arithmetic.squares(gradient));
      }
      // Added in the order of the parameters: the last bits of the norm decide the scale of clipping, hence every weight.
      const gradientNorm = Math.sqrt([...this.#parameters.keys()].reduce((sum, name) => sum + squares.get(name)!, 0));
      if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm))
        throw new RatchetError('Diverged', `step ${this.#optimizer.steps + 1}: the loss is ${loss} and the gradient norm ${gradientNorm}`);
      const { clipNorm } = this.#optimizer.options;
      await this.#optimizer.step(gradients, gradientNorm > clipNorm ? clipNorm / gradientNorm : 1, rates);
      this.#foldTables();
      return { loss, gradientNorm };
    } finally {
      this.#busy = false;
    }
  }

  model(): Model {
    const model = { config: { ...this.#config }, tensors: this.#tensors };
    if (this.#adapter) return mergeAdapter(model, this.#adapter);
    return { ...model, tensors: new Map([...this.#tensors].map(([name, tensor]) => [name, copyTensor(tensor)])) };
  }

  adapter(): Adapter | undefined {
    return this.#adapter && copyAdapter(this.#adapter);
  }

  save(): Uint8Array {
    const all = new Map(this.#optimizer.state);
    for (const [name, tensor] of this.#parameters) all.set(PARAMETER + name, tensor);
    return writeSafetensors(all, {
      format: 'ratchet-trainer-1',
      steps: String(this.#optimizer.steps),
      optimizer: this.#optimizer.options.kind,
    });
  }

  restore(bytes: Uint8Array): void {
    const { tensors, metadata } = readSafetensors(bytes);
    const { kind } = this.#optimizer.options;
    if (metadata['format'] !== 'ratchet-trainer-1')
      throw badInput('trainer state: format', metadata['format'] ?? null, 'ratchet-trainer-1');
    if (metadata['optimizer'] !== kind)
      throw badInput('trainer state: optimizer', metadata['optimizer'] ?? null, `this trainer uses '${kind}'`);
    const steps = Number(metadata['steps']);
    if (!Number.isInteger(steps) || steps < 0) throw badInput('trainer state: steps', metadata['steps'] ?? null, 'a whole number');
    const targets = new Map(this.#optimizer.state);
    for (const [name, tensor] of this.#parameters) targets.set(PARAMETER + name, tensor);
    // Everything is checked before anything changes.
    for (const [name, target] of targets) {
      const got = tensors.get(name)?.shape ?? null;
      if (got?.join() !== target.shape.join())
        throw badInput(`trainer state: tensor '${name}'`, got, `shape [${target.shape.join(', ')}] is needed`);
    }
    for (const name of tensors.keys())
      if (!targets.has(name)) throw badInput(`trainer state: tensor '${name}'`, name, 'this trainer has no such tensor');
    for (const [name, target] of targets) target.data.set(tensors.get(name)!.data);
    this.#optimizer.steps = steps;
    this.#foldTables();
  }

  async close(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.close()));
  }
}

/**
 * A trainer that starts from a copy of `model`. OutOfMemory for one that cannot fit into the bound of this process, BadInput for a model, objective, optimizer
 * or factors that do not fit together.
 */
export async function createTrainer(model: Model, options: TrainerOptions): Promise<Trainer> {
  const parameters = parameterCount(model.tensors);
  const trained = options.adapter ? parameterCount(options.adapter.tensors) : parameters;
  const held = trainerBytes(parameters, trained, options.optimizer.kind);
  requireMemory(`training ${showParameters(parameters)}`, held);
  const trainer = new LlamaTrainer(model, options, held, await LaneMemory.create());
  await trainer.open(options.lanes);
  return trainer;
}
