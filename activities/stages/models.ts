/** Models as stages see them: stored and loaded in the Hugging Face layout, with the decoders of recently used policies kept warm in the process. */
import { digestJson } from '../../core/digest.ts';
import type { ModelRef } from '../../core/nouns.ts';
import type { ArtifactStore } from '../../artifacts/store.ts';
import type { World } from '../../environments/environment.ts';
import { tokenizerJson } from '../../environments/tokenizer.ts';
import { createDecoder } from '../../learning/decoder.ts';
import { modelFiles, readModel } from '../../learning/model.ts';
import type { Decoder, Model } from '../../learning/types.ts';

export async function saveModel(store: ArtifactStore, model: Model, world: World): Promise<ModelRef> {
  const files = modelFiles(model, tokenizerJson(world.codec));
  const [config, weights, tokenizer] = await Promise.all([
    store.put(files['config.json']),
    store.put(files['model.safetensors']),
    store.put(files['tokenizer.json']),
  ]);
  return { sha256: digestJson([config.sha256, weights.sha256, tokenizer.sha256]), files: { config, weights, tokenizer } };
}

export async function loadModel(store: ArtifactStore, ref: ModelRef): Promise<Model> {
  const { config, weights, tokenizer } = ref.files;
  const [configBytes, weightBytes, tokenizerBytes] = await Promise.all([store.get(config), store.get(weights), store.get(tokenizer)]);
  return readModel({ 'config.json': configBytes, 'model.safetensors': weightBytes, 'tokenizer.json': tokenizerBytes }).model;
}

/** Decoders kept: a policy and its reward model. Each holds a cache of some 75 MB at the tiny scale, and what its sessions once needed. */
const WARM_DECODERS = 2;
const warm = new Map<string, Decoder>();

/** A decoder of the model with all rows clear; made once and reused while it is among the last few. One caller at a time (a compute child runs one job). */
export async function warmDecoder(store: ArtifactStore, ref: ModelRef, options: { rows: number; context: number }): Promise<Decoder> {
  const key = `${ref.sha256} ${options.rows} ${options.context}`;
  let decoder = warm.get(key);
  if (decoder) {
    warm.delete(key);
    for (let row = 0; row < decoder.rows; row++) decoder.clear(row);
  } else {
    decoder = await createDecoder(await loadModel(store, ref), options);
  }
  warm.set(key, decoder);
  for (const [oldest, unused] of warm) {
    if (warm.size <= WARM_DECODERS) break;
    warm.delete(oldest);
    await unused.close();
  }
  return decoder;
}

/** Ends all warm decoders; their threads would keep a process alive that is done. */
export async function closeDecoders(): Promise<void> {
  const all = [...warm.values()];
  warm.clear();
  await Promise.all(all.map((decoder) => decoder.close()));
}
