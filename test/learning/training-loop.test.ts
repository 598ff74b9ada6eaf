/** The loop around a trainer where memory runs out and where it is cancelled: what goes on from where, in how many pieces, and what is said about it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sha256 } from '../../core/digest.ts';
import { Random } from '../../core/random.ts';
import { activationBytes, requireMemory, trainerBytes } from '../../learning/memory.ts';
import { writeSafetensors } from '../../learning/safetensors.ts';
import { createTrainer } from '../../learning/trainer.ts';
import { train } from '../../learning/training-loop.ts';
import type { Split, TrainingHooks } from '../../learning/training-loop.ts';
import type { Batch } from '../../learning/types.ts';
import { chain, tinyModel } from './reference.ts';

const OPTIMIZER = { kind: 'adamw', beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 } as const;
const STEPS = 6;
const SEQUENCES = 8;
const MICRO_BATCHES = 2;

/** A step's sequences, dealt over as many micro-batches as asked for. */
function batchesOf(step: number, count: number): Batch[] {
  const random = new Random(['training loop', step]);
  const sequences = Array.from({ length: SEQUENCES }, () => Array.from({ length: 6 }, () => random.below(11)));
  const size = Math.ceil(SEQUENCES / count);
  return Array.from({ length: Math.ceil(SEQUENCES / size) }, (_, i) => {
    const part = sequences.slice(i * size, (i + 1) * size);
    const reads = part.flatMap((ids, tree) => ids.slice(1).map((_, node) => ({ tree, node })));
    const targets = part.flatMap((ids) => ids.slice(1));
    return { trees: part.map(chain), terms: { objective: 'crossEntropy', reads, targets, weights: reads.map(() => 1 / 40) } };
  });
}

interface Attempt {
  outOfMemory?: number;
  signal?: AbortSignal;
  /** Steps after which a checkpoint is kept. */
  saveAt?: number[];
  /** Called before the batches of each step are computed. */
  before?: (step: number, parts: number) => void;
}

/** One attempt at the training; `kept` holds its newest checkpoint from attempt to attempt. */
async function attempt(
  kept: { step: number; bytes: Uint8Array }[],
  options: Attempt,
): Promise<{ digest: string; splits: Split[]; counts: number[] }> {
  const trainer = await createTrainer(tinyModel(5), { objective: 'crossEntropy', optimizer: OPTIMIZER, lanes: 1 });
  const counts: number[] = [];
  let done = 0;
  const hooks: TrainingHooks = {
    progress: (progress) => (done = progress.done),
    checkpoints: {
      load: async () => kept.at(-1) ?? null,
      save: async (step, bytes) => void kept.push({ step, bytes }),
      due: () => options.saveAt?.includes(done) ?? false,
    },
    stopIfRequested: () => {},
    signal: options.signal ?? new AbortController().signal,
    outOfMemory: options.outOfMemory ?? 0,
  };
  try {
    const { splits } = await train(
      {
        trainer,
        steps: STEPS,
        phase: 'test',
        batches: (step, parts) => {
          options.before?.(step, parts);
          const batches = batchesOf(step, MICRO_BATCHES * parts);
          counts.push(batches.length);
          return batches;
        },
        rates: () => ({ learningRate: 3e-3 }),
      },
      hooks,
    );
    return { digest: sha256(writeSafetensors(trainer.model().tensors)), splits, counts };
  } finally {
    await trainer.close();
  }
}

test('where memory has run out micro-batches are halved from the last checkpoint on, which is said and kept by later checkpoints', async () => {
  const whole = await attempt([], {});
  assert.deepEqual([whole.splits, whole.counts], [[], [2, 2, 2, 2, 2, 2]]);

  const kept: { step: number; bytes: Uint8Array }[] = [];
  const full = new Error('full');
  const runsOut = (at: number, most: number) => (step: number, parts: number) => {
    if (step === at && parts < most) throw full;
  };
  // Memory runs out at step 3, twice, then at step 4 after another checkpoint.
  await assert.rejects(attempt(kept, { saveAt: [2], before: runsOut(3, 4) }), full);
  await assert.rejects(attempt(kept, { outOfMemory: 1, before: runsOut(3, 4) }), full);
  await assert.rejects(attempt(kept, { outOfMemory: 2, saveAt: [4], before: runsOut(4, 8) }), full);
  const last = await attempt(kept, { outOfMemory: 1 });
  assert.deepEqual(last.splits, [
    { step: 2, parts: 4 },
    { step: 4, parts: 8 },
  ]);
  assert.deepEqual(last.counts, [8, 8], 'one sequence is the smallest micro-batch');

  // Killed and taken up again without a further lack of memory: the same pieces, the same bytes.
  const again = await attempt(kept.slice(0, 2), { outOfMemory: 1 });
  assert.deepEqual([again.digest, again.splits], [last.digest, last.splits]);
});

test('a cancelled training ends between two steps', async () => {
  const cancel = new AbortController();
  const reason = new Error('not wanted any more');
  const steps: number[] = [];
  const before = (step: number) => {
    steps.push(step);
    if (step === 2) cancel.abort(reason);
  };
  await assert.rejects(attempt([], { signal: cancel.signal, before }), reason);
  assert.deepEqual(steps, [0, 1, 2]);
});

test('what cannot fit into the bound of the process is refused before it is computed', async (t) => {
  const model = tinyModel(5);
  // Numbers of 4 bytes: the model three times; of what is trained the optimizer's state (two for AdamW), a sum, and one micro-batch's gradient.
  assert.equal(trainerBytes(1000, 1000, 'adamw'), 1000 * (3 * 4 + 2 * 4 + 4 + 4));
  assert.equal(trainerBytes(1000, 10, 'muon'), 1000 * 3 * 4 + 10 * (4 + 4 + 4));
  requireMemory('anything', 2 ** 40, null);
  // Three tokens that see 1, 2 and 3, one read. Width 8, two heads of 4, feed-forward 12: of a token the normed input, key and value (24), of a query 72, and
  // of each head its scores; the last layer has one query, and there are 11 logits.
  const one = { objective: 'crossEntropy' as const, reads: [{ tree: 0, node: 2 }], targets: [1], weights: [1] };
  assert.equal(activationBytes(model.config, { trees: [chain([1, 2, 3])], terms: one }), 4 * (3 * (24 + 72) + 2 * 6 + 3 * 24 + 72 + 11));
  const [batch] = batchesOf(0, 1) as [Batch];
  const longer = { ...batch, trees: [...batch.trees, chain(Array.from({ length: 30 }, () => 1))] };
  assert.ok(activationBytes(model.config, longer) > activationBytes(model.config, batch));

  t.after(() => delete process.env['RATCHET_MEMORY_BYTES']);
  process.env['RATCHET_MEMORY_BYTES'] = String(80 * 2 ** 20);
  const refused = { type: 'OutOfMemory', message: /training 0\.0 M parameters needs at least 81 MiB, and 80 MiB are allowed/ };
  await assert.rejects(createTrainer(model, { objective: 'crossEntropy', optimizer: OPTIMIZER, lanes: 1 }), refused);
  process.env['RATCHET_MEMORY_BYTES'] = String(81 * 2 ** 20);
  const trainer = await createTrainer(model, { objective: 'crossEntropy', optimizer: OPTIMIZER, lanes: 1 });
  const many = batchesOf(0, 1).flatMap(({ trees }) => Array.from({ length: 400 }, () => trees).flat());
  const terms = { objective: 'crossEntropy', reads: [{ tree: 0, node: 0 }], targets: [1], weights: [1] } as const;
  const wide: Batch = { trees: many, terms: { ...terms, reads: [...terms.reads], targets: [1], weights: [1] } };
  await assert.rejects(trainer.step([wide], { learningRate: 1e-3 }), {
    type: 'OutOfMemory',
    message: /a step with its largest micro-batch needs/,
  });
  await trainer.step([batch], { learningRate: 1e-3 });
  await trainer.close();
});
