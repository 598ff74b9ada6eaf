/**
 * AdamW (arXiv 1711.05101) and Muon (Jordan et al. 2024) over named parameters. State is float32, and so is AdamW's
 * arithmetic; AdamW's step and Muon's matrix iteration run on the lanes. It does not clip and knows nothing of losses.
 */
import { badInput } from '../core/errors.ts';
import { shares } from './lanes/arithmetic.ts';
import type { LaneMemory } from './lanes/arithmetic.ts';
import { SHARES_PER_LANE, spread } from './lanes/lane.ts';
import type { Lane } from './lanes/lane.ts';
import { EMBEDDING } from './model.ts';
import type { Matrix, NewtonSchulz } from './newton-schulz.ts';
import type { OptimizerOptions, Tensor } from './types.ts';

const MUON_MOMENTUM = 0.95;
/** Far above where its products vanish in float32, so that no denominator is 0. */
const LEAST_EPSILON = 1e-16;

/** Whether Muon takes this parameter: the matrices inside the blocks. */
export const isBlockMatrix = (name: string, shape: number[]) => shape.length === 2 && name.startsWith('model.layers.');

export function checkOptimizer(options: OptimizerOptions): void {
  if (options.kind !== 'adamw' && options.kind !== 'muon') throw badInput('optimizer.kind', options.kind, "'adamw' or 'muon'");
  for (const name of ['beta1', 'beta2'] as const)
    if (!(options[name] >= 0 && options[name] < 1)) throw badInput(`optimizer.${name}`, options[name], 'in [0, 1)');
  if (!(options.epsilon >= LEAST_EPSILON)) throw badInput('optimizer.epsilon', options.epsilon, `at least ${LEAST_EPSILON}`);
  if (!(options.weightDecay >= 0)) throw badInput('optimizer.weightDecay', options.weightDecay, 'at least 0');
  if (!(options.clipNorm > 0)) throw badInput('optimizer.clipNorm', options.clipNorm, 'above 0');
}

export class Optimizer {
  readonly options: OptimizerOptions;
  /** Steps done. */
  steps = 0;
  /** State by what it is and the parameter's name: `adamw.m/<name>`, `adamw.v/<name>`, `muon.momentum/<name>`. */
  readonly state = new Map<string, Tensor>();
  readonly #parameters: ReadonlyMap<string, Tensor>;
  readonly #newtonSchulz: NewtonSchulz;
  readonly #memory: LaneMemory;
  #lanes: Lane[] = [];

  /** The parameters' data must be in `memory`, and the gradients too; they change there, in place. */
  constructor(options: OptimizerOptions, parameters: ReadonlyMap<string, Tensor>, newtonSchulz: NewtonSchulz, memory: LaneMemory) {
    checkOptimizer(options);
    this.options = { ...options };
    this.#parameters = parameters;
    this.#newtonSchulz = newtonSchulz;
    this.#memory = memory;
    for (const [name, { shape, data }] of parameters) {
      memory.owned(data);
      const kinds = this.#byMuon(name, shape) ? ['muon.momentum'] : ['adamw.m', 'adamw.v'];
      for (const kind of kinds) this.state.set(`${kind}/${name}`, { shape, data: memory.floats(data.length) });
    }
  }

  /** The lanes that will do the work: at least one. */
  open(lanes: Lane[]): void {
    this.#lanes = lanes;
  }

  #byMuon(name: string, shape: number[]): boolean {
    return this.options.kind === 'muon' && isBlockMatrix(name, shape);
  }

  /** The shapes that Muon's iteration must serve. */
  muonShapes(): { rows: number; columns: number }[] {
    const matrices = [...this.#parameters].filter(([name, { shape }]) => this.#byMuon(name, shape));
    return matrices.map(([, { shape }]) => ({ rows: shape[0]!, columns: shape[1]! }));
  }

  /** One step; `gradientScale` multiplies every gradient (clipping). The parameters change in place. */
  async step(
    gradients: ReadonlyMap<string, Float32Array>,
    gradientScale: number,
    rates: { learningRate: number; muonLearningRate?: number },
  ): Promise<void> {
    const { learningRate, muonLearningRate } = rates;
    if (!(learningRate >= 0)) throw badInput('learningRate', learningRate, 'at least 0');
    if (this.#lanes.length === 0) throw new Error('the optimizer has no lanes yet');
    if (this.options.kind === 'muon' && !(muonLearningRate !== undefined && muonLearningRate >= 0))
      throw badInput('muonLearningRate', muonLearningRate ?? null, 'at least 0; Muon needs it');
    const pending = this.options.kind === 'muon' ? this.#orthogonalised(gradients, gradientScale) : Promise.resolve([]);
    this.steps++;
    const [updates] = await Promise.all([pending, this.#adamw(gradients, gradientScale, learningRate)]);
    for (const [name, update] of updates) this.#muon(name, update, muonLearningRate!);
  }

  /** AdamW's step on all lanes; each number is computed by itself, so it does not matter where. */
  async #adamw(gradients: ReadonlyMap<string, Float32Array>, gradientScale: number, rate: number): Promise<void> {
    const { beta1, beta2, epsilon, weightDecay } = this.options;
    const numbers = {
      beta1,
      beta2,
      epsilon,
      gradientScale,
      stepSize: rate / (1 - beta1 ** this.steps),
      rootCorrection: Math.sqrt(1 - beta2 ** this.steps),
    };
    const parts = [...this.#parameters]
      .filter(([name, { shape }]) => !this.#byMuon(name, shape))
      .map(([name, { shape, data }]) => ({
        parameter: data,
        firstMoment: this.state.get(`adamw.m/${name}`)!.data,
        secondMoment: this.state.get(`adamw.v/${name}`)!.data,
        gradient: this.#memory.owned(gradients.get(name)!),
        decay: shape.length === 2 ? 1 - rate * weightDecay : 1,
      }));
    await spread(this.#lanes, shares(parts, SHARES_PER_LANE * this.#lanes.length), (lane, share) => lane.adamw(share, numbers));
  }

  /** Momentum (Nesterov), orthogonalised. */
  async #orthogonalised(gradients: ReadonlyMap<string, Float32Array>, gradientScale: number): Promise<[string, Float32Array][]> {
    const names: string[] = [];
    const matrices: Matrix[] = [];
    for (const [name, { shape }] of this.#parameters) {
      if (!this.#byMuon(name, shape)) continue;
      const g = gradients.get(name)!;
      const momentum = this.state.get(`muon.momentum/${name}`)!.data;
      const data = new Float32Array(g.length);
      for (let i = 0; i < g.length; i++) {
        const d = g[i]! * gradientScale;
        const next = MUON_MOMENTUM * momentum[i]! + (1 - MUON_MOMENTUM) * d;
        momentum[i] = next;
        data[i] = (1 - MUON_MOMENTUM) * d + MUON_MOMENTUM * next;
      }
      names.push(name);
      matrices.push({ rows: shape[0]!, columns: shape[1]!, data });
    }
    const updates = await this.#newtonSchulz.run(matrices);
    return names.map((name, i) => [name, updates[i]!]);
  }

  #muon(name: string, update: Float32Array, rate: number): void {
    const { data: p, shape } = this.#parameters.get(name)!;
    const decay = 1 - rate * this.options.weightDecay;
    const size = rate * Math.sqrt(Math.max(1, shape[0]! / shape[1]!)); // keeps the size of the change of outputs equal for tall matrices
    for (let i = 0; i < p.length; i++) p[i] = p[i]! * decay - size * update[i]!;
  }
}

/** The parameters that may be kept as feature tables. */
export const FACTORED = [EMBEDDING, 'lm_head.weight'];
