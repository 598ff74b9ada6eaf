/**
 * Newton-Schulz orthogonalisation for Muon: five steps of a quintic iteration that drive all singular values of a matrix towards 1 (coefficients of
 * Jordan et al. 2024, https://kellerjordan.github.io/posts/muon). Matrices of one shape go through one batched ONNX graph, tall ones transposed.
 */
import { Graph } from './graph/graph.ts';
import { add, matmul, scale } from './graph/operators.ts';
import type { Lane } from './lanes/lane.ts';

const STEPS = 5;
const [A, B, C] = [3.4445, -4.775, 2.0315];
/** Keeps a zero matrix from being divided by zero. */
const TINY = 1e-7;

export interface Matrix {
  rows: number;
  columns: number;
  /** Row-major. */
  data: Float32Array;
}

const short = ({ rows, columns }: Omit<Matrix, 'data'>) => Math.min(rows, columns);
const long = ({ rows, columns }: Omit<Matrix, 'data'>) => Math.max(rows, columns);
const sessionName = (matrix: Omit<Matrix, 'data'>) => `newton-schulz ${short(matrix)}x${long(matrix)}`;

/** X <- (a I + b X X^T + c (X X^T)^2) X for matrices [N, O, I] of Frobenius norm at most 1, O <= I. */
function newtonSchulzGraph(rows: number, columns: number): Uint8Array {
  const graph = new Graph({ N: 'symbolic', O: rows, I: columns });
  const identity = graph.constant(
    Float32Array.from({ length: rows * rows }, (_, i) => (i % (rows + 1) === 0 ? A : 0)),
    ['O', 'O'],
  );
  let x = graph.input('x', 'float32', ['N', 'O', 'I']);
  for (let step = 0; step < STEPS; step++) {
    const gram = matmul(x, x, { transB: true });
    x = matmul(add(add(scale(gram, B), matmul(gram, gram, { alpha: C })), identity), x);
  }
  return graph.emit({ y: x });
}

export class NewtonSchulz {
  #lanes: Lane[] = [];

  /** Loads the graphs for these shapes onto the lanes. */
  async open(lanes: Lane[], shapes: Omit<Matrix, 'data'>[]): Promise<void> {
    this.#lanes = lanes;
    const distinct = new Map(shapes.map((shape) => [sessionName(shape), shape]));
    await Promise.all(
      [...distinct].flatMap(([name, shape]) => {
        const model = newtonSchulzGraph(short(shape), long(shape));
        return lanes.map((lane) => lane.load(name, model));
      }),
    );
  }

  /** Orthogonalises the matrices, in their order. Those of one shape run together; which run goes to which lane does not matter to the result. */
  async run(matrices: Matrix[]): Promise<Float32Array[]> {
    const groups = new Map<string, number[]>();
    matrices.forEach((matrix, i) => groups.set(sessionName(matrix), [...(groups.get(sessionName(matrix)) ?? []), i]));
    const results: Float32Array[] = [];
    await Promise.all(
      [...groups].map(async ([session, members], lane) => {
        const first = matrices[members[0]!]!;
        const size = first.data.length;
        const data = new Float32Array(members.length * size);
        members.forEach((i, at) => writeNormalised(matrices[i]!, data, at * size));
        const x = { data, dims: [members.length, short(first), long(first)] };
        const { y } = await this.#lanes[lane % this.#lanes.length]!.run(session, { x });
        members.forEach((i, at) => (results[i] = readBack(matrices[i]!, y!, at * size)));
      }),
    );
    return results;
  }
}

/** Writes a matrix with norm 1 and its short side first. */
function writeNormalised({ rows, columns, data }: Matrix, out: Float32Array, at: number): void {
  let squares = 0;
  for (let i = 0; i < data.length; i++) squares += data[i]! * data[i]!;
  const factor = 1 / (Math.sqrt(squares) + TINY);
  if (rows <= columns) for (let i = 0; i < data.length; i++) out[at + i] = data[i]! * factor;
  else for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[at + c * rows + r] = data[r * columns + c]! * factor;
}

function readBack({ rows, columns, data }: Matrix, from: Float32Array, at: number): Float32Array {
  if (rows <= columns) return from.subarray(at, at + data.length);
  const out = new Float32Array(data.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[r * columns + c] = from[at + c * rows + r]!;
  return out;
}
