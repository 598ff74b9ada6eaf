/** Models as stages see them: stored and loaded in the Hugging Face layout, with the decoders of recently used policies kept warm in the process. */
import { Readable } from 'node:stream';
import { digestJson, sha256 } from '../../core/digest.ts';
import { RatchetError } from '../../core/errors.ts';
import type { ModelRef } from '../../core/nouns.ts';
import type { ArtifactStore } from '../../artifacts/store.ts';
import type { Codec, World } from '../../environments/environment.ts';
import { tokenizerJson, vocabularyDifference } from '../../environments/tokenizer.ts';
import { createDecoder } from '../../learning/decoder.ts';
import { configJson, readModel, weightPieces } from '../../learning/model-files.ts';
import type { Decoder, LlamaConfig, Model } from '../../learning/types.ts';

/** Which tokens end a text or pad a batch is the codec's to say (`usageOf`), whatever tool a model comes from. */
function withoutRoles({ bos_token_id: _bos, eos_token_id: _eos, pad_token_id: _pad, ...config }: LlamaConfig): LlamaConfig {
  return config as LlamaConfig;
}

/** Stores a model and the tokenizer that it was trained with. */
export async function storeModel(store: ArtifactStore, model: Model, tokenizer: string): Promise<ModelRef> {
  const [config, weights, words] = await Promise.all([
    store.put(new TextEncoder().encode(configJson(withoutRoles(model.config)))),
    store.putStream(Readable.from(weightPieces(model))),
    store.put(new TextEncoder().encode(tokenizer)),
  ]);
  return { sha256: digestJson([config.sha256, weights.sha256, words.sha256]), files: { config, weights, tokenizer: words } };
}

export const saveModel = (store: ArtifactStore, model: Model, world: World): Promise<ModelRef> =>
  storeModel(store, model, tokenizerJson(world.codec));

/** Throws RatchetError('Corrupt') when the model was trained with other words than the codec's: it would read other tokens than it learned. */
export async function loadModel(store: ArtifactStore, ref: ModelRef, codec: Codec): Promise<Model> {
  const { files } = ref;
  await checkVocabulary(store, ref, codec);
  const config = new TextDecoder().decode(await store.get(files.config));
  return readModel(config, store.getStream(files.weights), files.weights.bytes);
}

/** The usual tokenizer is known by its digest; the file is only read when it is another one (a model that somebody brought). */
async function checkVocabulary(store: ArtifactStore, { sha256: model, files }: ModelRef, codec: Codec): Promise<void> {
  if (files.tokenizer.sha256 === sha256(tokenizerJson(codec))) return;
  const difference = vocabularyDifference(new TextDecoder().decode(await store.get(files.tokenizer)), codec, `model ${model}`);
  if (difference !== null)
    throw new RatchetError(
      'Corrupt',
      `model ${model}: tokenizer.json: ${difference}; finish the run with the version of Ratchet that began it`,
    );
}

/** Decoders kept: a policy and its reward model. Each holds a cache of some 75 MB at the tiny scale, and what its sessions once needed. */
const WARM_DECODERS = 2;
const warm = new Map<string, Decoder>();

/** A decoder of the model with all rows clear; made once and reused while it is among the last few. One caller at a time (a compute child runs one job). */
export async function warmDecoder(
  store: ArtifactStore,
  ref: ModelRef,
  { codec, ...options }: { codec: Codec; rows: number; context: number },
): Promise<Decoder> {
  const key = `${ref.sha256} ${codec.version} ${options.rows} ${options.context}`;
  let decoder = warm.get(key);
  if (decoder) {
    warm.delete(key);
    for (let row = 0; row < decoder.rows; row++) decoder.clear(row);
  } else {
    decoder = await createDecoder(await loadModel(store, ref, codec), options);
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
