/**
 * A Hugging Face Llama `config.json`: what its fields mean, which defaults hold where one is missing, and the refusal of every field that asks for
 * something this engine would compute wrongly (biases, other activations, dropout, quantised weights, rotations it does not know). It makes no tensors.
 */
import { badInput } from '../core/errors.ts';
import type { LlamaConfig } from './types.ts';

const field = (name: string) => `config.json: ${name}`;

/** Fields that are whole numbers of at least 1. */
const COUNT_FIELDS = [
  'vocab_size',
  'hidden_size',
  'intermediate_size',
  'num_hidden_layers',
  'num_attention_heads',
  'num_key_value_heads',
  'head_dim',
  'max_position_embeddings',
] as const;

/** The fields that decide what a model computes with its weights; models that agree in them can take each other's place. */
const SHAPE_FIELDS = ['architectures', ...COUNT_FIELDS, 'rms_norm_eps', 'tie_word_embeddings'] as const;

/** A text that is equal for two configurations if and only if their models compute the same with the same weights. */
export function shapeKey(config: LlamaConfig): string {
  const fields = Object.fromEntries(SHAPE_FIELDS.map((name) => [name, config[name]]));
  return JSON.stringify({ ...fields, value_head: config.value_head ?? false, rotations: ropeOf(config) });
}

// --- rotary positions ------------------------------------------------------------------------------------------------------------------------------

/** How positions turn queries and keys. `linear` and `llama3` stretch the context of a trained model by `factor`. */
type Rope =
  | { type: 'default'; theta: number }
  | { type: 'linear'; theta: number; factor: number }
  | { type: 'llama3'; theta: number; factor: number; lowFrequency: number; highFrequency: number; originalContext: number };

/** Transformers writes `rope_parameters` since version 5, and `rope_theta` with `rope_scaling` before. */
function ropeOf(config: Pick<LlamaConfig, 'rope_theta'> & Record<string, unknown>): Rope {
  const [name, raw] = config['rope_parameters'] ? ['rope_parameters', config['rope_parameters']] : ['rope_scaling', config['rope_scaling']];
  if (raw !== null && raw !== undefined && (typeof raw !== 'object' || Array.isArray(raw))) throw badInput(field(name), raw, 'an object');
  const given = (raw ?? {}) as Record<string, unknown>;
  const positive = (key: string): number => {
    const value = given[key];
    if (!(typeof value === 'number' && value > 0 && Number.isFinite(value)))
      throw badInput(field(`${name}.${key}`), value ?? null, 'a number above 0');
    return value;
  };
  const theta = config.rope_theta;
  if (!(theta > 0)) throw badInput(field('rope_theta'), theta, 'a number above 0');
  if (given['rope_theta'] !== undefined && positive('rope_theta') !== theta)
    throw badInput(field(`${name}.rope_theta`), given['rope_theta'], `rope_theta says ${theta}`);
  if ((given['partial_rotary_factor'] ?? config['partial_rotary_factor'] ?? 1) !== 1)
    throw badInput(
      field('partial_rotary_factor'),
      given['partial_rotary_factor'] ?? config['partial_rotary_factor'],
      '1: whole heads turn',
    );
  const type = given['rope_type'] ?? given['type'] ?? 'default';
  if (type === 'default') return { type, theta };
  if (type === 'linear') return { type, theta, factor: positive('factor') };
  if (type !== 'llama3') throw badInput(field(`${name}.rope_type`), type, '"default", "linear" or "llama3"');
  const rope: Rope = {
    type,
    theta,
    factor: positive('factor'),
    lowFrequency: positive('low_freq_factor'),
    highFrequency: positive('high_freq_factor'),
    originalContext: positive('original_max_position_embeddings'),
  };
  if (rope.highFrequency <= rope.lowFrequency)
    throw badInput(field(`${name}.high_freq_factor`), rope.highFrequency, `above low_freq_factor (${rope.lowFrequency})`);
  return rope;
}

/**
 * Angle per position of each pair of a head, [head_dim / 2], as float32: theta^(-2i/E) (arXiv 2104.09864, Section 3.4.2); under `linear` divided by the
 * factor; under `llama3` divided by it where a wavelength does not fit the original context, kept where it fits often, and blended in between.
 */
export function rotaryFrequencies(config: LlamaConfig): Float32Array {
  const rope = ropeOf(config);
  const half = config.head_dim / 2;
  return Float32Array.from({ length: half }, (_, i) => {
    const plain = Math.fround(rope.theta ** -(i / half));
    if (rope.type === 'default') return plain;
    if (rope.type === 'linear') return plain / rope.factor;
    const turns = (rope.originalContext * plain) / (2 * Math.PI); // of this pair over the original context
    const kept = Math.min(1, Math.max(0, (turns - rope.lowFrequency) / (rope.highFrequency - rope.lowFrequency)));
    return (1 - kept) * (plain / rope.factor) + kept * plain;
  });
}

// --- the whole configuration -----------------------------------------------------------------------------------------------------------------------

/** Refuses what this engine would compute wrongly. */
export function checkConfig(config: LlamaConfig): void {
  const architecture = config.architectures?.[0];
  if (architecture !== 'LlamaForCausalLM' && architecture !== 'LlamaForSequenceClassification')
    throw badInput(field('architectures'), config.architectures ?? null, 'LlamaForCausalLM or LlamaForSequenceClassification');
  if (config.model_type !== 'llama') throw badInput(field('model_type'), config.model_type, 'llama');
  for (const name of COUNT_FIELDS) {
    const value = config[name];
    if (!Number.isInteger(value) || (value as number) < 1) throw badInput(field(name), value ?? null, 'a whole number of at least 1');
  }
  if (config.head_dim % 2) throw badInput(field('head_dim'), config.head_dim, 'an even number (rotary embedding turns pairs)');
  if (config.num_attention_heads % config.num_key_value_heads)
    throw badInput(
      field('num_key_value_heads'),
      config.num_key_value_heads,
      `a divisor of num_attention_heads (${config.num_attention_heads})`,
    );
  if (!(config.rms_norm_eps > 0)) throw badInput(field('rms_norm_eps'), config.rms_norm_eps, 'a number above 0');
  for (const name of ['tie_word_embeddings', 'value_head'] as const) {
    const value = config[name] ?? false;
    if (typeof value !== 'boolean') throw badInput(field(name), value, 'true or false');
  }
  ropeOf(config);
  const fixed: [string, unknown, unknown][] = [
    ['hidden_act', config['hidden_act'] ?? 'silu', 'silu'],
    ['attention_bias', config['attention_bias'] ?? false, false],
    ['mlp_bias', config['mlp_bias'] ?? false, false],
    ['attention_dropout', config['attention_dropout'] ?? 0, 0],
    ['quantization_config', config['quantization_config'] ?? null, null],
  ];
  for (const [name, value, only] of fixed)
    if (value !== only) throw badInput(field(name), value, `only ${JSON.stringify(only)} is supported`);
  if (architecture === 'LlamaForCausalLM') return;
  const labels = config['num_labels'] ?? (config['id2label'] ? Object.keys(config['id2label']).length : 1);
  if (labels !== 1) throw badInput(field('num_labels'), labels, '1 (one score)');
  if (config.value_head) throw badInput(field('value_head'), true, 'a score model has one head, its own');
}

/**
 * A configuration from parsed JSON: checked, with the defaults that transformers' LlamaConfig gives to missing fields (`head_dim` and
 * `num_key_value_heads` follow from others). All other keys are kept as they are. BadInput names the field.
 */
export function parseConfig(json: unknown): LlamaConfig {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw badInput('config.json', json, 'a JSON object');
  const given = json as Record<string, unknown>;
  const rope = (given['rope_parameters'] ?? {}) as Record<string, unknown>;
  const defaults: Record<string, unknown> = {
    num_key_value_heads: given['num_attention_heads'],
    head_dim: Number(given['hidden_size']) / Number(given['num_attention_heads']),
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-6,
    rope_theta: rope['rope_theta'] ?? 10_000,
    tie_word_embeddings: false,
  };
  const filled: Record<string, unknown> = { ...given };
  for (const [name, value] of Object.entries(defaults)) filled[name] ??= value;
  const config = filled as LlamaConfig;
  checkConfig(config);
  return config;
}
