/** A server to measure: models with random weights of a named size behind the real `ratchet serve`, in a process of its own. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Random } from '../../core/random.ts';
import { initModel, llamaConfig, toScoreModel } from '../../learning/model.ts';
import { writeModelFolder } from '../../learning/model-files.ts';
import { linesOf, trainTokenizer } from '../../learning/tokenizer/train.ts';
import type { Model } from '../../learning/types.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const VOCABULARY = 1000;
const CONTEXT = 512;

/** About 1 and 6 million parameters. */
export const SIZES = { s: { layers: 4, width: 128, heads: 4, feedForward: 384 }, m: { layers: 6, width: 256, heads: 8, feedForward: 768 } };
export type Size = keyof typeof SIZES;

/** New models predict from the last token alone; here every weight counts. */
function randomModel(size: Size, seed: string): Model {
  const model = initModel(llamaConfig({ vocabulary: VOCABULARY, context: CONTEXT, ...SIZES[size] }), [seed]);
  for (const [name, { shape, data }] of model.tensors) {
    const random = new Random([seed, name]);
    if (shape.length > 1) for (let i = 0; i < data.length; i++) data[i] = random.normal() / Math.sqrt(shape[1]!);
  }
  return model;
}

/** Runs `work` with a policy `policy` and a reward model `prm` served at `url`, and ends the server. */
export async function withServer(size: Size, more: string[], work: (url: string, pid: number) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'ratchet-bench-serve-'));
  const end = '<|endoftext|>';
  const corpus = globSync('docs/*.md', { cwd: ROOT })
    .sort()
    .flatMap((file) => linesOf(readFileSync(join(ROOT, file), 'utf8')));
  const tokenizer = trainTokenizer(corpus, { kind: 'bpe', vocabulary: VOCABULARY, minFrequency: 2, special: [end], end });
  const policy = randomModel(size, 'policy');
  const random = new Random(['head']);
  const score = toScoreModel(
    policy,
    Float32Array.from({ length: policy.config.hidden_size }, () => random.normal() / 8),
  );
  for (const [name, model] of [
    ['policy', policy],
    ['prm', score],
  ] as const) {
    writeModelFolder(join(folder, name), model, tokenizer['tokenizer.json']);
    writeFileSync(join(folder, name, 'tokenizer_config.json'), tokenizer['tokenizer_config.json']);
  }
  const args = ['serve', '--policy', join(folder, 'policy'), '--prm', join(folder, 'prm'), '--port', '0', ...more];
  const child = spawn(process.execPath, [join(ROOT, 'cli', 'ratchet.js'), ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  const early = exited.then(([code, signal]) => {
    throw new Error(`the server ended: ${code ?? signal}`);
  });
  try {
    const [line] = (await Promise.race([once(createInterface({ input: child.stdout }), 'line'), early])) as [string];
    await Promise.race([work(line.slice(line.lastIndexOf(' ') + 1), child.pid!), early]);
  } finally {
    early.catch(() => undefined); // it ends now because it is told to
    child.kill('SIGTERM');
    await exited;
    rmSync(folder, { recursive: true, force: true });
  }
}
