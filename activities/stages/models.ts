/** Models as stages see them: stored and loaded in the Hugging Face layout, with the decoders of recently used policies kept warm in the process. */
import { Readable } from 'node:stream';
import { digestJson } from '../../core/digest.ts';
import type { ModelRef } from '../../core/nouns.ts';
import type { ArtifactStore } from '../../artifacts/store.ts';
import type { World } from '../../environments/environment.ts';
import { tokenizerJson } from '../../environments/tokenizer.ts';
import { createDecoder } from '../../learning/decoder.ts';
import { configJson, readModel, weightPieces } from '../../learning/model-files.ts';
import type { Decoder, Model } from '../../learning/types.ts';

/** Stores a model and the tokenizer that it was trained with. */
export async function storeModel(store: ArtifactStore, model: Model, tokenizer: string): Promise<ModelRef> {
  const [config, weights, words] = await Promise.all([
    store.put(new TextEncoder().encode(configJson(model.config))),
    store.putStream(Readable.from(weightPieces(model))),
    store.put(new TextEncoder().encode(tokenizer)),
  ]);
  return { sha256: digestJson([config.sha256, weights.sha256, words.sha256]), files: { config, weights, tokenizer: words } };
}

export const saveModel = (store: ArtifactStore, model: Model, world: World): Promise<ModelRef> =>
  storeModel(store, model, tokenizerJson(world.codec));

export async function loadModel(store: ArtifactStore, { files }: ModelRef): Promise<Model> {
  const config = new TextDecoder().decode(await store.get(files.config));
  return readModel(config, store.getStream(files.weights), files.weights.bytes);
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
