/** A codec's vocabulary in the format of Hugging Face tokenizers, so that the usual Python tools read a model's tokens. Words only; nothing is split. */
import { RatchetError } from '../core/errors.ts';
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

/**
 * How the vocabulary of a `tokenizer.json` differs from the codec's, for messages; null where every word has the same number. A model is only ever fed by
 * the codec that it was trained with. Throws RatchetError('BadInput') naming `where` when the text is no JSON.
 */
export function vocabularyDifference(json: string, { version, vocabulary }: Codec, where: string): string | null {
  let words: Record<string, number> | undefined;
  try {
    words = (JSON.parse(json) as { model?: { vocab?: Record<string, number> } } | null)?.model?.vocab;
  } catch (error) {
    throw new RatchetError('BadInput', `${where}: tokenizer.json is not JSON`, { cause: error });
  }
  const differing = vocabulary.findIndex((word, id) => words?.[word] !== id);
  const size = Object.keys(words ?? {}).length;
  if (differing >= 0) {
    const word = vocabulary[differing] as string;
    return `${JSON.stringify(word)} is number ${words?.[word] ?? null}, codec ${version} has it as number ${differing}`;
  }
  return size === vocabulary.length ? null : `${size} words, codec ${version} has ${vocabulary.length}`;
}
