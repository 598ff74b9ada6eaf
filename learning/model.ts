/**
 * Models in memory, in Hugging Face's layout: which tensors a configuration asks for, new weights, a policy's trunk under another head. It computes
 * nothing with them; how they are read and written is the business of `config.ts` and `model-files.ts`.
 */
import { badInput } from '../core/errors.ts';
import { Random } from '../core/random.ts';
import type { RandomKey } from '../core/random.ts';
import { checkConfig } from './config.ts';
import type { LlamaConfig, Model, Tensor } from './types.ts';

export const EMBEDDING = 'model.embed_tokens.weight';
export const FINAL_NORM = 'model.norm.weight';
/** The name of a layer's weight, e.g. `layerName(0, 'self_attn.q_proj')`. */
export const layerName = (layer: number, part: string) => `model.layers.${layer}.${part}.weight`;
export const headName = (config: LlamaConfig) => (isScore(config) ? 'score.weight' : 'lm_head.weight');
/** A scalar head over the same states as the language-model head, [1, D]: the value of a state for actor-critic training. Ratchet's own addition. */
export const VALUE_HEAD = 'value_head.weight';
export const isScore = (config: LlamaConfig) => config.architectures[0] === 'LlamaForSequenceClassification';
/** Whether the embeddings are the language-model head too; then there is no tensor `lm_head.weight`. */
export const isTied = (config: LlamaConfig) => config.tie_word_embeddings && !isScore(config);
export const hasValueHead = (config: LlamaConfig) => config.value_head === true;

/** Every tensor of a model of this configuration with its shape, in the order of computation. */
export function expectedShapes(config: LlamaConfig): Map<string, number[]> {
  const { hidden_size: D, intermediate_size: F, head_dim: E } = config;
  const shapes = new Map<string, number[]>([[EMBEDDING, [config.vocab_size, D]]]);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    shapes.set(layerName(layer, 'input_layernorm'), [D]);
    shapes.set(layerName(layer, 'self_attn.q_proj'), [config.num_attention_heads * E, D]);
    shapes.set(layerName(layer, 'self_attn.k_proj'), [config.num_key_value_heads * E, D]);
    shapes.set(layerName(layer, 'self_attn.v_proj'), [config.num_key_value_heads * E, D]);
    shapes.set(layerName(layer, 'self_attn.o_proj'), [D, config.num_attention_heads * E]);
    shapes.set(layerName(layer, 'post_attention_layernorm'), [D]);
    shapes.set(layerName(layer, 'mlp.gate_proj'), [F, D]);
    shapes.set(layerName(layer, 'mlp.up_proj'), [F, D]);
    shapes.set(layerName(layer, 'mlp.down_proj'), [D, F]);
  }
  shapes.set(FINAL_NORM, [D]);
  if (!isTied(config)) shapes.set(headName(config), [isScore(config) ? 1 : config.vocab_size, D]);
  if (hasValueHead(config)) shapes.set(VALUE_HEAD, [1, D]);
  return shapes;
}

/** Refuses a model with a missing, unknown, misshapen or non-finite tensor, and names it. */
export function checkModel(config: LlamaConfig, tensors: ReadonlyMap<string, Tensor>): void {
  checkConfig(config);
  const expected = expectedShapes(config);
  for (const [name, shape] of expected) {
    const tensor = tensors.get(name);
    if (!tensor) throw badInput(`tensor '${name}'`, null, `the model needs it, of shape [${shape.join(', ')}]`);
    if (tensor.shape.join() !== shape.join())
      throw badInput(`shape of tensor '${name}'`, tensor.shape, `config.json asks for [${shape.join(', ')}]`);
    if (tensor.data.length !== shape.reduce((a, b) => a * b, 1))
      throw badInput(`tensor '${name}'`, `${tensor.data.length} numbers`, `shape [${shape.join(', ')}] needs as many as its product`);
    if (!tensor.data.every(Number.isFinite))
      throw badInput(`tensor '${name}'`, 'a number that is not finite', 'all weights must be finite');
  }
  for (const name of tensors.keys())
    if (!expected.has(name)) throw badInput(`tensor '${name}'`, name, 'the architecture has no such tensor');
}

/** What a new small model is: the rest of its configuration follows. */
export interface ModelSize {
  vocabulary: number;
  width: number;
  layers: number;
  heads: number;
  keyValueHeads?: number;
  /** Width of a head; `width / heads` if omitted. */
  headWidth?: number;
  /** Width of the SwiGLU layer; 8/3 of `width` rounded up to a multiple of 16 if omitted. */
  feedForward?: number;
  /** Longest sequence that can be read. */
  context: number;
  ropeTheta?: number;
  /** One matrix is embedding and head. */
  tied?: boolean;
}

/** The configuration of a new causal model. */
export function llamaConfig(size: ModelSize): LlamaConfig {
  const config: LlamaConfig = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    vocab_size: size.vocabulary,
    hidden_size: size.width,
    intermediate_size: size.feedForward ?? Math.ceil((size.width * 8) / 3 / 16) * 16,
    num_hidden_layers: size.layers,
    num_attention_heads: size.heads,
    num_key_value_heads: size.keyValueHeads ?? size.heads,
    head_dim: size.headWidth ?? size.width / size.heads,
    max_position_embeddings: size.context,
    rms_norm_eps: 1e-5,
    rope_theta: size.ropeTheta ?? 10_000,
    tie_word_embeddings: size.tied ?? false,
    hidden_act: 'silu',
    attention_bias: false,
    mlp_bias: false,
    torch_dtype: 'float32',
  };
  checkConfig(config);
  return config;
}

/**
 * New weights, each tensor drawn from a generator of its own under `key`: normal with standard deviation 1/sqrt(inputs) for matrices and head, 0.25 for
 * embeddings; the matrices that write to the residual stream, and a value head, start at zero, so that the first model predicts from the current token alone. On 144 k
 * tokens of household demonstrations this start reached 0.58 nats, one with a head of 1/50 of that size and unscaled residual writes 0.97.
 * `factors[v]` lists the features of token v: then the rows of embedding and head are sums of the rows of random feature tables, as a trainer with the
 * same factors keeps them.
 */
export function initModel(config: LlamaConfig, key: RandomKey, factors?: number[][]): Model {
  checkConfig(config);
  const tensors = new Map<string, Tensor>();
  for (const [name, shape] of expectedShapes(config)) {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    const inputs = shape.at(-1)!;
    const random = new Random([...key, name]);
    const deviation = name === EMBEDDING ? 0.25 : 1 / Math.sqrt(inputs);
    if (shape.length === 1) data.fill(1);
    else if (!/o_proj|down_proj|value_head/.test(name)) {
      if (factors && (name === EMBEDDING || name === 'lm_head.weight')) drawFactored(data, factors, inputs, deviation, random);
      else for (let i = 0; i < data.length; i++) data[i] = deviation * random.normal();
    }
    tensors.set(name, { shape, data });
  }
  return { config: { ...config }, tensors };
}

function drawFactored(data: Float32Array, factors: number[][], width: number, deviation: number, random: Random): void {
  if (factors.length * width !== data.length)
    throw badInput('factors', `${factors.length} tokens`, `the vocabulary has ${data.length / width}`);
  const features = 1 + Math.max(...factors.flat());
  const table = Float32Array.from({ length: features * width }, () => deviation * random.normal());
  factors.forEach((list, token) => {
    for (const feature of list) for (let i = 0; i < width; i++) data[token * width + i]! += table[feature * width + i]!;
  });
}

/** The tensors of a model without its heads; copies. */
const trunk = ({ tensors }: Model) =>
  new Map([...tensors].flatMap(([name, tensor]) => (name.startsWith('model.') ? [[name, copyTensor(tensor)]] : [])));

/** The trunk of a model under a score head with these weights (length: hidden_size). The trunk's tensors are copies. */
export function toScoreModel(model: Model, scoreWeight: Float32Array): Model {
  if (scoreWeight.length !== model.config.hidden_size)
    throw badInput('score.weight', `${scoreWeight.length} numbers`, `hidden_size is ${model.config.hidden_size}`);
  const tensors = trunk(model).set('score.weight', { shape: [1, scoreWeight.length], data: scoreWeight.slice() });
  const { value_head: _, ...rest } = model.config;
  return { config: { ...(rest as LlamaConfig), architectures: ['LlamaForSequenceClassification'], num_labels: 1 }, tensors };
}

/** The trunk of a model under a language-model head [V, D] of its own. The inverse of `toScoreModel`. */
export function toCausalModel(model: Model, head: Float32Array): Model {
  const { vocab_size: V, hidden_size: D } = model.config;
  if (head.length !== V * D) throw badInput('lm_head.weight', `${head.length} numbers`, `vocab_size x hidden_size is ${V * D}`);
  const tensors = trunk(model).set('lm_head.weight', { shape: [V, D], data: head.slice() });
  const { num_labels: _, ...rest } = model.config;
  return { config: { ...(rest as LlamaConfig), architectures: ['LlamaForCausalLM'], tie_word_embeddings: false }, tensors };
}

/** A causal model with a value head beside its own; it starts at zero, which says 0 everywhere. All tensors are copies. */
export function withValueHead(model: Model): Model {
  const { hidden_size: D } = model.config;
  const tensors = new Map([...model.tensors].map(([name, tensor]) => [name, copyTensor(tensor)]));
  const config: LlamaConfig = { ...model.config, value_head: true };
  checkConfig(config);
  return { config, tensors: tensors.set(VALUE_HEAD, { shape: [1, D], data: new Float32Array(D) }) };
}

export const copyTensor = ({ shape, data }: Tensor): Tensor => ({ shape: [...shape], data: data.slice() });
