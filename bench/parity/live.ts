/**
 * Outputs, loss, every gradient and 20 AdamW steps beside PyTorch, transformers and peft, live: golden files are made anew in a folder that goes away,
 * and compared as `test/learning/parity.test.ts` compares the committed ones. `node bench/parity/live.ts [case ...]`; ends with 1 if anything differs by more
 * than 1e-4.
 */
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { Lane } from '../../learning/lanes/lane.ts';
import { readSafetensors } from '../../learning/safetensors.ts';
import { TOLERANCE, compareWithGolden } from '../../test/learning/golden-case.ts';
import { runPython } from '../python.ts';

const folder = mkdtempSync(join(tmpdir(), 'ratchet-parity-'));
const lane = new Lane();
try {
  runPython(join(import.meta.dirname, 'requirements.txt'), join(import.meta.dirname, 'golden.py'), [folder, ...process.argv.slice(2)]);
  const files = globSync('*.safetensors', { cwd: folder }).sort();
  const made = readSafetensors(readFileSync(join(folder, files[0]!))).metadata['made_by'];
  console.log(
    `\nmade by ${made}\n\n| case | outputs | loss | gradients, of a tensor's largest | weights after 20 steps |\n|---|---|---|---|---|`,
  );
  let right = true;
  for (const file of files) {
    const worst = await compareWithGolden(join(folder, file), lane);
    const kinds = ['outputs', 'loss', 'gradients', 'weights'] as const;
    right = kinds.every((kind) => worst[kind] <= TOLERANCE) && right;
    console.log(`| ${basename(file, '.safetensors')} | ${kinds.map((kind) => worst[kind].toExponential(1)).join(' | ')} |`);
  }
  console.log(right ? `\nall within ${TOLERANCE}` : `\nNOT all within ${TOLERANCE}`);
  if (!right) process.exitCode = 1;
} finally {
  await lane.close();
  rmSync(folder, { recursive: true, force: true });
}
