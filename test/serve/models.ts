/** Small models in folders, as a server finds them: random weights that make every token depend on all before it, a byte-pair tokenizer, a chat template. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Random } from '../../core/random.ts';
import { initModel, llamaConfig, toScoreModel } from '../../learning/model.ts';
import { writeModelFolder } from '../../learning/model-files.ts';
import { readTokenizer, type Tokenizer } from '../../learning/tokenizer/tokenizer.ts';
import { trainTokenizer } from '../../learning/tokenizer/train.ts';
import type { Model } from '../../learning/types.ts';

export const CONTEXT = 160;
const CORPUS = [
  'go to the cabinet, take the mug and clean it with the sink\n',
  'the mug is in the cabinet; you see a mug, a pan and a plate\n',
];
export const CHAT_TEMPLATE =
  "{% for m in messages %}{% if m['role'] == 'nobody' %}{{ raise_exception('nobody speaks') }}{% endif %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";

export interface ServedFolder {
  folder: string;
  model: Model;
  tokenizer: Tokenizer;
}

function randomModel(vocabulary: number, seed: string): Model {
  const model = initModel(
    llamaConfig({ vocabulary, width: 32, layers: 2, heads: 4, keyValueHeads: 2, feedForward: 48, context: CONTEXT }),
    [seed],
  );
  for (const [name, { shape, data }] of model.tensors) {
    const random = new Random([seed, name]);
    if (shape.length > 1) for (let i = 0; i < data.length; i++) data[i] = (name.includes('layers') ? 0.2 : 0.35) * random.normal();
  }
  return model;
}

/** A policy and a reward model that share a tokenizer. */
export function servedModels(): { policy: ServedFolder; rewardModel: ServedFolder } {
  const end = '<|endoftext|>';
  const files = trainTokenizer(CORPUS, { kind: 'bpe', vocabulary: 320, minFrequency: 2, special: [end], end });
  const tokenizer = readTokenizer(files);
  const config = { ...(JSON.parse(files['tokenizer_config.json']) as object), chat_template: CHAT_TEMPLATE };
  const write = (name: string, model: Model): ServedFolder => {
    const folder = join(mkdtempSync(join(tmpdir(), 'ratchet-test-served-')), name);
    writeModelFolder(folder, model, files['tokenizer.json']);
    writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify(config));
    return { folder, model, tokenizer };
  };
  const policy = randomModel(tokenizer.size, 'policy');
  const random = new Random(['score']);
  const head = Float32Array.from({ length: 32 }, () => 0.3 * random.normal());
  return { policy: write('policy', policy), rewardModel: write('prm', toScoreModel(randomModel(tokenizer.size, 'reward'), head)) };
}
