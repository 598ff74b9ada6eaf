/**
 * Tokenizers learned here against what Python's `tokenizers` 0.23.3 learns and encodes (golden/tokenizer.json, made by bench/tokenizer/golden.ts), and
 * reading: encoding, decoding, chat templates.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { worldNamed } from '../../environments/registry.ts';
import { tokenizerJson } from '../../environments/tokenizer.ts';
import { Random } from '../../core/random.ts';
import { TextStream } from '../../learning/text-stream.ts';
import { readTokenizer } from '../../learning/tokenizer/tokenizer.ts';
import { linesOf, trainTokenizer } from '../../learning/tokenizer/train.ts';
import { ratchet } from '../cli/cli.ts';

interface Golden {
  corpus: string;
  texts: string[];
  cases: {
    kind: 'bpe' | 'words';
    vocabulary: number;
    minFrequency: number;
    special: string[];
    trained: object;
    encodings: { ids: number[]; decoded: string }[];
  }[];
}
const golden = JSON.parse(readFileSync(join(import.meta.dirname, 'golden', 'tokenizer.json'), 'utf8')) as Golden;
const trainedAs = ({ kind, vocabulary, minFrequency, special }: Golden['cases'][number]) =>
  trainTokenizer(linesOf(golden.corpus), {
    kind,
    vocabulary,
    minFrequency,
    special,
    unknown: special.includes('<unk>') ? '<unk>' : undefined,
    end: '<|endoftext|>',
  });

test("a corpus gives the tokenizer that Hugging Face's trainers learn from it, merge by merge", () => {
  for (const one of golden.cases) {
    const made = JSON.parse(trainedAs(one)['tokenizer.json']) as object;
    assert.deepEqual(made, one.trained, `${one.kind} ${one.vocabulary}`);
  }
});

test('texts get the ids and ids the texts that Python gives them', () => {
  for (const one of golden.cases) {
    const tokenizer = readTokenizer(trainedAs(one));
    golden.texts.forEach((text, i) => {
      const { ids, decoded } = one.encodings[i]!;
      assert.deepEqual(tokenizer.encode(text), ids, `${one.kind} ${one.vocabulary}: ${text}`);
      assert.equal(tokenizer.decode(ids), decoded);
    });
  }
});

const bpe = readTokenizer(trainedAs(golden.cases[1]!));

test('law: byte pairs write any text, and read it back', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 40 }), (text) => {
      assert.equal(bpe.decode(bpe.encode(text, { special: false }), { special: true }), text);
    }),
  );
});

test('law: text told token by token is the text of all tokens, for any tokens at all', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(bpe.size - 1), { maxLength: 30 }), (ids) => {
      const stream = new TextStream((part) => bpe.decode(part));
      assert.equal(ids.map((id) => stream.push(id).text).join('') + stream.end().text, bpe.decode(ids));
    }),
  );
});

test("a codec's tokenizer reads its words; others are unknown; special tokens are left out of texts", () => {
  const { codec } = worldNamed('household');
  const tokenizer = readTokenizer({ 'tokenizer.json': tokenizerJson(codec) });
  const random = new Random(['words']);
  const ids = Array.from({ length: 50 }, () => 2 + random.below(codec.vocabulary.length - 2));
  const text = ids.map((id) => codec.vocabulary[id]).join(' ');
  assert.deepEqual(tokenizer.encode(text), ids);
  assert.equal(tokenizer.decode(ids), text);
  assert.deepEqual(tokenizer.encode('goto nowhere-at-all'), [codec.vocabulary.indexOf('goto'), 1]);
  assert.equal(tokenizer.decode([0, ids[0]!, 1]), codec.vocabulary[ids[0]!]);
  assert.equal(tokenizer.decode([0, ids[0]!], { special: true }), `<pad> ${codec.vocabulary[ids[0]!]}`);
  assert.deepEqual([tokenizer.size, tokenizer.endId], [codec.vocabulary.length, undefined]);
  assert.deepEqual([tokenizer.decode([]), tokenizer.decode([99_999])], ['', '']);
});

test('chat templates: of the file, of the configuration by name, or none', () => {
  const files = trainedAs(golden.cases[1]!);
  const messages = [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'Hi' },
  ];
  const config = JSON.parse(files['tokenizer_config.json']) as Record<string, unknown>;
  const inner =
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
  const withTemplate = (value: unknown, file?: string) =>
    readTokenizer({
      ...files,
      'tokenizer_config.json': JSON.stringify({ ...config, chat_template: value }),
      'chat_template.jinja': file,
    });
  const expected = '<system>Be brief.<|endoftext|><user>Hi<|endoftext|><assistant>';
  assert.equal(withTemplate(inner).chat(messages, true), expected);
  assert.equal(
    withTemplate([
      { name: 'tool_use', template: 'x' },
      { name: 'default', template: inner },
    ]).chat(messages, true),
    expected,
  );
  assert.equal(withTemplate('x', inner).chat(messages, false), expected.replace('<assistant>', ''));
  assert.equal(withTemplate(undefined).chat(messages, true), 'Be brief.\nHi');
  const strict = withTemplate("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}");
  assert.throws(() => strict.chat(messages, true), { type: 'BadInput', message: /no system here/ });
  assert.throws(() => withTemplate('{% for %}'), { type: 'BadInput', message: /chat template/ });
});

test('files that are no tokenizer are refused by name', () => {
  for (const [text, message] of [
    ['{', /tokenizer.json is not JSON/],
    ['[]', /tokenizer.json/],
    ['{}', /tokenizer.json: model/],
    ['{"model":{"type":"Foo","vocab":3}}', /tokenizer.json/],
  ] as const)
    assert.throws(() => readTokenizer({ 'tokenizer.json': text }), { type: 'BadInput', message });
  const lost = readTokenizer({
    'tokenizer.json': JSON.stringify({ pre_tokenizer: { type: 'WhitespaceSplit' }, model: { type: 'WordLevel', vocab: { a: 0 } } }),
  });
  assert.throws(() => lost.encode('a b'), { type: 'BadInput', message: /"a b"/ });
});

test('options that cannot work are refused before anything is counted', () => {
  const good = { kind: 'words' as const, vocabulary: 10, minFrequency: 1, special: ['<unk>'], unknown: '<unk>' };
  for (const [change, message] of [
    [{ vocabulary: 1 }, /vocabulary: 1 .*at least 2/],
    [{ kind: 'bpe' as const, vocabulary: 200 }, /vocabulary: 200 .*at least 257/],
    [{ minFrequency: -1 }, /minFrequency: -1/],
    [{ special: ['<unk>', '<unk>'] }, /special/],
    [{ end: '</s>' }, /end: "<\/s>"/],
    [{ unknown: undefined }, /unknown/],
  ] as const)
    assert.throws(() => trainTokenizer([], { ...good, ...change }), { type: 'BadInput', message });
});

test('`ratchet tokenizer train` writes a folder, twice the same bytes, and never over another tokenizer', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ratchet-test-tokenizer-'));
  try {
    const corpus = join(folder, 'corpus.txt');
    writeFileSync(corpus, golden.corpus);
    const train = (out: string, ...more: string[]) =>
      ratchet(['tokenizer', 'train', corpus, '--out', join(folder, out), '--vocabulary', '300', '--special', '<turn>', ...more]);
    const [one, two] = [await train('one', '--json'), await train('two')];
    assert.deepEqual([one.code, JSON.parse(one.out)], [0, { kind: 'bpe', vocabulary: 300, folder: join(folder, 'one') }]);
    assert.deepEqual([two.code, two.err], [0, '']);
    const file = (name: string) => readFileSync(join(folder, name, 'tokenizer.json'), 'utf8');
    assert.equal(file('one'), file('two'));
    const tokenizer = readTokenizer({
      'tokenizer.json': file('one'),
      'tokenizer_config.json': readFileSync(join(folder, 'one', 'tokenizer_config.json'), 'utf8'),
    });
    assert.equal(tokenizer.endId, 2);
    assert.ok(tokenizer.encode('a<turn>b').includes(3));
    const again = await train('one');
    assert.deepEqual([again.code, /--out/.test(again.err)], [2, true]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
