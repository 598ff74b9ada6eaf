/**
 * Greedy answers, token for token, here and in transformers, on 200 prompts: of a model that was trained here, and of one that transformers made with
 * random weights. A difference counts unless the two best log-probabilities at its place are closer than 1e-3; behind such a place the prompt's answers
 * are about different texts and are not compared. `node bench/parity/greedy.ts [--prompts 200] [--steps 60]`
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { demonstrate } from '../../agents/collector.ts';
import { encodeEpisode, Tokens } from '../../agents/tokens.ts';
import { Random } from '../../core/random.ts';
import type { TaskPanel } from '../../core/nouns.ts';
import { worldNamed } from '../../environments/registry.ts';
import { tokenizerJson } from '../../environments/tokenizer.ts';
import { createDecoder } from '../../learning/decoder.ts';
import { generate } from '../../learning/generate.ts';
import { initModel, llamaConfig } from '../../learning/model.ts';
import { readModelFolder, writeModelFolder } from '../../learning/model-files.ts';
import { rateFactor } from '../../learning/schedule.ts';
import { createTrainer } from '../../learning/trainer.ts';
import type { Batch, Model } from '../../learning/types.ts';
import { runPython } from '../python.ts';

const TIE = 1e-3;
const MAX_TOKENS = 48;
const CONTEXT = 512;
const EPISODES_A_STEP = 8;
/** Tokens of a prompt: the beginning of a game. A few lengths, so that transformers can batch without padding. */
const LENGTHS = [4, 12, 20, 28, 40, 60];

const { values } = parseArgs({ options: { prompts: { type: 'string', default: '200' }, steps: { type: 'string', default: '60' } } });
const python = (...args: string[]) =>
  runPython(join(import.meta.dirname, 'requirements.txt'), join(import.meta.dirname, 'greedy.py'), args);
const world = worldNamed('household');
const tokens = new Tokens(world.codec);

/** Token sequences of the expert's games. */
function episodes(role: TaskPanel['role'], count: number): number[][] {
  const slots = world.tasks(role, 0, count).map(({ id, family }) => ({ task: id, family, repeat: 0 }));
  return demonstrate(slots, world, 'expert', (slot) => world.expert(slot.task)).map((episode) => encodeEpisode(tokens, episode).ids);
}

/** A model of about a million parameters that has learnt to continue the expert's games, every token of them. */
async function trained(): Promise<Model> {
  const steps = Number(values.steps);
  const games = episodes('train', 400);
  const size = {
    vocabulary: world.codec.vocabulary.length,
    width: 128,
    layers: 4,
    heads: 4,
    keyValueHeads: 2,
    feedForward: 352,
    context: CONTEXT,
  };
  const optimizer = { kind: 'muon', beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0.01, clipNorm: 1 } as const;
  const trainer = await createTrainer(initModel(llamaConfig(size), ['greedy']), { objective: 'crossEntropy', optimizer, lanes: 2 });
  try {
    for (let step = 0; step < steps; step++) {
      const random = new Random(['greedy', step]);
      const chosen = Array.from({ length: EPISODES_A_STEP }, () => random.pick(games).slice(0, CONTEXT));
      const reads = chosen.flatMap((ids, tree) => ids.slice(1).map((target, node) => ({ read: { tree, node }, target })));
      const batch: Batch = {
        trees: chosen.map((ids) => ({ ids, parents: ids.map((_, i) => i - 1) })),
        terms: {
          objective: 'crossEntropy',
          reads: reads.map(({ read }) => read),
          targets: reads.map(({ target }) => target),
          weights: reads.map(() => 1 / reads.length),
        },
      };
      const factor = rateFactor({ shape: 'cosine', steps, warmUp: 20, floor: 0.05 }, step);
      const { loss } = await trainer.step([batch], { learningRate: 3e-3 * factor, muonLearningRate: 0.02 * factor });
      if (step % 50 === 0 || step === steps - 1) console.log(`step ${step + 1}: ${loss.toFixed(3)} nats a token`);
    }
    return trainer.model();
  } finally {
    await trainer.close();
  }
}

interface Answer {
  ids: number[];
  margins: number[];
}

async function answer(model: Model, prompts: number[][]): Promise<Answer[]> {
  const decoder = await createDecoder(model, { rows: 32, context: CONTEXT, lanes: 2 });
  try {
    const requests = prompts.map((prompt) => ({
      prompt,
      samples: 1,
      key: [],
      sampling: { temperature: 0 },
      maxTokens: MAX_TOKENS,
      stopIds: [],
      stopTexts: [],
      topLogProbabilities: 2,
      promptLogProbabilities: false,
    }));
    const results = await generate(decoder, requests, { context: CONTEXT });
    return results.map(({ samples: [sample] }) => ({
      ids: sample!.tokens.map(({ id }) => id),
      margins: sample!.tokens.map(({ top }) => top[0]!.logProbability - top[1]!.logProbability),
    }));
  } finally {
    await decoder.close();
  }
}

/** Compares answers prompt by prompt and prints the count; true if they differ at near ties only. */
function compare(name: string, ours: Answer[], theirs: Answer[]): boolean {
  let [equal, exempt, wrong, compared, ties] = [0, 0, 0, 0, 0];
  ours.forEach(({ ids, margins }, prompt) => {
    const other = theirs[prompt]!;
    const at = ids.findIndex((id, i) => id !== other.ids[i]);
    const end = at < 0 ? ids.length : at + 1;
    compared += end;
    for (let i = 0; i < end; i++) if (Math.min(margins[i]!, other.margins[i]!) < TIE) ties++;
    if (at < 0 && ids.length === other.ids.length) equal++;
    else if (at >= 0 && Math.min(margins[at]!, other.margins[at]!) < TIE) exempt++;
    else wrong++;
  });
  console.log(
    `${name}: of ${ours.length} prompts ${equal} are answered with the same ${MAX_TOKENS} tokens, ${exempt} differ from a near tie on, ${wrong} differ otherwise; ` +
      `${compared} tokens compared, ${ties} of them near ties, ${new Set(ours.flatMap(({ ids }) => ids)).size} different tokens`,
  );
  return wrong === 0;
}

const home = mkdtempSync(join(tmpdir(), 'ratchet-greedy-'));
try {
  const count = Number(values.prompts);
  const random = new Random(['greedy', 'prompts']);
  const prompts = episodes('unseen', count).map((ids) => ids.slice(0, random.pick(LENGTHS)));
  const file = join(home, 'prompts.json');
  writeFileSync(file, JSON.stringify({ prompts, maxTokens: MAX_TOKENS }));
  let right = true;
  const check = async (name: string, folder: string, model: Model) => {
    python('generate', folder, file, join(home, 'answers.json'));
    const theirs = JSON.parse(readFileSync(join(home, 'answers.json'), 'utf8')) as Answer[];
    right = compare(name, await answer(model, prompts), theirs) && right;
  };
  const own = await trained();
  writeModelFolder(join(home, 'trained'), own, tokenizerJson(world.codec));
  await check('trained here, read by transformers', join(home, 'trained'), own);
  python('make', join(home, 'random'), String(world.codec.vocabulary.length));
  await check('made by transformers with random weights, read here', join(home, 'random'), readModelFolder(join(home, 'random')).model);
  if (!right) process.exitCode = 1;
} finally {
  rmSync(home, { recursive: true, force: true });
}
