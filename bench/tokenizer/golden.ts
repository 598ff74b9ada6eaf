/**
 * Makes test/learning/golden/tokenizer.json anew: what Python's `tokenizers` learns from a small corpus, and how it encodes texts with the
 * tokenizers that `ratchet tokenizer train` learns from it. `node bench/tokenizer/golden.ts`
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { linesOf, trainTokenizer } from '../../learning/tokenizer/train.ts';
import { runPython } from '../python.ts';

const corpus = [
  'You are in the middle of a room. Looking quickly around you, you see a cabinet 3, a cabinet 12 and a countertop 1.',
  "Your task is to: put a clean mug in the cabinet. It isn't there; we'll look, they've looked, I'd look.",
  'go to cabinet 3\ttake mug 1 from countertop 1   clean mug 1 with sinkbasin 1',
  '',
  '  two spaces, trailing space  ',
  'aaaa aaa aa a aaaaaaaa bananas banana cabana 2024 20 24',
  'Größe, naïve café, Ünïcödé; 日本語の文 и немного по-русски. 🙂🙃 👩‍🚀',
  'the the the room room of of a a a',
].join('\n');
const texts = [
  '',
  'go to cabinet 3',
  "You are in a cabana, aren't you?  They've   said:\n\n\t\"WE'LL see\".",
  ' leading and trailing ',
  'Größe 日本語 🙂 👩‍🚀 ñandú \u00e9 e\u0301',
  'a stop<|endoftext|>and on',
  'unknownword mug 1',
  'aaaaaaaaaaa',
];
const special = ['<pad>', '<unk>', '<|endoftext|>'];
const cases = [
  { kind: 'bpe', vocabulary: 330, minFrequency: 2, special: ['<|endoftext|>'] },
  { kind: 'bpe', vocabulary: 700, minFrequency: 1, special },
  { kind: 'words', vocabulary: 40, minFrequency: 1, special },
  { kind: 'words', vocabulary: 1000, minFrequency: 2, special },
] as const;

const folder = mkdtempSync(join(tmpdir(), 'ratchet-tokenizer-'));
try {
  const trained = cases.map((options) => {
    const unknown = options.kind === 'words' ? '<unk>' : undefined;
    return { ...options, tokenizer: trainTokenizer(linesOf(corpus), { ...options, unknown })['tokenizer.json'] };
  });
  const given = join(folder, 'given.json');
  writeFileSync(given, JSON.stringify({ corpus, texts, cases: trained }));
  const target = join(import.meta.dirname, '..', '..', 'test', 'learning', 'golden', 'tokenizer.json');
  runPython(join(import.meta.dirname, 'requirements.txt'), join(import.meta.dirname, 'golden.py'), [given, target]);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
