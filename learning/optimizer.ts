/**
 * AdamW (arXiv 1711.05101) and Muon (Jordan et al. 2024) over named parameters. The arithmetic is elementwise, in double precision over float32 state,
 * on the calling thread; only Muon's matrix iteration runs on the lanes. It does not clip and knows nothing of losses.
 */
import { badInput } from '../core/errors.ts';
import { EMBEDDING } from './model.ts';
import type { Matrix, NewtonSchulz } from './newton-schulz.ts';
import type { OptimizerOptions, Tensor } from './types.ts';

const MUON_MOMENTUM = 0.95;

/** Whether Muon takes this parameter: the matrices inside the blocks. */
export const isBlockMatrix = (name: string, shape: number[]) => shape.length === 2 && name.startsWith('model.layers.');

export function checkOptimizer(options: OptimizerOptions): void {
  if (options.kind !== 'adamw' && options.kind !== 'muon') throw badInput('optimizer.kind', options.kind, "'adamw' or 'muon'");
  for (const name of ['beta1', 'beta2'] as const)
    if (!(options[name] >= 0 && options[name] < 1)) throw badInput(`optimizer.${name}`, options[name], 'in [0, 1)');
  if (!(options.epsilon > 0)) throw badInput('optimizer.epsilon', options.epsilon, 'above 0');
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

  constructor(options: OptimizerOptions, parameters: ReadonlyMap<string, Tensor>, newtonSchulz: NewtonSchulz) {
    checkOptimizer(options);
    this.options = { ...options };
    this.#parameters = parameters;
    this.#newtonSchulz = newtonSchulz;
    for (const [name, { shape, data }] of parameters) {
      const kinds = this.#byMuon(name, shape) ? ['muon.momentum'] : ['adamw.m', 'adamw.v'];
      for (const kind of kinds) this.state.set(`${kind}/${name}`, { shape, data: new Float32Array(data.length) });
    }
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
    gradients: ReadonlyMap<string, Float64Array>,
    gradientScale: number,
    rates: { learningRate: number; muonLearningRate?: number },
  ): Promise<void> {
    const { learningRate, muonLearningRate } = rates;
    if (!(learningRate >= 0)) throw badInput('learningRate', learningRate, 'at least 0');
    if (this.options.kind === 'muon' && !(muonLearningRate !== undefined && muonLearningRate >= 0))
      throw badInput('muonLearningRate', muonLearningRate ?? null, 'at least 0; Muon needs it');
    // Muon first asks the lanes, so that they work while AdamW runs here.
    const pending = this.options.kind === 'muon' ? this.#orthogonalised(gradients, gradientScale) : Promise.resolve([]);
    this.steps++;
    for (const [name, parameter] of this.#parameters) {
      if (!this.#byMuon(name, parameter.shape)) this.#adamw(name, parameter, gradients.get(name)!, gradientScale, learningRate);
    }
    for (const [name, update] of await pending) this.#muon(name, update, muonLearningRate!);
  }

  #adamw(name: string, { data: p, shape }: Tensor, g: Float64Array, gradientScale: number, rate: number): void {
    const { beta1, beta2, epsilon, weightDecay } = this.options;
    const m = this.state.get(`adamw.m/${name}`)!.data;
    const v = this.state.get(`adamw.v/${name}`)!.data;
    const decay = shape.length === 2 ? 1 - rate * weightDecay : 1;
    const stepSize = rate / (1 - beta1 ** this.steps);
    const rootCorrection = Math.sqrt(1 - beta2 ** this.steps);
    for (let i = 0; i < p.length; i++) {
      const d = g[i]! * gradientScale;
      const first = beta1 * m[i]! + (1 - beta1) * d;
      const second = beta2 * v[i]! + (1 - beta2) * d * d;
      m[i] = first;
      v[i] = second;
      p[i] = p[i]! * decay - (stepSize * first) / (Math.sqrt(second) / rootCorrection + epsilon);
    }
  }

  /** Momentum (Nesterov), orthogonalised. */
  async #orthogonalised(gradients: ReadonlyMap<string, Float64Array>, gradientScale: number): Promise<[string, Float32Array][]> {
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
