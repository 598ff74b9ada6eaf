/** Bad input, through the real command: exit code 2, one message that names what is wrong and the nearest valid thing, nothing started, nothing written. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { worldNamed } from '../../environments/registry.ts';
import { tokenizerJson } from '../../environments/tokenizer.ts';
import { initModel, llamaConfig } from '../../learning/model.ts';
import { writeModelFolder } from '../../learning/model-files.ts';
import { freshHome, NO_SERVERS, ratchet } from './cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'ratchet-test-input-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** A stored model of the micro shapes, with some of them changed. */
function modelDirectory(name: string, change: { width?: number; tokenizer?: string } = {}): string {
  const { codec } = worldNamed('household');
  const size = { vocabulary: codec.vocabulary.length, layers: 2, width: change.width ?? 32, heads: 2, feedForward: 64, context: 384 };
  const directory = mkdtempSync(join(folder, name));
  writeModelFolder(directory, initModel(llamaConfig(size), ['test']), change.tokenizer ?? tokenizerJson(codec));
  return directory;
}

const run = (...args: string[]) => ['run', 'agentprm-household', '--scale', 'micro', ...args];
const initial = (directory: string) => run('--set', `policy.initial=${directory}`);
const truncated = modelDirectory('truncated');
writeFileSync(join(truncated, 'model.safetensors'), 'not a model');

const CASES: [string, string[], RegExp][] = [
  ['unknown command', ['histroy'], /unknown command 'histroy'\n\(Did you mean history\?\)/],
  ['unknown option', ['ls', '--jsno'], /unknown option '--jsno'\n\(Did you mean --json\?\)/],
  ['missing argument', ['status'], /missing required argument 'run'/],
  ['unknown recipe', ['run', 'agentprm-houshold'], /recipe: "agentprm-houshold" is not valid; did you mean agentprm-household\?/],
  ['no such recipe file', ['run', './none.yaml'], /recipe: ".\/none.yaml" is not valid; there is no such file/],
  ['unknown scale', ['run', 'agentprm-household', '--scale', 'tinny'], /scale: "tinny" is not valid; use one of micro, tiny, small, full/],
  ['unknown key', run('--set', 'colect.tasks=5'), /colect: there is no such field; did you mean collect\?/],
  ['unknown nested key', run('--set', 'policy.layer=5'), /policy\.layer: there is no such field; did you mean policy\.layers\?/],
  ['value out of range', run('--set', 'collect.temperature=-1'), /collect\.temperature: -1 is not valid; a number above 0 and up to 10/],
  ['seed that is no number', run('--seed', 'one'), /--seed: "one" is not valid; a whole number/],
  ['unknown world', run('--set', 'environment.name=houshold'), /environment: "houshold" is not valid; .*"household"/],
  [
    'model directory that is not there',
    initial(join(folder, 'none')),
    /policy\.initial: ".*none" is not valid; a folder with config\.json/,
  ],
  ['model directory without files', initial(folder), /config\.json: there is no such file/],
  [
    'model with other shapes',
    initial(modelDirectory('wide', { width: 48 })),
    /hidden_size: 48 is not valid; the recipe says policy\.width 32/,
  ],
  [
    'model of another codec',
    initial(modelDirectory('words', { tokenizer: '{"model":{"vocab":{"<pad>":0}}}' })),
    /tokenizer\.json: .*another codec/,
  ],
  ['model that is none', initial(truncated), /safetensors/],
  [
    'key that is none, and is not shown',
    ['verify', 'run', '--key', join(truncated, 'model.safetensors')],
    /--key: ".*model\.safetensors" is not valid; an Ed25519 public key in PEM/,
  ],
  ['unknown worker queue', ['worker', '--queues', 'cpu,gup'], /did you mean gpu\?/],
  ['unknown family', ['play', '--family', 'cleen'], /--family: "cleen" is not valid; did you mean clean\?/],
  ['unknown source of episodes', ['episodes', 'x', '--of', 'colect'], /--of: "colect" is not valid; did you mean collect\?/],
  ['head that is no digest', ['verify', 'x', '--head', 'abc'], /--head: "abc" is not valid; 64 hexadecimal digits/],
];

describe('bad input', { concurrency: 2 }, () => {
  for (const [name, args, message] of CASES) {
    test(name, async () => {
      const home = freshHome();
      const { code, out, err } = await ratchet(args, { env: { ...NO_SERVERS, RATCHET_HOME: home } });
      assert.match(err, message);
      assert.equal(code, 2);
      assert.equal(out, '');
      assert.doesNotMatch(err, /\n\s+at /, 'no stack trace');
      assert.ok(!existsSync(home), 'nothing was made');
    });
  }
});
