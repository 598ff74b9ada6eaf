/**
 * A training that is killed: a process that trains with `training-loop.ts`, keeps its checkpoints in a folder, tells the steps that it begins, and at its
 * end the digest of everything that came out. Arguments: the folder, the number of lanes, and a step in whose middle SIGKILL comes (-1: none).
 */
import { readFileSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sha256 } from '../../core/digest.ts';
import { Random } from '../../core/random.ts';
import { initModel, llamaConfig } from '../../learning/model.ts';
import { rateFactor } from '../../learning/schedule.ts';
import { createTrainer } from '../../learning/trainer.ts';
import { train } from '../../learning/training-loop.ts';
import { randomBatch } from './reference.ts';

const STEPS = 8;
const VOCABULARY = 40;

const [folder, lanes, killAt] = process.argv.slice(2) as [string, string, string];
const model = initModel(llamaConfig({ vocabulary: VOCABULARY, width: 64, layers: 2, heads: 2, context: 64 }), ['interrupted']);
const trainer = await createTrainer(model, {
  objective: 'preference',
  optimizer: { kind: 'muon', beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 },
  lanes: Number(lanes),
});
const fileOf = (step: number) => join(folder, `${String(step).padStart(3, '0')}.checkpoint`);
/** State beside the trainer's: what a policy update counts on its way. */
let tokens = 0;
const { loss } = await train(
  {
    trainer,
    steps: STEPS,
    phase: 'test',
    batches: (step) => {
      process.send!({ begins: step });
      // The event loop comes to this when the step waits for its lanes, which are then at work.
      if (step === Number(killAt)) setImmediate(() => process.kill(process.pid, 'SIGKILL'));
      const batches = Array.from({ length: 6 }, (_, i) => randomBatch('preference', new Random(['interrupted', step, i]), VOCABULARY));
      for (const { trees } of batches) for (const { ids } of trees) tokens += ids.length;
      return batches;
    },
    rates: (step) => {
      const factor = rateFactor({ shape: 'cosine', steps: STEPS, warmUp: 3, floor: 0.1 }, step);
      return { learningRate: 3e-3 * factor, muonLearningRate: 0.02 * factor };
    },
    save: () => tokens,
    restore: (state) => (tokens = state as number),
  },
  {
    progress: () => undefined,
    stopIfRequested: () => undefined,
    signal: new AbortController().signal,
    outOfMemory: 0,
    checkpoints: {
      due: () => true,
      save: async (step, bytes) => {
        // Under its name only when it is whole, as every store of checkpoints must have it.
        writeFileSync(`${fileOf(step)}.part`, bytes);
        renameSync(`${fileOf(step)}.part`, fileOf(step));
      },
      load: async () => {
        const steps = readdirSync(folder).filter((name) => name.endsWith('.checkpoint'));
        const newest = steps.sort().at(-1);
        return newest === undefined ? null : { step: Number.parseInt(newest, 10), bytes: readFileSync(join(folder, newest)) };
      },
    },
  },
);
const state = sha256(trainer.save());
await trainer.close();
process.send!({ result: { loss, tokens, state } });
process.disconnect();
