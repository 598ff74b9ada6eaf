/**
 * A tokenizer as Hugging Face models carry it: `tokenizer.json`, and from `tokenizer_config.json` the special tokens and the chat template. Reading is
 * the work of @huggingface/tokenizers and @huggingface/jinja; here their gaps are closed (unknown words, empty lists) and their failures typed.
 */
import { Template } from '@huggingface/jinja';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { RatchetError, badInput } from '../../core/errors.ts';
import { byteCharacters } from './byte-pairs.ts';
import { DEFAULT_CHAT_TEMPLATE } from './chat-template.ts';

export interface ChatMessage {
  role: string;
  content: string;
}

export interface Tokenizer {
  /** Ids are below this. */
  readonly size: number;
  /** The token that ends a text, if the tokenizer names one. */
  readonly endId: number | undefined;
  /** The token that words outside the vocabulary become, if there is one. */
  readonly unknown: { id: number; text: string } | undefined;
  /** Token ids of a text. `special`: with the special tokens that the model expects around a text (default), or without. Throws BadInput. */
  encode(text: string, options?: { special?: boolean }): number[];
  /** Token ids of two texts, one after the other as the tokenizer joins a pair. */
  encodePair(first: string, second: string): number[];
  /** The text of tokens; special tokens are left out unless `special`. Unknown ids give ''. */
  decode(ids: readonly number[], options?: { special?: boolean }): string;
  /** The bytes that a token stands for; those of a token that is part of a character are no text by themselves. */
  bytes(id: number): number[];
  /** A conversation as one text, under the model's chat template. `addGenerationPrompt`: ends where the assistant is to speak. Throws BadInput. */
  chat(messages: readonly ChatMessage[], addGenerationPrompt: boolean, more?: Record<string, unknown>): string;
}

const MODEL_TYPES = ['BPE', 'WordLevel', 'WordPiece', 'Unigram'];

export interface TokenizerFiles {
  'tokenizer.json': string;
  'tokenizer_config.json'?: string | undefined;
  /** Takes the place of the template in `tokenizer_config.json`. */
  'chat_template.jinja'?: string | undefined;
}

export function readTokenizer(files: TokenizerFiles): Tokenizer {
  const json = parse('tokenizer.json', files['tokenizer.json']);
  const config = files['tokenizer_config.json'] === undefined ? {} : parse('tokenizer_config.json', files['tokenizer_config.json']);
  const model = json['model'] as { type?: string; unk_token?: string | null; unk_id?: number | null; vocab?: unknown } | undefined;
  if (typeof model?.vocab !== 'object' || model.vocab === null)
    throw badInput('tokenizer.json: model', model ?? null, 'an object with a vocab');
  if (model.type !== undefined && !MODEL_TYPES.includes(model.type))
    throw badInput('tokenizer.json: model.type', model.type, `one of ${MODEL_TYPES.join(', ')}`);
  // Unigram models name it by its place in their list of tokens.
  const listed = Array.isArray(model.vocab) ? (model.vocab as [string, number][])[model.unk_id ?? -1]?.[0] : undefined;
  const unknown = model.unk_token ?? contentOf(config['unk_token']) ?? listed;
  let inner: HuggingFaceTokenizer;
  try {
    // The library asks the configuration for what tokenizer.json says of a word-level model, and joins punctuation unless told not to.
    inner = new HuggingFaceTokenizer(
      { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, ...json, added_tokens: json['added_tokens'] ?? [] },
      { clean_up_tokenization_spaces: false, ...config, ...(unknown === undefined ? {} : { unk_token: unknown }) },
    );
  } catch (error) {
    throw new RatchetError('BadInput', `tokenizer.json: ${messageOf(error)}`, { cause: error });
  }
  const unknownId = unknown === undefined ? undefined : inner.token_to_id(unknown);
  const end = contentOf(config['eos_token']);
  const vocabulary = inner.get_vocab(true);
  const size = Math.max(-1, ...vocabulary.values()) + 1;

  const added = inner.get_added_tokens_decoder();
  const byteLevel = JSON.stringify(json['decoder'] ?? null).includes('"ByteLevel"')
    ? new Map(byteCharacters().map((character, byte) => [character, byte]))
    : null;
  const known = (ids: readonly (number | undefined)[], text: string): number[] =>
    ids.map((id) => {
      const found = id ?? unknownId;
      if (found === undefined) throw badInput('text', text, 'words of the vocabulary (it has no token for unknown ones)');
      return found;
    });
  const template = compile(files['chat_template.jinja'] ?? templateOf(config['chat_template']) ?? DEFAULT_CHAT_TEMPLATE);
  const named = Object.fromEntries(
    ['bos_token', 'eos_token', 'unk_token', 'pad_token'].map((name) => [name, contentOf(config[name]) ?? '']),
  );
  return {
    size,
    unknown: unknownId === undefined ? undefined : { id: unknownId, text: unknown! },
    endId: end === undefined ? undefined : inner.token_to_id(end),
    encode: (text, { special = true } = {}) =>
      text === '' && !special ? [] : known(inner.encode(text, { add_special_tokens: special }).ids, text),
    encodePair: (first, second) => known(inner.encode(first, { text_pair: second }).ids, `${first} ${second}`),
    decode(ids, { special = false } = {}) {
      const existing = ids.filter((id) => inner.id_to_token(id) !== undefined);
      return existing.length === 0 ? '' : inner.decode(existing, { skip_special_tokens: !special });
    },
    bytes(id) {
      const token = inner.id_to_token(id) ?? '';
      const raw = byteLevel && !added.has(id) ? [...token].map((character) => byteLevel.get(character)) : [];
      if (raw.length > 0 && raw.every((byte) => byte !== undefined)) return raw;
      return token === '' ? [] : [...Buffer.from(inner.decode([id], { skip_special_tokens: false }))];
    },
    chat(messages, addGenerationPrompt, more = {}) {
      try {
        return template.render({ ...named, ...more, messages, add_generation_prompt: addGenerationPrompt });
      } catch (error) {
        throw new RatchetError('BadInput', `messages: the chat template refuses them: ${messageOf(error)}`, { cause: error });
      }
    },
  };
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

function parse(name: string, text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new RatchetError('BadInput', `${name} is not JSON`, { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw badInput(name, value, 'a JSON object');
  return value as Record<string, unknown>;
}

/** A special token is written as its text or as an object with its text in `content`. */
function contentOf(token: unknown): string | undefined {
  if (typeof token === 'string') return token;
  const content = (token as { content?: unknown } | null | undefined)?.content;
  return typeof content === 'string' ? content : undefined;
}

/** One template, or several with names, of which `default` counts. */
function templateOf(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  if (!Array.isArray(value)) return undefined;
  return (value as { name?: string; template?: string }[]).find(({ name }) => name === 'default')?.template;
}

function compile(template: string): Template {
  try {
    return new Template(template);
  } catch (error) {
    throw new RatchetError('BadInput', `chat template: ${messageOf(error)}`, { cause: error });
  }
}
