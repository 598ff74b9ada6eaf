/** A training that is killed with SIGKILL in the middle of steps, and goes on with other lanes, ends with the bytes of one that never stopped. */
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { sha256 } from '../../core/digest.ts';
import { Random } from '../../core/random.ts';
import { createTrainer } from '../../learning/trainer.ts';
import { train } from '../../learning/training-loop.ts';
import type { Trainer } from '../../learning/types.ts';
import { randomBatch, tinyModel } from './reference.ts';

const program = fileURLToPath(new URL('./interrupted-training.ts', import.meta.url));
const STEPS = 8;

/** Runs the training to its end and gives its result, or lets it be killed in the middle of a step; null then. */
async function run(folder: string, lanes: number, killAt = -1): Promise<{ result: unknown; steps: number[] }> {
  const child = fork(program, [folder, String(lanes), String(killAt)], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const steps: number[] = [];
  let result: unknown = null;
  child.on('message', (message: { begins: number } | { result: unknown }) => {
    if ('result' in message) result = message.result;
    else steps.push(message.begins);
  });
  const [code, signal] = await new Promise<[number | null, string | null]>((resolve) => child.once('close', (...how) => resolve(how)));
  assert.deepEqual([code, signal], killAt === -1 ? [0, null] : [null, 'SIGKILL']);
  return { result, steps };
}

test('kill -9 in the middle of two steps, and other lanes after each: the same weights, optimizer state, counts and loss', async () => {
  const root = mkdtempSync(join(tmpdir(), 'ratchet-interruption-'));
  try {
    const random = new Random(['interruption']);
    const first = 1 + random.below(STEPS / 2 - 1);
    const second = first + 1 + random.below(STEPS - first - 2);
    const folder = (name: string) => mkdtempSync(join(root, name));
    const { result: undisturbed } = await run(folder('undisturbed'), 1);
    const killed = folder('killed');
    await run(killed, 1, first);
    const again = await run(killed, 2, second);
    const last = await run(killed, 2);
    assert.deepEqual([again.steps[0], last.steps[0]], [first, second], 'each went on from the checkpoint before the step that was cut');
    assert.deepEqual(last.result, undisturbed);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test('stopped at any steps, any number of times, with checkpoints at any steps, on 1 or 2 lanes: the same bytes', async () => {
  const start = (seed: number, lanes: number) =>
    createTrainer(tinyModel(seed), {
      objective: 'policyGradient',
      optimizer: { kind: 'muon', beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 },
      lanes,
    });
  const STOPPED = new Error('stopped');
  let kept: { step: number; bytes: Uint8Array } | null = null;
  /** Trains from what is kept, with checkpoints after the given steps, until it is stopped after one of them or done. */
  const go = async (trainer: Trainer, checkpoints: number[], stop: number | null) => {
    let reads = 0;
    let step = 0;
    const { loss } = await train(
      {
        trainer,
        steps: 8,
        phase: 'test',
        batches: (at) => {
          step = at;
          const made = [0, 1, 2].map((i) => randomBatch('policyGradient, PPO with reference and entropy', new Random(['any', at, i]), 11));
          reads += made.length;
          return made;
        },
        rates: () => ({ learningRate: 0.01, muonLearningRate: 0.02 }),
        save: () => ({ reads }),
        restore: (state) => ({ reads } = state as { reads: number }),
      },
      {
        progress: () => undefined,
        signal: new AbortController().signal,
        outOfMemory: 0,
        stopIfRequested: () => {
          if (step === stop) throw STOPPED;
        },
        checkpoints: {
          due: () => checkpoints.includes(step) || step === stop,
          load: async () => kept,
          save: async (at, bytes) => void (kept = { step: at, bytes }),
        },
      },
    );
    return { loss, reads, state: sha256(trainer.save()) };
  };
  const [one, two] = [await start(1, 1), await start(1, 2)];
  const fresh = one.save();
  try {
    const undisturbed = await go(one, [], null);
    const stops = fc.uniqueArray(fc.nat(6), { maxLength: 3 }).map((list) => list.sort());
    await fc.assert(
      fc.asyncProperty(stops, fc.array(fc.nat(6), { maxLength: 3 }), fc.boolean(), async (steps, checkpoints, swap) => {
        kept = null;
        const order = swap ? [two, one] : [one, two];
        order[0]!.restore(fresh);
        for (const [i, stop] of steps.entries()) await assert.rejects(go(order[i % 2]!, checkpoints, stop), STOPPED);
        assert.deepEqual(await go(order[steps.length % 2]!, checkpoints, null), undisturbed);
      }),
      { numRuns: 5, seed: 5 },
    );
  } finally {
    await Promise.all([one.close(), two.close()]);
  }
});
