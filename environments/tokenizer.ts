/** A codec's vocabulary in the format of Hugging Face tokenizers, so that the usual Python tools read a model's tokens. Words only; nothing is split. */
import type { Codec } from './environment.ts';

/** Contents of `tokenizer.json`: one word, one token; ids are places in the codec's vocabulary. */
export function tokenizerJson(codec: Codec): string {
  const vocabulary = Object.fromEntries(codec.vocabulary.map((token, id) => [token, id]));
  const special = ['<pad>', '<unk>'].map((content) => {
    const id = vocabulary[content];
    if (id === undefined) throw new TypeError(`the codec ${codec.version} has no ${content} token`);
    return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  });
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: special,
    normalizer: null,
    pre_tokenizer: { type: 'WhitespaceSplit' },
    post_processor: null,
    decoder: null,
    model: { type: 'WordLevel', vocab: vocabulary, unk_token: '<unk>' },
  };
  return `${JSON.stringify(tokenizer, null, 2)}\n`;
}
