/** What other tools are told about a codec: its tokenizer.json and what its tokens have in common. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tokenFactors } from '../../environments/codec-factors.ts';
import type { Codec } from '../../environments/environment.ts';
import { worldNamed } from '../../environments/registry.ts';
import { tokenizerJson, usageOf } from '../../environments/tokenizer.ts';

const { codec } = worldNamed('household');

test('the tokenizer numbers every word by its place in the vocabulary', () => {
  const tokenizer = JSON.parse(tokenizerJson(codec)) as {
    model: { type: string; vocab: Record<string, number>; unk_token: string };
  } & Record<string, unknown>;
  assert.equal(tokenizer.model.type, 'WordLevel');
  assert.deepEqual(tokenizer['pre_tokenizer'], { type: 'WhitespaceSplit' });
  assert.equal(tokenizer.model.unk_token, '<unk>');
  assert.deepEqual(
    Object.entries(tokenizer.model.vocab)
      .sort(([, a], [, b]) => a - b)
      .map(([token]) => token),
    codec.vocabulary,
  );
  assert.equal(tokenizer.model.vocab['<pad>'], 0);
});

test('generation ends where the feedback to a command begins', () => {
  const { config, files } = usageOf(codec, 'policy', 384);
  const { eos_token_id: end, pad_token_id: pad } = config;
  const feedback = codec.feedback('goto cabinet 1', 'Nothing happens.');
  assert.equal(codec.vocabulary[end!], feedback[0]);
  assert.equal(codec.vocabulary[pad], '<pad>');
  assert.deepEqual(JSON.parse(files['generation_config.json']!), { eos_token_id: end, pad_token_id: pad });
  // Else a command would be cut.
  for (const command of ['goto cabinet 12', 'take mug 1 from desk 1', 'use desklamp 1', 'what is this'])
    assert.ok(!codec.command(command).includes(codec.feedbackStart), command);
});

test('entities of one kind share a feature with the plain word, entities of one number another, and no two tokens have the same features', () => {
  const factors = tokenFactors(codec);
  const of = (token: string) => factors[codec.vocabulary.indexOf(token)] as number[];
  assert.equal(factors.length, codec.vocabulary.length);
  assert.equal(of('mug').length, 1);
  assert.equal(of('mug_1').length, 3);
  assert.equal(of('mug_1')[0], of('mug')[0]);
  assert.equal(of('mug_1')[0], of('mug_2')[0]);
  assert.equal(of('mug_1')[1], of('cabinet_1')[1]);
  assert.notEqual(of('mug_1')[1], of('mug_2')[1]);
  assert.equal(of('goto').length, 1);
  assert.equal(new Set(factors.map((features) => features.join())).size, factors.length);
  const used = new Set(factors.flat());
  assert.deepEqual(
    [...used].sort((a, b) => a - b),
    Array.from({ length: used.size }, (_, i) => i),
  );
});

test('a vocabulary that no tokenizer can hold is refused', () => {
  assert.throws(() => tokenizerJson({ ...codec, vocabulary: ['a'] } as Codec));
});
