/**
 * New tokenizers from a corpus, as `tokenizer.json` files that Hugging Face's libraries read: whole words, or byte pairs. Counting, order and ties are
 * those of Hugging Face's trainers, line by line as they read files. The same corpus gives the same bytes.
 */
import { badInput } from '../../core/errors.ts';
import { byteCharacters, learnMerges, type Merge } from './byte-pairs.ts';

export type TokenizerKind = 'bpe' | 'words';

export interface TrainOptions {
  kind: TokenizerKind;
  /** Most tokens, special ones included. */
  vocabulary: number;
  /** Pairs (or words) that occur less often get no token. */
  minFrequency: number;
  /** Tokens with a meaning of their own, which no text is split into; they get the first ids. */
  special: readonly string[];
  /** Those of them that stand for unknown words (needed for `words`), pad, and end a text. */
  unknown?: string | undefined;
  pad?: string | undefined;
  end?: string | undefined;
}

/** What `WhitespaceSplit` splits at, as the reading library written in Rust understands white space. */
const WHITE_SPACE = /\p{White_Space}+/u;
/** GPT-2's pattern, with the white space of that library. */
const GPT2 =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** The lines of a text with their ends, as Hugging Face's trainers read a file. */
export const linesOf = (text: string): string[] => text.match(/[^\n]*\n|[^\n]+$/g) ?? [];

/** Contents of the tokenizer's files. `lines` keep their line ends. Throws BadInput for options that cannot work. */
export function trainTokenizer(
  lines: Iterable<string>,
  options: TrainOptions,
): { 'tokenizer.json': string; 'tokenizer_config.json': string } {
  check(options);
  const words = new Map<string, number>();
  const { kind, special } = options;
  for (const line of lines) {
    const parts = kind === 'words' ? line.split(WHITE_SPACE) : (line.match(GPT2) ?? []);
    for (const word of parts) if (word !== '') words.set(word, (words.get(word) ?? 0) + 1);
  }
  if (words.size === 0) throw badInput('text', '', 'words to learn from');
  const model = kind === 'words' ? wordModel(words, options) : bytePairModel(words, options);
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: special.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer:
      kind === 'words' ? { type: 'WhitespaceSplit' } : { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: kind === 'words' ? null : { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model,
  };
  const config = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    clean_up_tokenization_spaces: false,
    // Else transformers before version 5 adds token types.
    model_input_names: ['input_ids', 'attention_mask'],
    ...(options.end === undefined ? {} : { eos_token: options.end }),
    ...(options.pad === undefined ? {} : { pad_token: options.pad }),
    ...(options.unknown === undefined ? {} : { unk_token: options.unknown }),
  };
  return { 'tokenizer.json': JSON.stringify(tokenizer, null, 2), 'tokenizer_config.json': `${JSON.stringify(config, null, 2)}\n` };
}

function check({ kind, vocabulary, minFrequency, special, unknown, pad, end }: TrainOptions): void {
  const least = special.length + (kind === 'bpe' ? 256 : 1);
  if (!Number.isInteger(vocabulary) || vocabulary < least)
    throw badInput(
      'vocabulary',
      vocabulary,
      `a whole number of at least ${least}: ${special.length} special tokens and ${least - special.length} more`,
    );
  if (!Number.isInteger(minFrequency) || minFrequency < 0) throw badInput('minFrequency', minFrequency, 'a whole number of at least 0');
  if (new Set(special).size !== special.length || special.includes('')) throw badInput('special', special, 'distinct tokens, none empty');
  if (kind === 'words' && unknown === undefined)
    throw badInput('unknown', null, 'a special token that stands for words outside the vocabulary');
  for (const [field, token] of Object.entries({ unknown, pad, end }))
    if (token !== undefined && !special.includes(token)) throw badInput(field, token, `one of the special tokens (${special.join(', ')})`);
}

/** Code point order, which is that of the bytes. */
const byCodePoint = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b));

/** The most frequent words, of equals the first in code point order. */
function wordModel(words: ReadonlyMap<string, number>, { vocabulary, minFrequency, special, unknown }: TrainOptions): object {
  const ranked = [...words]
    .filter(([word, count]) => count >= minFrequency && !special.includes(word))
    .sort(([a, m], [b, n]) => n - m || byCodePoint(a, b))
    .slice(0, vocabulary - special.length);
  const tokens = [...special, ...ranked.map(([word]) => word)];
  return { type: 'WordLevel', vocab: vocabOf(tokens), unk_token: unknown };
}

function bytePairModel(words: ReadonlyMap<string, number>, { vocabulary, minFrequency, special }: TrainOptions): object {
  const alphabet = [...byteCharacters()].sort(byCodePoint);
  const tokens = [...special, ...alphabet];
  const merges: Merge[] = learnMerges(words, tokens, { vocabulary, minFrequency, alphabetStart: special.length });
  return {
    type: 'BPE',
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    vocab: vocabOf(tokens),
    merges,
  };
}

const vocabOf = (tokens: readonly string[]) => Object.fromEntries(tokens.map((token, id) => [token, id]));
