/** `ratchet serve` as a person starts it: the models of a run, out of a real store; a key; an end in order. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import OpenAI, { AuthenticationError } from 'openai';
import { storeModel } from '../../activities/stages/models.ts';
import { appendRecord, createRun } from '../../artifacts/run-log.ts';
import type { RecordRef } from '../../artifacts/record.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import { storeConfigFromEnvironment } from '../../artifacts/store-config.ts';
import { worldNamed } from '../../environments/registry.ts';
import { tokenizerJson } from '../../environments/tokenizer.ts';
import { initModel, llamaConfig, toScoreModel } from '../../learning/model.ts';
import { ENTRY, freshHome, ratchet } from '../cli/cli.ts';
import { recipe, sampleEntries } from '../cli/records.ts';
import { servedModels } from './models.ts';

const folders = servedModels();
after(() => Object.values(folders).forEach(({ folder }) => rmSync(dirname(folder), { recursive: true })));

/** A run whose newest iteration has a policy and a reward model that can be read. */
async function storeRun(env: NodeJS.ProcessEnv): Promise<void> {
  const store = ArtifactStore.connect(storeConfigFromEnvironment({ ...process.env, ...env }));
  const { codec } = worldNamed('household');
  const causal = initModel(
    llamaConfig({ vocabulary: codec.vocabulary.length, width: 32, layers: 2, heads: 2, feedForward: 64, context: 384 }),
    ['run'],
  );
  const policy = await storeModel(store, causal, tokenizerJson(codec));
  const rewardModel = await storeModel(store, toScoreModel(causal, new Float32Array(32).fill(0.1)), tokenizerJson(codec));
  await createRun(store, 'demo-1', recipe);
  let last: RecordRef | null = null;
  for (const entry of sampleEntries()) {
    const body = entry.body as { policy?: unknown; rewardModel?: { rewardModel: unknown } };
    if (entry.kind === 'outcome') body.policy = policy;
    if (body.rewardModel) body.rewardModel.rewardModel = rewardModel;
    last = await appendRecord(store, 'demo-1', { ...entry, previous: last?.sha256 ?? null });
  }
  store.close();
}

test('a run is served from the store with a key, and ends with 0 when it is told to', async () => {
  const env = { RATCHET_PREFIX: `test-serve-${randomUUID()}`, RATCHET_API_KEY: 'k', RATCHET_HOME: freshHome() };
  await storeRun(env);
  const args = [ENTRY, 'serve', '--policy', 'demo-1', '--prm', 'demo-1@1', '--port', '0', '--rows', '4', '--lanes', '1'];
  const child = spawn(process.execPath, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
    assert.match(line, /^demo-1@2 and demo-1@1 at http:\/\/127\.0\.0\.1:\d+$/);
    const baseURL = `${line.split(' at ')[1]}/v1`;
    const client = new OpenAI({ baseURL, apiKey: 'k', maxRetries: 0 });
    // The model is untrained, so it is asked only for what the constraint decides: one of the commands, in the codec's words.
    const commands = ['goto cabinet_1', 'open fridge_1'];
    const ask = { model: 'demo-1@2', prompt: '<task> clean mug >', guided_choice: commands };
    const answer = await client.completions.create(ask);
    assert.ok(commands.includes(answer.choices[0]!.text));
    // Read as text, this would be scored as 'goto cabinet <unk>', silently.
    const strange = client.completions.create({
      ...ask,
      guided_choice: ['goto cabinet 1', 'goto cabinet 2', 'open fridge_1'],
    } as typeof ask);
    await assert.rejects(strange, {
      status: 400,
      message: /structured_outputs\.choice: "goto cabinet 1" has words outside the model's vocabulary/,
    });
    const wrong = new OpenAI({ baseURL, apiKey: 'x', maxRetries: 0 });
    await assert.rejects(wrong.models.list(), AuthenticationError);
  } finally {
    child.kill('SIGTERM');
  }
  assert.deepEqual(await once(child, 'exit'), [0, null]);
});

test('a model out of a run says how it is used: batches are padded, and a text ends with its command', async () => {
  const env = { RATCHET_PREFIX: `test-serve-${randomUUID()}`, RATCHET_HOME: freshHome() };
  await storeRun(env);
  const read = (folder: string, name: string) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as Record<string, unknown>;
  const exported = await Promise.all(
    [[], ['--reward-model']].map(async (kind) => {
      const folder = join(env.RATCHET_HOME, `exported${kind.length}`);
      const { code, err } = await ratchet(['model', 'export', 'demo-1', ...kind, '-o', folder], { env });
      assert.equal(code, 0, err);
      return folder;
    }),
  );
  const [policy, rewardModel] = exported as [string, string];
  const { vocabulary } = worldNamed('household').codec;
  const roles = {
    bos_token_id: null,
    pad_token_id: vocabulary.indexOf('<pad>'),
    model_max_length: 384,
    model_input_names: ['input_ids', 'attention_mask'],
  };
  // transformers pads texts that are to go on, and finds the last token of one that is scored, by these.
  for (const [folder, expected] of [
    [policy, { ...roles, eos_token_id: vocabulary.indexOf(':'), padding_side: 'left' }],
    [rewardModel, { ...roles, eos_token_id: null, padding_side: 'right' }],
  ] as const) {
    const all = { ...read(folder, 'config.json'), ...read(folder, 'tokenizer_config.json') } as Record<string, unknown>;
    assert.deepEqual(Object.fromEntries(Object.keys(expected).map((name) => [name, all[name]])), expected);
  }
  assert.equal(read(policy, 'generation_config.json')['eos_token_id'], vocabulary.indexOf(':'));
  assert.ok(!existsSync(join(rewardModel, 'generation_config.json')));
  assert.ok(existsSync(join(policy, 'chat_template.jinja')));
});

test('what cannot be served is refused with exit code 2, by name', async () => {
  const { rewardModel } = folders;
  const cases: [string[], RegExp][] = [
    [[], /--policy: .*--policy, --prm or both are needed/],
    [['--policy', './none'], /--policy: "\.\/none" is not valid; there is no such folder/],
    [['--policy', rewardModel.folder], /architectures: .*LlamaForCausalLM/],
  ];
  const ended = await Promise.all(cases.map(([args]) => ratchet(['serve', ...args, '--port', '0'])));
  cases.forEach(([args, message], i) => {
    const { code, err } = ended[i]!;
    assert.deepEqual([code, message.test(err)], [2, true], `${args.join(' ')}: ${err}`);
  });
});
