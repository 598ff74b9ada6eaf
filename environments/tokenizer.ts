/** A codec's vocabulary in the files of Hugging Face tokenizers, so that the usual tools read and write a model's tokens. Words only; nothing is split. */
import { RatchetError } from '../core/errors.ts';
import type { Codec } from './environment.ts';

/** Else transformers before version 5 adds token types, which these models have none of. */
const INPUT_NAMES = ['input_ids', 'attention_mask'];
const [PAD, UNKNOWN] = ['<pad>', '<unk>'];

/** Contents of `tokenizer.json`: one word, one token; ids are places in the codec's vocabulary. */
export function tokenizerJson(codec: Codec): string {
  const vocabulary = Object.fromEntries(codec.vocabulary.map((token, id) => [token, id]));
  const special = [PAD, UNKNOWN].map((content) => {
    const id = idOf(codec, content);
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
    model: { type: 'WordLevel', vocab: vocabulary, unk_token: UNKNOWN },
  };
  return `${JSON.stringify(tokenizer, null, 2)}\n`;
}

/** How a model is used, beside its weights and words. */
export interface Usage {
  /** Fields of `config.json`: the tokens with roles. */
  config: { bos_token_id: null; eos_token_id: number | null; pad_token_id: number };
  /** Contents of further files, by name. */
  files: Record<string, string>;
}

/**
 * How other tools use a codec's models: batches are padded (on the left where texts are to go on), texts begin with no token of their own, and what a policy
 * writes freely ends where the feedback to its command would begin. `context`: most tokens that the model reads.
 */
export function usageOf(codec: Codec, kind: 'policy' | 'rewardModel', context: number): Usage {
  const writes = kind === 'policy';
  const pad = idOf(codec, PAD);
  const end = idOf(codec, codec.feedbackStart);
  const tokenizer = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    clean_up_tokenization_spaces: false,
    pad_token: PAD,
    padding_side: writes ? 'left' : 'right',
    unk_token: UNKNOWN,
    model_max_length: context,
    model_input_names: INPUT_NAMES,
  };
  const text = (content: unknown) => `${JSON.stringify(content, null, 2)}\n`;
  return {
    config: { bos_token_id: null, eos_token_id: writes ? end : null, pad_token_id: pad },
    files: {
      'tokenizer_config.json': text(tokenizer),
      ...(writes && { 'generation_config.json': text({ eos_token_id: end, pad_token_id: pad }) }),
    },
  };
}

function idOf({ version, vocabulary }: Codec, token: string): number {
  const id = vocabulary.indexOf(token);
  if (id < 0) throw new TypeError(`the codec ${version} has no ${token} token`);
  return id;
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
