/** A model's folder as a server sees it: configuration, tokenizer, the tokens that end a text, and a digest that names what is served. */
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { badInput } from '../../core/errors.ts';
import { inspectModelFolder, json, readModelFolder, usagePaths } from '../model-files.ts';
import { readTokenizer, type Tokenizer } from '../tokenizer/tokenizer.ts';
import type { LlamaConfig, Model } from '../types.ts';

type Architecture = LlamaConfig['architectures'][0];

export interface ServedModel {
  config: LlamaConfig;
  tokenizer: Tokenizer;
  /** From `generation_config.json`, `config.json` or the tokenizer, whichever names them first. */
  endIds: number[];
  /** SHA-256 over the names and digests of all files that decide answers: configuration, tokenizer, template, generation settings, weights. */
  digest: string;
}

/** Everything but the weights. Throws BadInput naming the file. */
export async function describeServedModel(folder: string, architecture: Architecture): Promise<ServedModel> {
  const { config, files } = inspectModelFolder(folder);
  checkArchitecture(folder, config, architecture);
  const tokenizer = tokenizerOf(folder);
  const generation = (json(join(folder, 'generation_config.json'), textOf(folder, 'generation_config.json') ?? '{}') ?? {}) as {
    eos_token_id?: unknown;
  };
  const named = [generation.eos_token_id, config['eos_token_id'], tokenizer.endId].find((ids) => ids !== undefined && ids !== null) ?? [];
  const endIds = [named].flat().filter((id): id is number => Number.isInteger(id));
  const digest = createHash('sha256');
  const texts = [join(folder, 'config.json'), join(folder, 'tokenizer.json'), ...usagePaths(folder)];
  for (const path of [...texts, ...files.map((file) => file.path)]) {
    const content = createHash('sha256');
    for await (const piece of createReadStream(path)) content.update(piece as Buffer);
    digest.update(`${basename(path)} ${content.digest('hex')}\n`);
  }
  return { config, tokenizer, endIds, digest: digest.digest('hex') };
}

export function openServedModel(folder: string, architecture: Architecture): { model: Model; tokenizer: Tokenizer } {
  const { model } = readModelFolder(folder);
  checkArchitecture(folder, model.config, architecture);
  return { model, tokenizer: tokenizerOf(folder) };
}

function checkArchitecture(folder: string, config: LlamaConfig, architecture: Architecture): void {
  if (config.architectures[0] !== architecture)
    throw badInput(`${join(folder, 'config.json')}: architectures`, config.architectures, architecture);
}

function tokenizerOf(folder: string): Tokenizer {
  const json = textOf(folder, 'tokenizer.json');
  if (json === undefined) throw badInput('folder', folder, 'a folder with tokenizer.json');
  return readTokenizer({
    'tokenizer.json': json,
    'tokenizer_config.json': textOf(folder, 'tokenizer_config.json'),
    'chat_template.jinja': textOf(folder, 'chat_template.jinja'),
  });
}

const textOf = (folder: string, name: string) => (existsSync(join(folder, name)) ? readFileSync(join(folder, name), 'utf8') : undefined);
