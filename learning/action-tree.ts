/**
 * The commands that are admissible now as a token tree: what constrained decoding may say next, at every point where there is a choice.
 * With the logits at each decision point, the probabilities of *all* admissible commands are exact and sum to 1, from one forward pass. It computes
 * no logits itself.
 */
import { badInput } from '../core/errors.ts';

/** A choice of one token among several. */
export interface DecisionPoint {
  /** Index into `branches` of the token after which the choice is made; -1: the decision token that ends the state. */
  after: number;
  /** Token ids that may follow, at least two, in order of first appearance among the commands. */
  allowed: number[];
}

export interface ActionTree {
  /** Tokens needed to reach the decision points that do not follow the state directly. `parent` is an index into `branches` or -1. */
  branches: { id: number; parent: number }[];
  points: DecisionPoint[];
  /** For each command, in the given order: which allowed token is taken at which point. Empty when the command is the only one. */
  choices: { point: number; option: number }[][];
}

/** Builds the tree. Each command is its token ids; commands are distinct and none is a prefix of another (the codec promises it). */
export function actionTree(commands: readonly (readonly number[])[]): ActionTree {
  const tree: ActionTree = { branches: [], points: [], choices: commands.map(() => []) };
  grow(
    tree,
    commands,
    commands.map((_, i) => i),
    0,
    -1,
    [],
  );
  return tree;
}

/** Handles the commands (by index) that share their first `depth` tokens; `after` is the branch already stored for the path, `pending` the tokens beyond it. */
function grow(
  tree: ActionTree,
  commands: readonly (readonly number[])[],
  members: number[],
  depth: number,
  after: number,
  pending: number[],
): void {
  if (members.length <= 1) return;
  const groups = new Map<number, number[]>();
  for (const member of members) {
    const id = commands[member]?.[depth];
    if (id === undefined) throw badInput('commands', commands[member] ?? null, 'distinct token lists, none a prefix of another');
    const group = groups.get(id);
    if (group) group.push(member);
    else groups.set(id, [member]);
  }
  if (groups.size === 1) {
    const [id] = groups.keys();
    grow(tree, commands, members, depth + 1, after, [...pending, id as number]);
    return;
  }
  let parent = after;
  for (const id of pending) parent = tree.branches.push({ id, parent }) - 1;
  const point = tree.points.push({ after: parent, allowed: [...groups.keys()] }) - 1;
  let option = 0;
  for (const [id, group] of groups) {
    for (const member of group) tree.choices[member]?.push({ point, option });
    grow(tree, commands, group, depth + 1, parent, [id]);
    option++;
  }
}

/** What a decoder is fed to read every decision point of the tree on top of the tokens of `chain`: `reads[p]` is the node of point p. */
export function decisionAppend(chain: readonly number[], tree: ActionTree): { ids: number[]; parents: number[]; reads: number[] } {
  const ids = [...chain];
  const parents = ids.map((_, i) => i - 1);
  const last = ids.length - 1;
  const nodeOf = (branch: number) => (branch < 0 ? last : last + 1 + branch);
  for (const branch of tree.branches) {
    ids.push(branch.id);
    parents.push(nodeOf(branch.parent));
  }
  return { ids, parents, reads: tree.points.map((point) => nodeOf(point.after)) };
}

/**
 * What a decoder is fed to read all candidates on top of the tokens of `chain`, their common beginnings once: `nodes[c][i]` is the node of token i of
 * candidate c. Candidates may be equal or prefixes of each other.
 */
export function candidateAppend(
  chain: readonly number[],
  candidates: readonly (readonly number[])[],
): { ids: number[]; parents: number[]; nodes: number[][] } {
  const ids = [...chain];
  const parents = ids.map((_, i) => i - 1);
  const children = new Map<string, number>();
  const nodes = candidates.map((candidate) => {
    let parent = chain.length - 1;
    return candidate.map((id) => {
      const key = `${parent} ${id}`;
      let node = children.get(key);
      if (node === undefined) {
        parents.push(parent);
        node = ids.push(id) - 1;
        children.set(key, node);
      }
      parent = node;
      return node;
    });
  });
  return { ids, parents, nodes };
}

/** Natural-log probability of every command, from the log-probabilities of the options at every point. */
export function commandLogProbabilities(tree: ActionTree, options: readonly ArrayLike<number>[]): Float64Array {
  return Float64Array.from(tree.choices, (choices) => {
    let sum = 0;
    for (const { point, option } of choices) sum += (options[point] as ArrayLike<number>)[option] as number;
    return sum;
  });
}

/** The command that greedy decoding says: the likeliest token at each point (the first of equals). */
export function greedyCommand(tree: ActionTree, options: readonly ArrayLike<number>[]): number {
  const best = options.map((values) => {
    let at = 0;
    for (let i = 1; i < values.length; i++) if ((values[i] as number) > (values[at] as number)) at = i;
    return at;
  });
  return tree.choices.findIndex((choices) => choices.every(({ point, option }) => best[point] === option));
}
