/**
 * Rollouts with what a policy and a reward model say of every command at every turn: what preference updates choose their pairs from.
 * Both models are read once, over whole episodes with all their decisions packed into one tree each.
 */
import type { Episode } from '../../core/nouns.ts';
import { Random, type RandomKey } from '../../core/random.ts';
import { sigmoid } from '../../core/statistics.ts';
import { createReader } from '../../learning/reader.ts';
import type { TrainingHooks } from '../../learning/training-loop.ts';
import type { Model, Read, Reader } from '../../learning/types.ts';
import { commandLogProbabilities } from '../../learning/action-tree.ts';
import { decisionTree, GrowingTree, type DecisionTree } from '../decision-trees.ts';
import type { Tokens } from '../tokens.ts';

/** Commands below this probability under the reference are not scored: they would be dropped as candidates anyway. */
const SCORED_SHARE_OF_MIN_PROBABILITY = 0.25;
/** Episodes in one forward pass over whole decision trees. */
const READ_CHUNK = 8;

/** An episode's decisions with what the reference and the PRM say of every command. */
export interface ScoredTree extends DecisionTree {
  reference: Float64Array[];
  /** Q in [0, 1], NaN where not scored. */
  scores: Float64Array[];
}

/** The reference's log-probabilities of every command at every turn, and the PRM's score of every likely one. Done once: neither model changes. */
export async function scoreEpisodes(
  policy: Model,
  rewardModel: Model,
  episodes: readonly Episode[],
  options: { tokens: Tokens; spec: { minProbability: number; control: string }; key: RandomKey; lanes: number },
  hooks: TrainingHooks,
): Promise<ScoredTree[]> {
  const { spec, lanes } = options;
  const policyReader = await createReader(policy, { lanes });
  const scoreReader = await createReader(rewardModel, { lanes });
  const out: ScoredTree[] = [];
  const floor = Math.log(spec.minProbability * SCORED_SHARE_OF_MIN_PROBABILITY);
  try {
    for (let at = 0; at < episodes.length; at += READ_CHUNK * lanes) {
      const part = episodes.slice(at, at + READ_CHUNK * lanes).map((episode) => decisionTree(options.tokens, episode));
      const reference = await readDecisions(policyReader, part);
      const scoreRequests = chunks(part, READ_CHUNK).map((chunk) =>
        scoreRequest(chunk, (tree, t) => (reference.get(tree) as Float64Array[])[t] as Float64Array, floor),
      );
      const logits = await scoreReader.scores(scoreRequests.map(({ trees, reads }) => ({ trees, reads })));
      scoreRequests.forEach((request, r) => {
        request.chunk.forEach((tree) =>
          out.push({
            ...tree,
            reference: reference.get(tree) as Float64Array[],
            scores: tree.turns.map((turn) => new Float64Array(turn.commands.length).fill(NaN)),
          }),
        );
        const base = out.length - request.chunk.length;
        request.targets.forEach(({ tree, turn, command }, i) => {
          (out[base + tree] as ScoredTree).scores[turn]![command] = sigmoid((logits[r] as Float32Array)[i] as number);
        });
      });
      hooks.progress({ phase: 'scoring rollouts', done: out.length, total: episodes.length, unit: 'episodes' });
    }
  } finally {
    await policyReader.close();
    await scoreReader.close();
  }
  if (spec.control === 'permuted') permuteScores(out, new Random([...options.key, 'permuted']));
  return out;
}

function permuteScores(trees: ScoredTree[], random: Random): void {
  for (const tree of trees) {
    tree.scores = tree.scores.map((scores) => {
      const scored = [...scores.keys()].filter((i) => !Number.isNaN(scores[i]));
      const dealt = random.shuffled(scored);
      const permuted = scores.slice();
      scored.forEach((to, i) => (permuted[to] = scores[dealt[i] as number] as number));
      return permuted;
    });
  }
}

/** Log-probabilities of every command at every turn of every tree. */
export async function readDecisions(reader: Reader, trees: readonly DecisionTree[]): Promise<Map<DecisionTree, Float64Array[]>> {
  const parts = chunks(trees, READ_CHUNK);
  const results = await reader.logProbabilities(
    parts.map((part) => {
      const reads: Read[] = [];
      const allowed: number[][] = [];
      part.forEach((tree, index) => {
        for (const turn of tree.turns) {
          turn.tree.points.forEach((point, p) => {
            reads.push({ tree: index, node: turn.pointNodes[p] as number });
            allowed.push(point.allowed);
          });
        }
      });
      return { trees: part.map(({ tree }) => tree), reads, allowed };
    }),
  );
  const out = new Map<DecisionTree, Float64Array[]>();
  parts.forEach((part, r) => {
    let at = 0;
    for (const tree of part) {
      out.set(
        tree,
        tree.turns.map((turn) => {
          const options = turn.tree.points.map(() => (results[r] as Float32Array[])[at++] as Float32Array);
          return commandLogProbabilities(turn.tree, options);
        }),
      );
    }
  });
  return out;
}

/** Whole commands as paths of the episode's tree, for the PRM to read at their ends. */
function scoreRequest(chunk: readonly DecisionTree[], logProbabilities: (tree: DecisionTree, turn: number) => Float64Array, floor: number) {
  const reads: Read[] = [];
  const targets: { tree: number; turn: number; command: number }[] = [];
  const trees = chunk.map(({ chain }) => new GrowingTree(chain));
  chunk.forEach((decision, tree) => {
    decision.turns.forEach((turn, t) => {
      turn.commands.forEach((ids, command) => {
        if ((logProbabilities(decision, t)[command] as number) < floor) return;
        let node = turn.node;
        for (const id of ids) node = (trees[tree] as GrowingTree).child(node, id);
        reads.push({ tree, node });
        targets.push({ tree, turn: t, command });
      });
    });
  });
  return { chunk, trees, reads, targets };
}

function chunks<T>(items: readonly T[], size: number): T[][] {
  const out: T[][] = [];
  for (let at = 0; at < items.length; at += size) out.push(items.slice(at, at + size));
  return out;
}
