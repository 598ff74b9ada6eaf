/**
 * LoRA adapters (arXiv 2106.09685): a frozen matrix W [out, in] is used as W + s B A, with A [r, in], B [out, r] and s = alpha / r, or alpha / sqrt(r)
 * under rank-stabilised LoRA (arXiv 2312.03732). In memory as PEFT keeps them on disk: names and fields are PEFT's. What PEFT can do beyond plain
 * LoRA (DoRA, per-module ranks, biases, changed initial weights) is refused by the field's name.
 */
import { badInput } from '../core/errors.ts';
import { Random } from '../core/random.ts';
import type { RandomKey } from '../core/random.ts';
import { checkModel, copyTensor, expectedShapes, headName, isTied, layerName } from './model.ts';
import type { LlamaConfig, Model, Tensor } from './types.ts';

/** The matrices of a block that an adapter may change, as PEFT's `target_modules` names them. */
export const BLOCK_PARTS = {
  q_proj: 'self_attn.q_proj',
  k_proj: 'self_attn.k_proj',
  v_proj: 'self_attn.v_proj',
  o_proj: 'self_attn.o_proj',
  gate_proj: 'mlp.gate_proj',
  up_proj: 'mlp.up_proj',
  down_proj: 'mlp.down_proj',
} as const;
export type BlockPart = keyof typeof BLOCK_PARTS;
const PARTS = Object.keys(BLOCK_PARTS) as BlockPart[];

/** The part of PEFT's `adapter_config.json` that Ratchet reads. Other keys are kept as they are. */
export interface AdapterConfig {
  peft_type: 'LORA';
  task_type: 'CAUSAL_LM' | 'SEQ_CLS';
  r: number;
  lora_alpha: number;
  target_modules: BlockPart[];
  use_rslora: boolean;
  /** Heads that are trained whole beside the adapter: `score` or `lm_head`, by the model's kind. */
  modules_to_save: string[] | null;
  [key: string]: unknown;
}

/** An adapter in memory. Tensor names are PEFT's: `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`, `base_model.model.score.weight`. */
export interface Adapter {
  config: AdapterConfig;
  tensors: Map<string, Tensor>;
}

export interface LoraOptions {
  rank: number;
  alpha: number;
  /** All block matrices if omitted. */
  targets?: BlockPart[] | undefined;
  rankStabilised?: boolean;
  /** Train the head too: needed for a new score head, which would otherwise stay as it is. */
  trainHead?: boolean;
}

const PREFIX = 'base_model.model.';
/** The adapter's name of one of its factors, from the name of the matrix. */
export const loraName = (matrix: string, factor: 'A' | 'B') => `${PREFIX}${matrix.replace(/weight$/, `lora_${factor}.weight`)}`;
/** The adapter's name of a tensor that it holds whole. */
export const savedName = (tensor: string) => PREFIX + tensor;

/** s, the factor on B A. */
export const loraScale = ({ r, lora_alpha, use_rslora }: AdapterConfig) => lora_alpha / (use_rslora ? Math.sqrt(r) : r);
/** Whether the adapter holds the model's head. */
export const savesHead = (config: LlamaConfig, adapter: AdapterConfig) => {
  const module = headName(config).replace('.weight', '');
  return adapter.modules_to_save?.includes(module) ?? false;
};

/** The matrices that an adapter changes, in the order of computation. */
export function loraTargets(config: LlamaConfig, adapter: AdapterConfig): string[] {
  const parts = PARTS.filter((part) => adapter.target_modules.includes(part));
  return Array.from({ length: config.num_hidden_layers }, (_, layer) => parts.map((part) => layerName(layer, BLOCK_PARTS[part]))).flat();
}

/** Every tensor of an adapter with its shape. */
export function adapterShapes(config: LlamaConfig, adapter: AdapterConfig): Map<string, [number, number]> {
  const matrices = expectedShapes(config);
  const shapes = new Map<string, [number, number]>();
  for (const name of loraTargets(config, adapter)) {
    const [outputs, inputs] = matrices.get(name) as [number, number];
    shapes.set(loraName(name, 'A'), [adapter.r, inputs]);
    shapes.set(loraName(name, 'B'), [outputs, adapter.r]);
  }
  if (savesHead(config, adapter)) shapes.set(savedName(headName(config)), matrices.get(headName(config)) as [number, number]);
  return shapes;
}

/**
 * `target_modules` may be the word for all block matrices, a list of module names or of their ends, or a pattern over whole module names. PEFT matches
 * them likewise; a part must be taken in every layer or in none.
 */
function targetsOf(value: unknown, config: LlamaConfig): BlockPart[] {
  const where = 'adapter_config.json: target_modules';
  const valid = `some of ${PARTS.join(', ')}`;
  if (value === 'all-linear') return PARTS;
  const modules = PARTS.map((part) =>
    Array.from({ length: config.num_hidden_layers }, (_, layer) => layerName(layer, BLOCK_PARTS[part]).replace('.weight', '')),
  );
  const taking = (takes: (module: string) => boolean): BlockPart[] => {
    const uneven = PARTS.find((_, i) => new Set(modules[i]!.map(takes)).size > 1);
    if (uneven) throw badInput(where, value, `'${uneven}' of every layer or of none`);
    return PARTS.filter((_, i) => takes(modules[i]![0]!));
  };
  const ends = (module: string, name: unknown) => module === name || module.endsWith(`.${String(name)}`);
  let parts: BlockPart[] = [];
  if (Array.isArray(value)) {
    const wrong = value.findIndex((name: unknown) => !modules.flat().some((module) => ends(module, name)));
    if (wrong >= 0) throw badInput(`${where}[${wrong}]`, value[wrong], valid);
    parts = taking((module) => value.some((name: unknown) => ends(module, name)));
  } else if (typeof value === 'string') {
    try {
      const pattern = new RegExp(`^(?:${value})$`);
      parts = taking((module) => pattern.test(module));
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error; // no pattern takes nothing
    }
  }
  if (parts.length === 0) throw badInput(where, value ?? null, valid);
  return parts;
}

/** A checked adapter configuration from parsed JSON. BadInput names the field that is wrong or asks for more than plain LoRA. */
export function parseAdapterConfig(json: unknown, config: LlamaConfig): AdapterConfig {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw badInput('adapter_config.json', json, 'a JSON object');
  const given = json as Record<string, unknown>;
  const field = (name: string) => `adapter_config.json: ${name}`;
  const none = (value: unknown) => value === undefined || value === null || value === false || JSON.stringify(value) === '{}';
  if (given['peft_type'] !== 'LORA') throw badInput(field('peft_type'), given['peft_type'] ?? null, '"LORA"');
  const unsupported = ['rank_pattern', 'alpha_pattern', 'layers_to_transform', 'layers_pattern', 'layer_replication', 'exclude_modules'];
  unsupported.push(
    'target_parameters',
    'trainable_token_indices',
    'use_dora',
    'use_qalora',
    'lora_bias',
    'fan_in_fan_out',
    'megatron_config',
  );
  unsupported.push('alora_invocation_tokens', 'use_bdlora');
  for (const name of unsupported) if (!none(given[name])) throw badInput(field(name), given[name], 'plain LoRA only: leave it out');
  if ((given['bias'] ?? 'none') !== 'none') throw badInput(field('bias'), given['bias'], '"none"');
  const start = given['init_lora_weights'] ?? true;
  if (typeof start !== 'boolean' && start !== 'gaussian')
    throw badInput(field('init_lora_weights'), start, 'true, false or "gaussian": others change the base model too');
  const { r, lora_alpha: alpha } = given;
  if (!Number.isInteger(r) || (r as number) < 1) throw badInput(field('r'), r ?? null, 'a whole number of at least 1');
  if (!(typeof alpha === 'number' && alpha > 0)) throw badInput(field('lora_alpha'), alpha ?? null, 'a number above 0');
  const score = headName(config) === 'score.weight';
  const task = given['task_type'] ?? (score ? 'SEQ_CLS' : 'CAUSAL_LM');
  if (task !== (score ? 'SEQ_CLS' : 'CAUSAL_LM'))
    throw badInput(field('task_type'), task, `the base model is a ${config.architectures[0]}`);
  // PEFT lists every head that a classifier may have; those that the model has not are ignored, as PEFT does.
  const heads = ['score', 'lm_head', 'classifier'];
  const saved = (given['modules_to_save'] ?? []) as unknown[];
  const wrong = Array.isArray(saved) ? saved.find((name) => !heads.includes(String(name))) : saved;
  if (wrong !== undefined) throw badInput(field('modules_to_save'), wrong, score ? 'only "score"' : 'only "lm_head"');
  if (isTied(config) && saved.includes('lm_head'))
    throw badInput(field('modules_to_save'), 'lm_head', "a head of its own; this model's is tied to its embeddings");
  return {
    ...given,
    peft_type: 'LORA',
    task_type: task as AdapterConfig['task_type'],
    r: r as number,
    lora_alpha: alpha,
    target_modules: targetsOf(given['target_modules'], config),
    use_rslora: given['use_rslora'] === true,
    modules_to_save: saved.length > 0 ? (saved as string[]) : null,
  };
}

/** Refuses an adapter with a missing, unknown, misshapen or non-finite tensor, and names it. */
export function checkAdapter(config: LlamaConfig, adapter: Adapter): void {
  const expected = adapterShapes(config, adapter.config);
  for (const [name, shape] of expected) {
    const tensor = adapter.tensors.get(name);
    if (tensor?.shape.join() !== shape.join())
      throw badInput(`adapter tensor '${name}'`, tensor?.shape ?? null, `the adapter needs it, of shape [${shape.join(', ')}]`);
    if (!tensor.data.every(Number.isFinite))
      throw badInput(`adapter tensor '${name}'`, 'a number that is not finite', 'all weights must be finite');
  }
  for (const name of adapter.tensors.keys())
    if (!expected.has(name)) throw badInput(`adapter tensor '${name}'`, name, 'neither the base model nor target_modules ask for it');
}

/**
 * A new adapter that changes nothing yet: B is zero, A uniform in +-1/sqrt(inputs) as PEFT draws it, each from a generator of its own under `key`.
 * A head that is trained too starts as the model's.
 */
export function initAdapter(model: Model, options: LoraOptions, key: RandomKey): Adapter {
  const { rank, alpha, targets = PARTS, rankStabilised = false, trainHead = false } = options;
  const head = headName(model.config).replace('.weight', '');
  const config = parseAdapterConfig(
    {
      peft_type: 'LORA',
      r: rank,
      lora_alpha: alpha,
      target_modules: targets,
      use_rslora: rankStabilised,
      modules_to_save: trainHead ? [head] : null,
      lora_dropout: 0,
      bias: 'none',
      base_model_name_or_path: null,
      inference_mode: true,
    },
    model.config,
  );
  const tensors = new Map<string, Tensor>();
  for (const [name, shape] of adapterShapes(model.config, config)) {
    if (name === savedName(headName(model.config))) {
      tensors.set(name, copyTensor(model.tensors.get(headName(model.config))!));
      continue;
    }
    const data = new Float32Array(shape[0] * shape[1]);
    const random = new Random([...key, name]);
    const bound = 1 / Math.sqrt(shape[1]);
    if (name.endsWith('lora_A.weight')) for (let i = 0; i < data.length; i++) data[i] = bound * (2 * random.uniform() - 1);
    tensors.set(name, { shape, data });
  }
  return { config, tensors };
}

export const copyAdapter = ({ config, tensors }: Adapter): Adapter => ({
  config: { ...config },
  tensors: new Map([...tensors].map(([name, tensor]) => [name, copyTensor(tensor)])),
});

/** The model with the adapter's changes in its own matrices, W + s B A, summed in double precision. All tensors are copies. */
export function mergeAdapter(model: Model, adapter: Adapter): Model {
  checkModel(model.config, model.tensors);
  checkAdapter(model.config, adapter);
  const { config } = model;
  const tensors = new Map([...model.tensors].map(([name, tensor]) => [name, copyTensor(tensor)]));
  const scale = loraScale(adapter.config);
  const rank = adapter.config.r;
  const row = new Float64Array(Math.max(config.hidden_size, config.intermediate_size, config.num_attention_heads * config.head_dim));
  for (const name of loraTargets(config, adapter.config)) {
    const { shape, data } = tensors.get(name)!;
    const [a, b] = (['A', 'B'] as const).map((factor) => adapter.tensors.get(loraName(name, factor))!.data);
    const [outputs, inputs] = shape as [number, number];
    for (let o = 0; o < outputs; o++) {
      row.fill(0);
      for (let k = 0; k < rank; k++) {
        const weight = scale * b![o * rank + k]!;
        if (weight !== 0) for (let i = 0; i < inputs; i++) row[i]! += weight * a![k * inputs + i]!;
      }
      for (let i = 0; i < inputs; i++) data[o * inputs + i]! += row[i]!;
    }
  }
  if (savesHead(config, adapter.config)) tensors.set(headName(config), copyTensor(adapter.tensors.get(savedName(headName(config)))!));
  return { config: { ...config }, tensors };
}
