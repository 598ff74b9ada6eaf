/**
 * Models on disk and in a store, in Hugging Face's layout: `config.json`, `tokenizer.json`, and the weights as `model.safetensors` or as shards with
 * `model.safetensors.index.json`. Weights pass through in pieces. A value head lies in a file of its own, `value_head.safetensors`, which the index
 * does not name, so that programs that know no such head load the rest. It writes into empty folders only.
 */
import {
  closeSync,
  copyFileSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  renameSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { RatchetError, badInput } from '../core/errors.ts';
import { parseConfig } from './config.ts';
import { EMBEDDING, VALUE_HEAD, checkModel, expectedShapes, hasValueHead, isTied } from './model.ts';
import { SafetensorsReader, parseHeader, safetensorsPieces } from './safetensors.ts';
import type { Header, StorageType } from './safetensors.ts';
import type { LlamaConfig, Model, Tensor } from './types.ts';

const CONFIG = 'config.json';
const TOKENIZER = 'tokenizer.json';
const WEIGHTS = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
const VALUE_HEAD_FILE = 'value_head.safetensors';

/** Files that say how a model is used, and none of whose contents depends on its weights: tokenizers in older forms, templates, how to generate. */
const USAGE = [
  'generation_config.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'chat_template.json',
  'tokenizer.model',
  'vocab.json',
  'merges.txt',
];

/** Bytes read from a file at a time. */
const PIECE_BYTES = 2 ** 20;
/** Largest shard unless another is asked for: what `save_pretrained` takes since version 5. */
const SHARD_BYTES = 50e9;

const PROVIDED_DTYPE = { F32: 'float32', BF16: 'bfloat16' } as const;

/** `config.json`: keys in alphabetical order, so that equal configurations give equal bytes. It says how the weights are stored. */
export function configJson(config: LlamaConfig, dtype: StorageType = 'F32'): string {
  const stored: Record<string, unknown> = { ...config, torch_dtype: PROVIDED_DTYPE[dtype] };
  if (stored['dtype'] !== undefined) stored['dtype'] = PROVIDED_DTYPE[dtype];
  const sorted = Object.fromEntries(Object.entries(stored).sort(([a], [b]) => (a < b ? -1 : 1)));
  return `${JSON.stringify(sorted, null, 2)}\n`;
}

/** All weights of a model as the bytes of one safetensors file, F32, in pieces. Equal models give equal bytes. */
export function weightPieces(model: Model): Generator<Uint8Array, void, void> {
  checkModel(model.config, model.tensors);
  return safetensorsPieces(model.tensors);
}

/** A model from the text of its `config.json` and the pieces of one weights file of `bytes` bytes. BadInput names what is wrong. */
export async function readModel(
  configText: string,
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  bytes: number,
): Promise<Model> {
  const config = parseConfig(json(CONFIG, configText));
  const reader = new SafetensorsReader(bytes);
  for await (const piece of pieces) reader.push(piece);
  return assemble(config, reader.end().tensors);
}

// --- folders ---------------------------------------------------------------------------------------------------------------------------------------

/** A model's folder: its configuration and what its weight files say about themselves, without the numbers. */
export interface FolderContents {
  config: LlamaConfig;
  /** Null when there is none. */
  tokenizerJson: string | null;
  files: { path: string; bytes: number; header: Header }[];
}

/** Looks at a folder. BadInput names the file, field or tensor that is missing or wrong. */
export function inspectModelFolder(folder: string): FolderContents {
  const config = parseConfig(json(join(folder, CONFIG), textOf(join(folder, CONFIG))));
  const tokenizer = join(folder, TOKENIZER);
  const names = existsSync(join(folder, INDEX)) ? shardsOf(folder) : [WEIGHTS];
  if (hasValueHead(config)) names.push(VALUE_HEAD_FILE);
  const files = names.map((name) => {
    const path = join(folder, name);
    return withFile(path, (file, bytes) => ({ path, bytes, header: headerOf(file, bytes) }));
  });
  if (existsSync(join(folder, INDEX))) checkIndex(folder, files);
  return { config, tokenizerJson: existsSync(tokenizer) ? textOf(tokenizer) : null, files };
}

/** Reads a folder that this or another program wrote. BadInput names the file, field or tensor that is missing or wrong. */
export function readModelFolder(folder: string): { model: Model; tokenizerJson: string | null } {
  const { config, tokenizerJson, files } = inspectModelFolder(folder);
  const tensors = new Map<string, Tensor>();
  for (const { path } of files) {
    const read = readSafetensorsFile(path);
    for (const [name, tensor] of read) {
      if (tensors.has(name)) throw badInput(`tensor '${name}'`, path, 'it is in another file as well');
      tensors.set(name, tensor);
    }
  }
  return { model: assemble(config, tensors), tokenizerJson };
}

/** The tensors of one file. BadInput names the file and the tensor that is wrong. */
export function readSafetensorsFile(path: string): Map<string, Tensor> {
  return withFile(path, (file, bytes) => {
    const reader = new SafetensorsReader(bytes);
    const piece = new Uint8Array(PIECE_BYTES);
    for (;;) {
      const length = readSync(file, piece);
      if (length === 0) return reader.end().tensors;
      reader.push(piece.subarray(0, length));
    }
  });
}

export interface FolderOptions {
  /** How numbers are stored; BF16 rounds them. */
  dtype?: StorageType;
  /** Largest weights file in bytes; a tensor that is larger has a file of its own. */
  shardBytes?: number;
}

/** Writes a model into a folder that is empty or does not exist yet. BadInput for one that is not, or for a model that is not well formed. */
export function writeModelFolder(folder: string, model: Model, tokenizerJson: string | null, options: FolderOptions = {}): void {
  const { dtype = 'F32', shardBytes = SHARD_BYTES } = options;
  if (!(shardBytes > 0)) throw badInput('shardBytes', shardBytes, 'above 0');
  checkModel(model.config, model.tensors);
  emptyFolder(folder);
  const width = dtype === 'F32' ? 4 : 2;
  const shards: Map<string, Tensor>[] = [];
  let room = 0;
  for (const name of expectedShapes(model.config).keys()) {
    if (name === VALUE_HEAD) continue;
    const tensor = model.tensors.get(name)!;
    const bytes = tensor.data.length * width;
    if (shards.length === 0 || bytes > room) {
      shards.push(new Map());
      room = shardBytes;
    }
    room -= bytes;
    shards.at(-1)!.set(name, tensor);
  }
  const valueHead = model.tensors.get(VALUE_HEAD);
  if (shards.length === 1 && !valueHead) writeSafetensorsFile(join(folder, WEIGHTS), shards[0]!, dtype);
  else {
    const number = (i: number) => String(i).padStart(5, '0');
    const files = shards.map((_, i) => `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`);
    shards.forEach((tensors, i) => writeSafetensorsFile(join(folder, files[i]!), tensors, dtype));
    const map = shards.flatMap((tensors, i) => [...tensors.keys()].map((name) => [name, files[i]!] as const));
    const size = shards.reduce((sum, tensors) => [...tensors.values()].reduce((more, { data }) => more + data.length * width, sum), 0);
    const index = { metadata: { total_size: size }, weight_map: Object.fromEntries(map.sort(([a], [b]) => (a < b ? -1 : 1))) };
    writeFileSync(join(folder, INDEX), `${JSON.stringify(index, null, 2)}\n`);
  }
  if (valueHead) writeSafetensorsFile(join(folder, VALUE_HEAD_FILE), new Map([[VALUE_HEAD, valueHead]]), dtype);
  if (tokenizerJson !== null) writeFileSync(join(folder, TOKENIZER), tokenizerJson);
  writeFileSync(join(folder, CONFIG), configJson(model.config, dtype));
}

/** Brings what says how a model is used from its folder into another: chat template, special tokens, generation settings. */
export function copyUsage(from: string, to: string): void {
  for (const path of usagePaths(from)) copyFileSync(path, join(to, basename(path)));
}

/** The files of a model's folder that say how it is used. */
export const usagePaths = (folder: string): string[] => USAGE.map((name) => join(folder, name)).filter((path) => existsSync(path));

/** Writes one file; under another name until it is complete. */
export function writeSafetensorsFile(path: string, tensors: ReadonlyMap<string, Tensor>, dtype: StorageType = 'F32'): void {
  const draft = `${path}.partial`;
  const file = openSync(draft, 'w');
  try {
    for (const piece of safetensorsPieces(tensors, { dtype })) for (let at = 0; at < piece.length;) at += writeSync(file, piece, at);
  } finally {
    closeSync(file);
  }
  renameSync(draft, path);
}

/** Makes the folder. BadInput when it holds anything. */
export function emptyFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true });
    if (readdirSync(folder).length > 0) throw badInput('folder', folder, 'an empty folder, or one that does not exist yet');
  } catch (error) {
    if (error instanceof RatchetError) throw error;
    throw new RatchetError('BadInput', `folder ${folder}: ${(error as Error).message}`, { cause: error });
  }
}

// --- parts -----------------------------------------------------------------------------------------------------------------------------------------

/** Tensors that older converters stored although they follow from the configuration. */
const DERIVED = /\.rotary_emb\.inv_freq$/;

/** Checks tensors against their configuration; copies of others that some programs store are dropped. */
function assemble(config: LlamaConfig, tensors: Map<string, Tensor>): Model {
  for (const name of tensors.keys()) if (DERIVED.test(name)) tensors.delete(name);
  const [head, embedding] = [tensors.get('lm_head.weight'), tensors.get(EMBEDDING)];
  if (isTied(config) && head && embedding) {
    const differing = head.data.length !== embedding.data.length || head.data.some((value, i) => value !== embedding.data[i]);
    if (differing)
      throw badInput("tensor 'lm_head.weight'", 'other numbers than the embeddings', 'config.json: tie_word_embeddings is true');
    tensors.delete('lm_head.weight');
  }
  checkModel(config, tensors);
  return { config, tensors };
}

const reasonOf = (error: unknown) =>
  (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'there is no such file' : (error as Error).message;

export function json(name: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new RatchetError('BadInput', `${name} is not JSON`, { cause: error });
  }
}

export function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new RatchetError('BadInput', `${path}: ${reasonOf(error)}`, { cause: error });
  }
}

/** Opens a file for reading; what is wrong with its content is told with its path. */
function withFile<T>(path: string, use: (file: number, bytes: number) => T): T {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch (error) {
    throw new RatchetError('BadInput', `${path}: ${reasonOf(error)}`, { cause: error });
  }
  try {
    return use(file, fstatSync(file).size);
  } catch (error) {
    if (error instanceof RatchetError) throw new RatchetError(error.type, `${path}: ${error.message}`, { cause: error });
    throw error;
  } finally {
    closeSync(file);
  }
}

function headerOf(file: number, total: number): Header {
  let bytes = new Uint8Array(0);
  for (;;) {
    const header = parseHeader(bytes, total);
    if (header) return header;
    const piece = new Uint8Array(PIECE_BYTES);
    const length = readSync(file, piece);
    if (length === 0) throw new RatchetError('BadInput', `safetensors: ${total} bytes are too few for a header`);
    bytes = Buffer.concat([bytes, piece.subarray(0, length)]);
  }
}

function weightMap(folder: string): Map<string, string> {
  const path = join(folder, INDEX);
  const map = (json(path, textOf(path)) as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== 'object' || map === null) throw badInput(`${path}: weight_map`, map ?? null, 'an object: the file of each tensor');
  for (const [name, file] of Object.entries(map)) {
    if (typeof file !== 'string' || !/^[^/\\]+\.safetensors$/.test(file))
      throw badInput(`${path}: weight_map of tensor '${name}'`, file, 'a safetensors file in the same folder');
  }
  return new Map(Object.entries(map as Record<string, string>));
}

const shardsOf = (folder: string) => [...new Set(weightMap(folder).values())].sort();

/** The index and the shards must say the same. */
function checkIndex(folder: string, files: FolderContents['files']): void {
  const map = weightMap(folder);
  for (const { path, header } of files) {
    for (const { name } of header.tensors) {
      if (path === join(folder, VALUE_HEAD_FILE)) continue;
      const said = map.get(name);
      if (said === undefined || path !== join(folder, said))
        throw badInput(`tensor '${name}'`, path, `${INDEX} says ${said ?? 'nothing of it'}`);
      map.delete(name);
    }
  }
  const [missing] = map;
  if (missing) throw badInput(`tensor '${missing[0]}'`, null, `${INDEX} says that it is in ${missing[1]}, where it is not`);
}
