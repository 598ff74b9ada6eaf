/**
 * Writes operators that an execution provider has no kernel for with operators that it has. Without it ONNX Runtime would compute them on the CPU, with a
 * copy of every operand from the device and back. It changes what nodes a graph is made of and never what the graph computes; the CPU's graphs stay as
 * they are. What each provider lacks was read off its node placements (docs/decisions.md, 2026-11-26).
 */
import type { ProviderName } from '../providers.ts';
import type { OnnxNode, OnnxTensor } from './onnx.ts';

export interface Lowered {
  nodes: OnnxNode[];
  constants: OnnxTensor[];
}

/** One operator in terms of others. `rankOf` gives the number of axes of an input. */
type Rule = (node: OnnxNode, rankOf: (name: string) => number, into: Lowered) => void;

/** The last axis, as ONNX's reductions take it: a list in an input. */
const LAST_AXIS: OnnxTensor = { name: 'last axis', dims: [1], data: BigInt64Array.of(-1n) };

function push(into: Lowered, op: string, inputs: string[], output: string, attributes: OnnxNode['attributes'] = {}): string {
  into.nodes.push({ name: output, op, domain: '', inputs, outputs: [output], attributes });
  return output;
}

function scalar(into: Lowered, name: string, value: number): string {
  into.constants.push({ name, dims: [], data: Float32Array.of(value) });
  return name;
}

/** A list of one integer. */
function integer(into: Lowered, value: number): string {
  const name = `integer ${value}`;
  if (!into.constants.some((other) => other.name === name)) into.constants.push({ name, dims: [1], data: BigInt64Array.of(BigInt(value)) });
  return name;
}

/** alpha * op(a) op(b): Gemm for matrices, else transpositions and MatMul. */
const fusedMatMul: Rule = ({ inputs, outputs, attributes }, rankOf, into) => {
  const [out] = outputs as [string];
  const { float: alpha } = attributes['alpha'] as { float: number };
  const [transA, transB] = ['A', 'B'].map((side) => attributes[`trans${side}`] as number) as [number, number];
  if (rankOf(inputs[0]!) === 2) {
    push(into, 'Gemm', inputs, out, { transA, transB, alpha: { float: alpha } });
    return;
  }
  const [a, b] = inputs.map((input, i) => {
    const side = i === 0 ? 'A' : 'B';
    const order = Array.from({ length: rankOf(input) }, (_, axis) => axis);
    if (attributes[`transBatch${side}`] === 1) order.splice(-1, 0, order.shift()!);
    if (attributes[`trans${side}`] === 1) order.push(...order.splice(-2).toReversed());
    const moved = order.some((axis, place) => axis !== place);
    return moved ? push(into, 'Transpose', [input], `${out} ${side}`, { perm: order }) : input;
  }) as [string, string];
  if (alpha === 1) push(into, 'MatMul', [a, b], out);
  else push(into, 'Mul', [push(into, 'MatMul', [a, b], `${out} unscaled`), scalar(into, `${out} alpha`, alpha)], out);
};

/** x - max - log(sum(exp(x - max))). */
const logSoftmax: Rule = ({ inputs, outputs }, _, into) => {
  const [x, out] = [inputs[0]!, outputs[0]!];
  const keep = { keepdims: 1 };
  const shifted = push(into, 'Sub', [x, push(into, 'ReduceMax', [x, LAST_AXIS.name], `${out} max`, keep)], `${out} shifted`);
  const sum = push(into, 'ReduceSum', [push(into, 'Exp', [shifted], `${out} exp`), LAST_AXIS.name], `${out} sum`, keep);
  push(into, 'Sub', [shifted, push(into, 'Log', [sum], `${out} log`)], out);
};

/** x / sqrt(mean(x^2) + epsilon) times the gain; the second output is the inverse root. */
const rmsNorm: Rule = ({ inputs, outputs, attributes }, _, into) => {
  const [x, gain] = inputs as [string, string];
  const [out, inverse = `${outputs[0]} inverse`] = outputs as [string, string | undefined];
  const square = push(into, 'Mul', [x, x], `${out} square`);
  const mean = push(into, 'ReduceMean', [square, LAST_AXIS.name], `${out} mean`, { keepdims: 1 });
  const epsilon = scalar(into, `${out} epsilon`, (attributes['epsilon'] as { float: number }).float);
  const root = push(into, 'Sqrt', [push(into, 'Add', [mean, epsilon], `${out} shifted`)], `${out} root`);
  push(into, 'Mul', [push(into, 'Mul', [x, push(into, 'Reciprocal', [root], inverse)], `${out} normed`), gain], out);
};

/** x * sigmoid(alpha * x). */
const quickGelu: Rule = ({ inputs, outputs, attributes }, _, into) => {
  const [x, out] = [inputs[0]!, outputs[0]!];
  const { float: alpha } = attributes['alpha'] as { float: number };
  const scaled = alpha === 1 ? x : push(into, 'Mul', [x, scalar(into, `${out} alpha`, alpha)], `${out} scaled`);
  push(into, 'Mul', [x, push(into, 'Sigmoid', [scaled], `${out} gate`)], out);
};

/** A list in at most `most` groups, as small as that allows but not below `most` members. */
function groupsOf<T>(list: readonly T[], most: number): T[][] {
  const size = Math.max(most, Math.ceil(list.length / most));
  return Array.from({ length: Math.ceil(list.length / size) }, (_, i) => list.slice(i * size, (i + 1) * size));
}

/** Cuts an axis into many parts: into groups of parts first. (The lengths, its second operand, stay with the host.) */
function splitInGroups(node: OnnxNode, most: number, into: Lowered): void {
  const { name, inputs, outputs } = node;
  if (outputs.length <= most) {
    into.nodes.push(node);
    return;
  }
  const [x, lengths] = inputs as [string, string];
  let at = 0;
  const groups = groupsOf(outputs, most).map((members, i) => {
    const group = `${name} group ${i}`;
    const places = [at, (at += members.length), 0].map((place) => integer(into, place));
    const parts = push(into, 'Slice', [lengths, ...places], `${group} lengths`);
    return { group, members, parts, length: push(into, 'ReduceSum', [parts, integer(into, 0)], `${group} length`, { keepdims: 1 }) };
  });
  const sums = push(
    into,
    'Concat',
    groups.map(({ length }) => length),
    `${name} lengths of groups`,
    { axis: 0 },
  );
  into.nodes.push({ ...node, name: `${name} groups`, inputs: [x, sums], outputs: groups.map(({ group }) => group) });
  for (const { group, members, parts } of groups)
    splitInGroups({ ...node, name: `${group} parts`, inputs: [group, parts], outputs: members }, most, into);
}

/** Joins many tensors: in groups first. */
function concatInGroups(node: OnnxNode, most: number, into: Lowered): void {
  if (node.inputs.length <= most) {
    into.nodes.push(node);
    return;
  }
  const inputs = groupsOf(node.inputs, most).map((members, i) => {
    const group = `${node.name} group ${i}`;
    concatInGroups({ ...node, name: group, inputs: members, outputs: [group] }, most, into);
    return group;
  });
  into.nodes.push({ ...node, inputs });
}

/**
 * Tensors on the device that one kernel may be given, results included. WebGPU promises 8 storage buffers to a shader; devices may have more (16 on an H100),
 * and of our operators only Split and Concat take so many.
 */
export const MOST_TENSORS: Partial<Record<ProviderName, number>> = { webgpu: 8 };

const RULES = {
  FusedMatMul: fusedMatMul,
  LogSoftmax: logSoftmax,
  SimplifiedLayerNormalization: rmsNorm,
  QuickGelu: quickGelu,
} satisfies Record<string, Rule>;

/** What each provider has no kernel for, or none that gives what is asked. */
export const LOWERED: Record<ProviderName, readonly (keyof typeof RULES)[]> = {
  cpu: [],
  cuda: [],
  dml: [],
  webgpu: ['FusedMatMul', 'LogSoftmax', 'SimplifiedLayerNormalization'],
  coreml: ['FusedMatMul', 'LogSoftmax', 'SimplifiedLayerNormalization', 'QuickGelu'],
};

/** The same computation in operators that the provider has. */
export function lower(nodes: readonly OnnxNode[], rankOf: (name: string) => number, provider: ProviderName): Lowered {
  const into: Lowered = { nodes: [], constants: [] };
  const names: readonly string[] = LOWERED[provider];
  const most = (MOST_TENSORS[provider] ?? Infinity) - 1; // beside the one that is cut or made
  for (const node of nodes) {
    if (names.includes(node.op)) RULES[node.op as keyof typeof RULES](node, rankOf, into);
    else if (node.op === 'Split') splitInGroups(node, most, into);
    else if (node.op === 'Concat') concatInGroups(node, most, into);
    else into.nodes.push(node);
  }
  if (into.nodes.some(({ inputs }) => inputs.includes(LAST_AXIS.name))) into.constants.push(LAST_AXIS);
  return into;
}
