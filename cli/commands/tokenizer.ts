/** `ratchet tokenizer train`: a new tokenizer from text files, in the files that Hugging Face's libraries read. */
import { Command } from 'commander';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { badInput } from '../../core/errors.ts';
import { readTokenizer } from '../../learning/tokenizer/tokenizer.ts';
import { linesOf, trainTokenizer, type TokenizerKind } from '../../learning/tokenizer/train.ts';
import { plural } from '../format.ts';
import { wholeNumber } from '../options.ts';
import { print, printJson } from '../output.ts';

interface TrainCommandOptions {
  kind: string;
  vocabulary: string;
  minFrequency: string;
  special: string[];
  out: string;
  json?: boolean;
}

const KINDS: readonly TokenizerKind[] = ['bpe', 'words'];
/** Pad comes first: number 0, as in the built-in vocabularies. */
const SPECIAL = { pad: '<pad>', unknown: '<unk>', end: '<|endoftext|>' };

export function tokenizerCommand(): Command {
  const train = new Command('train')
    .description('learn a tokenizer from text files; writes tokenizer.json and tokenizer_config.json')
    .argument('<files...>', 'UTF-8 text')
    .requiredOption('--out <folder>', 'where to; made if it is not there')
    .option('--kind <kind>', 'bpe: byte pairs, any text can be written; words: whole words, split at white space', 'bpe')
    .option('--vocabulary <n>', 'most tokens, special ones included', '4000')
    .option('--min-frequency <n>', 'pairs or words that occur less often get no token', '2')
    .option(
      '--special <token>',
      'a further token with a meaning of its own; may be given again',
      (value: string, earlier: string[]) => [...earlier, value],
      [] as string[],
    )
    .option('--json', 'what was made, as JSON')
    .action((files: string[], options: TrainCommandOptions) => trainFrom(files, options));
  return new Command('tokenizer').description('tokenizers in the Hugging Face layout').addCommand(train);
}

function trainFrom(files: string[], options: TrainCommandOptions): void {
  const kind = KINDS.find((each) => each === options.kind);
  if (!kind) throw badInput('--kind', options.kind, `one of ${KINDS.join(', ')}`);
  const vocabulary = wholeNumber('--vocabulary', options.vocabulary) as number;
  const minFrequency = wholeNumber('--min-frequency', options.minFrequency) as number;
  const written = ['tokenizer.json', 'tokenizer_config.json'] as const;
  for (const name of written) if (existsSync(join(options.out, name))) throw badInput('--out', options.out, `a folder without a ${name}`);
  const made = trainTokenizer(textLines(files), {
    kind,
    vocabulary,
    minFrequency,
    special: [SPECIAL.pad, SPECIAL.unknown, SPECIAL.end, ...options.special],
    ...SPECIAL,
  });
  mkdirSync(options.out, { recursive: true });
  for (const name of written) writeFileSync(join(options.out, name), made[name]);
  const { size } = readTokenizer(made);
  if (options.json) printJson({ kind, vocabulary: size, folder: options.out });
  else print(`${plural(size, 'token')} from ${plural(files.length, 'file')} are in ${options.out}: tokenizer.json, tokenizer_config.json`);
}

function* textLines(files: readonly string[]): Generator<string> {
  for (const file of files) {
    let text: string;
    try {
      text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(readFileSync(file));
    } catch (error) {
      throw badInput('file', file, `a readable file of UTF-8 text (${error instanceof Error ? error.message : String(error)})`);
    }
    yield* linesOf(text);
  }
}
