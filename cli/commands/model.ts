/**
 * `ratchet model ...`: looks at models and adapters in Hugging Face's layout, merges an adapter, takes a model out of a run or into another storage form,
 * and writes the graphs that train, decode and read it. It trains nothing; a run takes a model in by `--set policy.initial=<folder>`.
 */
import { Command, Option } from 'commander';
import { existsSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { badInput, RatchetError } from '../../core/errors.ts';
import { readAdapterFolder } from '../../learning/adapter-files.ts';
import { trainingGraph } from '../../learning/gradient-lanes.ts';
import { formOf } from '../../learning/objectives.ts';
import { decodeGraph } from '../../learning/llama.ts';
import { loraScale, mergeAdapter, savesHead } from '../../learning/lora.ts';
import { expectedShapes, isScore, isTied, llamaConfig } from '../../learning/model.ts';
import { copyUsage, inspectModelFolder, readModelFolder, writeModelFolder, type FolderOptions } from '../../learning/model-files.ts';
import { readingGraph } from '../../learning/reader.ts';
import type { LlamaConfig, Model } from '../../learning/types.ts';
import { count, plural, size } from '../format.ts';
import { wholeNumber } from '../options.ts';
import { print, printJson } from '../output.ts';
import { fetchServables } from '../servable.ts';

export function modelCommand(): Command {
  return new Command('model')
    .description('models and adapters: look, merge, export, graphs')
    .addCommand(showModelCommand())
    .addCommand(mergeCommand())
    .addCommand(exportModelCommand())
    .addCommand(graphCommand());
}

// --- show ------------------------------------------------------------------------------------------------------------------------------------------

function showModelCommand(): Command {
  return new Command('show')
    .description('what a model is, from its files')
    .argument('<folder>', 'a folder with config.json and weights')
    .option('--adapter <folder>', 'a LoRA adapter of this model, too')
    .option('--json', 'as JSON, with every tensor')
    .action((folder: string, { adapter, json }: { adapter?: string; json?: boolean }) => {
      const { config, tokenizerJson, files } = inspectModelFolder(folder);
      const shapes = expectedShapes(config);
      const tensors = files.flatMap(({ header }) => header.tensors);
      const stored = new Map(tensors.map((tensor) => [tensor.name, tensor]));
      for (const [name, shape] of shapes) {
        const found = stored.get(name)?.shape ?? null;
        if (found?.join() !== shape.join()) throw badInput(`tensor '${name}'`, found, `config.json asks for [${shape.join(', ')}]`);
      }
      const parameters = [...shapes.values()].reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
      const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
      const dtypes = [...new Set(tensors.map(({ dtype }) => dtype))].sort();
      const lora = adapter === undefined ? null : readAdapterFolder(adapter, config);
      const trained = lora && [...lora.tensors.values()].reduce((sum, { data }) => sum + data.length, 0);
      if (json)
        return printJson({ config, parameters, dtypes, bytes, tokenizer: tokenizerJson !== null, tensors, adapter: lora?.config ?? null });
      const kv = config.num_key_value_heads;
      print(
        `${config.architectures[0]}, ${count(parameters)} parameters, ${dtypes.join(' and ')}, ${size(bytes)} in ${plural(files.length, 'file')}`,
        `${plural(config.num_hidden_layers, 'layer')} of width ${config.hidden_size}, ${config.num_attention_heads} heads of ${config.head_dim}` +
          `${kv === config.num_attention_heads ? '' : ` over ${kv} of keys and values`}, feed-forward ${config.intermediate_size}`,
        `vocabulary ${count(config.vocab_size)}${isTied(config) ? ', embeddings tied to the head' : ''}, context ${count(config.max_position_embeddings)}` +
          `, ${tokenizerJson === null ? 'no tokenizer' : 'with tokenizer.json'}`,
      );
      if (!lora) return;
      const { r, lora_alpha: alpha, target_modules: targets, use_rslora: stabilised } = lora.config;
      print(
        `adapter: rank ${r}, alpha ${alpha}${stabilised ? ', rank-stabilised' : ''} (B A counts ${loraScale(lora.config).toPrecision(3)} times),` +
          ` on ${targets.join(', ')}${savesHead(config, lora.config) ? ', with a head' : ''}; ${count(trained!)} parameters`,
      );
    });
}

// --- merge and export ------------------------------------------------------------------------------------------------------------------------------

const outputOption = () => new Option('-o, --output <folder>', 'a new or empty folder').makeOptionMandatory();
const dtypeOption = () => new Option('--dtype <dtype>', 'how numbers are stored').choices(['float32', 'bfloat16']).default('float32');
const shardOption = () => new Option('--shard-size <size>', 'largest weights file, e.g. 500MB or 2GB').default('50GB');

interface StorageOptions {
  output: string;
  dtype: string;
  shardSize: string;
}

const UNITS: Record<string, number> = { KB: 1e3, MB: 1e6, GB: 1e9 };

function folderOptions({ dtype, shardSize }: StorageOptions): Required<FolderOptions> {
  const [, digits, unit] = /^(\d+(?:\.\d+)?)(KB|MB|GB)$/i.exec(shardSize) ?? [];
  if (digits === undefined || Number(digits) === 0) throw badInput('--shard-size', shardSize, 'a size such as 500MB or 2GB');
  return { dtype: dtype === 'bfloat16' ? 'BF16' : 'F32', shardBytes: Number(digits) * UNITS[unit!.toUpperCase()]! };
}

/** `from`: the folder of the model that it was made of. */
function write(model: Model, tokenizerJson: string | null, from: string, options: StorageOptions): void {
  const folder = resolve(options.output);
  writeModelFolder(folder, model, tokenizerJson, folderOptions(options));
  copyUsage(from, folder);
  const { files } = inspectModelFolder(folder);
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  print(`${model.config.architectures[0]} in ${folder}: ${size(bytes)} in ${plural(files.length, 'file')}`);
}

function mergeCommand(): Command {
  return new Command('merge')
    .description('a model with a LoRA adapter merged into its matrices')
    .argument('<model>', 'the folder of the base model')
    .argument('<adapter>', 'the folder of the adapter, in the layout of PEFT')
    .addOption(outputOption())
    .addOption(dtypeOption())
    .addOption(shardOption())
    .action((base: string, adapter: string, options: StorageOptions) => {
      folderOptions(options); // refused before anything is read
      const { model, tokenizerJson } = readModelFolder(base);
      write(mergeAdapter(model, readAdapterFolder(adapter, model.config)), tokenizerJson, base, options);
    });
}

function exportModelCommand(): Command {
  return new Command('export')
    .description("a run's policy or reward model, or a model folder, as a folder for transformers or vLLM")
    .argument('<source>', 'a run (its newest), <run>@<iteration>, or a folder that is to be stored in another form')
    .option('--reward-model', "a run's reward model instead of its policy")
    .addOption(outputOption())
    .addOption(dtypeOption())
    .addOption(shardOption())
    .action(async (source: string, options: StorageOptions & { rewardModel?: boolean }) => {
      folderOptions(options);
      const kind = options.rewardModel ? 'rewardModel' : 'policy';
      const { folder } = (await fetchServables({ [kind]: { source, field: 'source' } }))[kind]!;
      const { model, tokenizerJson } = readModelFolder(folder);
      if (options.rewardModel && !isScore(model.config))
        throw badInput('--reward-model', source, 'a run, or the folder of a LlamaForSequenceClassification');
      write(model, tokenizerJson, folder, options);
    });
}

// --- graph -----------------------------------------------------------------------------------------------------------------------------------------

const KINDS = ['train', 'decode', 'read'];

function graphCommand(): Command {
  return new Command('graph')
    .description('the ONNX graph of a model, for Netron; weights are inputs, so it is small')
    .argument('<model>', 'a model folder, or a size: layers x width x heads, e.g. 4x128x4')
    .addOption(new Option('--kind <kind>', 'what the graph does').choices(KINDS).default('train'))
    .option('--adapter <folder>', 'for train: with this LoRA adapter, which alone is trained')
    .option('--vocabulary <n>', 'of a size', '1000')
    .option('--context <n>', 'of a size', '512')
    .requiredOption('-o, --output <file>', 'where to write it')
    .action((model: string, options: { kind: string; adapter?: string; vocabulary: string; context: string; output: string }) => {
      const config = existsSync(join(model, 'config.json')) ? inspectModelFolder(model).config : configOfSize(model, options);
      if (options.adapter !== undefined && options.kind !== 'train') throw badInput('--adapter', options.adapter, '--kind train only');
      const adapter = options.adapter === undefined ? undefined : readAdapterFolder(options.adapter, config).config;
      const bytes =
        options.kind === 'train'
          ? trainingGraph(config, formOf({ objective: isScore(config) ? 'softBCE' : 'crossEntropy' }), adapter).model
          : options.kind === 'decode'
            ? decodeGraph(config, 1)
            : readingGraph(config, isScore(config) ? 'scores' : 'logProbabilities');
      try {
        writeFileSync(options.output, bytes);
      } catch (error) {
        throw new RatchetError('BadInput', `--output ${options.output}: ${(error as Error).message}`, { cause: error });
      }
      print(`${options.output}: ${size(bytes.length)}; open it with Netron`);
    });
}

function configOfSize(text: string, options: { vocabulary: string; context: string }): LlamaConfig {
  const [, layers, width, heads] = /^(\d+)x(\d+)x(\d+)$/.exec(text)?.map(Number) ?? [];
  if (!layers || !width || !heads)
    throw badInput('model', text, 'a folder with config.json, or a size: layers x width x heads, e.g. 4x128x4');
  const vocabulary = wholeNumber('--vocabulary', options.vocabulary)!;
  return llamaConfig({ layers, width, heads, vocabulary, context: wholeNumber('--context', options.context)! });
}
