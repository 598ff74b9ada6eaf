/** LoRA adapters on disk, in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors` in a folder. It writes into empty folders only. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { badInput } from '../core/errors.ts';
import { checkAdapter, parseAdapterConfig } from './lora.ts';
import type { Adapter } from './lora.ts';
import { emptyFolder, json, readSafetensorsFile, textOf, writeSafetensorsFile } from './model-files.ts';
import type { StorageType } from './safetensors.ts';
import type { LlamaConfig } from './types.ts';

const CONFIG = 'adapter_config.json';
const WEIGHTS = 'adapter_model.safetensors';

/** Reads an adapter for a model of this configuration. BadInput names the file, field or tensor that is missing, wrong or does not fit the model. */
export function readAdapterFolder(folder: string, config: LlamaConfig): Adapter {
  const path = join(folder, CONFIG);
  const adapter = { config: parseAdapterConfig(json(path, textOf(path)), config), tensors: readSafetensorsFile(join(folder, WEIGHTS)) };
  checkAdapter(config, adapter);
  return adapter;
}

/**
 * Writes an adapter into a folder that is empty or does not exist yet. `base` is what its users find the base model by: a folder or a name; kept as the
 * adapter has it if omitted.
 */
export function writeAdapterFolder(
  folder: string,
  config: LlamaConfig,
  adapter: Adapter,
  options: { base?: string; dtype?: StorageType } = {},
): void {
  checkAdapter(config, adapter);
  if (options.base === '') throw badInput('base', '', 'a folder or a name');
  emptyFolder(folder);
  writeSafetensorsFile(join(folder, WEIGHTS), adapter.tensors, options.dtype);
  const stored = { ...adapter.config, ...(options.base !== undefined && { base_model_name_or_path: options.base }) };
  const sorted = Object.fromEntries(Object.entries(stored).sort(([a], [b]) => (a < b ? -1 : 1)));
  writeFileSync(join(folder, CONFIG), `${JSON.stringify(sorted, null, 2)}\n`);
}
