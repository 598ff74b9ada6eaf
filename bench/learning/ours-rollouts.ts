/**
 * Ratchet's decoder as a contestant, used as `agents/collector.ts` uses it: every turn one pass reads, for each live episode, what was said and seen since
 * and the tree of the admissible commands, whose exact probabilities follow. Orders: `prepare` (model folder), `turns` (count).
 */
import { Random } from '../../core/random.ts';
import { actionTree, commandLogProbabilities, decisionAppend } from '../../learning/action-tree.ts';
import { createDecoder } from '../../learning/decoder.ts';
import { readModelFolder } from '../../learning/model-files.ts';
import { logSoftmaxOver } from '../../learning/sampling.ts';
import type { Decoder } from '../../learning/types.ts';
import { serve } from './serve.ts';
import { ROLLOUT, commands, observation } from './workload.ts';

const random = new Random(['bench', 'rollouts']);
let decoder: Decoder;
let vocabulary: number;
/** What each row has not read yet. */
let pending: number[][];
/** Room for the longest turn. */
const ROOM = 2 * ROLLOUT.observation + 3 * ROLLOUT.action;

async function turn(): Promise<void> {
  const choices = pending.map(() => commands(random));
  const trees = choices.map((list) => actionTree(list));
  const appends = pending.map((ids, row) => ({ row, ...decisionAppend(ids, trees[row]!), keep: ids.length }));
  const outputs = await decoder.step(appends);
  let at = 0;
  pending = trees.map((tree, row) => {
    const options = tree.points.map((point) => logSoftmaxOver(outputs[at++]!, point.allowed, 1));
    const scores = commandLogProbabilities(tree, options);
    const said = choices[row]![scores.indexOf(Math.max(...scores))]!;
    if (decoder.length(row) + ROOM <= ROLLOUT.context) return [...said, ...observation(random, vocabulary)];
    decoder.clear(row); // the episode is over; the next one takes its row
    return first();
  });
}
const first = () => Array.from({ length: ROLLOUT.start }, () => random.below(vocabulary));

await serve(async (order) => {
  if (order.order === 'prepare') {
    const { model } = readModelFolder(order['model'] as string);
    vocabulary = model.config.vocab_size;
    const { rows, context } = ROLLOUT;
    decoder = await createDecoder(model, { rows, context, lanes: (order['lanes'] as number | undefined) ?? 2 });
    // Live episodes are at different points of their lives.
    const spread = () => ROLLOUT.start + random.below(ROLLOUT.context - ROLLOUT.start - ROOM);
    const ids = () => Array.from({ length: spread() }, () => random.below(vocabulary));
    await decoder.step(Array.from({ length: rows }, () => ids()).map((list, row) => ({ row, ids: list, reads: [], keep: list.length })));
    pending = Array.from({ length: rows }, () => observation(random, vocabulary));
    return {};
  }
  for (let i = 0; i < (order['count'] as number); i++) await turn();
  return {};
});
