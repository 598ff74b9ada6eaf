/**
 * Whole episodes as token trees with *all* admissible commands of *all* turns hanging off them ("branch packing"): one forward pass over such a tree
 * gives exact log-probabilities of everything that could have been done, at a fraction of the cost of separate sequences.
 */
import type { Episode } from '../core/nouns.ts';
import type { TokenTree } from '../learning/types.ts';
import { actionTree, type ActionTree } from '../learning/action-tree.ts';
import { encodeEpisode, type Tokens } from './tokens.ts';

/** A token tree that can be grown by paths; a path that already exists is reused, so that nothing is computed twice. */
export class GrowingTree implements TokenTree {
  readonly ids: number[];
  readonly parents: number[];
  readonly #children = new Map<number, number>();

  constructor(chain: readonly number[]) {
    this.ids = [...chain];
    this.parents = chain.map((_, i) => i - 1);
    chain.forEach((id, i) => this.#children.set(childKey(i - 1, id), i));
  }

  /** The node that reads `id` after `parent`. */
  child(parent: number, id: number): number {
    const key = childKey(parent, id);
    let node = this.#children.get(key);
    if (node === undefined) {
      this.parents.push(parent);
      node = this.ids.push(id) - 1;
      this.#children.set(key, node);
    }
    return node;
  }
}

/** Larger than any vocabulary that Ratchet trains from nothing; keeps (parent, id) pairs distinct in one number. */
const ID_SPAN = 2 ** 20;

function childKey(parent: number, id: number): number {
  return (parent + 1) * ID_SPAN + id;
}

export interface TurnDecisions {
  /** The node of the decision token. */
  node: number;
  /** Token ids of every admissible command. */
  commands: number[][];
  tree: ActionTree;
  /** The node at which each of the action tree's points is decided. */
  pointNodes: number[];
  /** Which of the commands was executed. */
  executed: number;
}

export interface DecisionTree {
  episode: Episode;
  /** The episode's own tokens. */
  chain: number[];
  /** The chain and the branches that lead to every decision point. */
  tree: GrowingTree;
  turns: TurnDecisions[];
}

/** The episode with all its decisions. Turns with a single admissible command have no points. */
export function decisionTree(tokens: Tokens, episode: Episode): DecisionTree {
  const encoded = encodeEpisode(tokens, episode);
  const tree = new GrowingTree(encoded.ids);
  const turns = episode.turns.map((turn, t): TurnDecisions => {
    const node = encoded.decisions[t] as number;
    const commands = turn.admissible.map((command) => tokens.command(command));
    const action = actionTree(commands);
    const branchNodes: number[] = [];
    for (const branch of action.branches)
      branchNodes.push(tree.child(branch.parent < 0 ? node : (branchNodes[branch.parent] as number), branch.id));
    const pointNodes = action.points.map((point) => (point.after < 0 ? node : (branchNodes[point.after] as number)));
    return { node, commands, tree: action, pointNodes, executed: turn.admissible.indexOf(turn.action) };
  });
  return { episode, chain: encoded.ids, tree, turns };
}
