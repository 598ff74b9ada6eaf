/**
 * Newton-Schulz orthogonalisation for Muon: five steps of a quintic iteration that drive all singular values of a matrix towards 1 (coefficients of
 * Jordan et al. 2024, https://kellerjordan.github.io/posts/muon). Matrices of one shape go through one batched ONNX graph.
 */
import { Graph } from './graph/graph.ts';
import { add, matmul, scale } from './graph/operators.ts';
import type { Lane } from './lanes/lane.ts';

const STEPS = 5;
const [A, B, C] = [3.4445, -4.775, 2.0315];
/** Keeps a zero matrix from being divided by zero. */
const TINY = 1e-7;

const sessionName = ([rows, columns]: readonly [number, number]) => `newton-schulz ${rows}x${columns}`;

/** The graph for matrices [B, rows, columns] of Frobenius norm at most 1. The product is taken on the shorter side. */
function newtonSchulzGraph(rows: number, columns: number): Uint8Array {
  const graph = new Graph({ B: 'symbolic', O: rows, I: columns, Q: Math.min(rows, columns) });
  const input = graph.input('x', 'float32', ['B', 'O', 'I']);
  const wide = rows <= columns;
  let x = input;
  for (let step = 0; step < STEPS; step++) {
    // `rename` is not needed: the product's two sides bear one name, which `matmul` accepts.
    const gram = wide ? matmul(x, x, { transB: true }) : matmul(x, x, { transA: true });
    const polynomial = add(scale(gram, B), matmul(gram, gram, { alpha: C }));
    x = add(scale(x, A), wide ? matmul(polynomial, x) : matmul(x, polynomial));
  }
  return graph.emit({ y: x });
}

export class NewtonSchulz {
  #lanes: Lane[] = [];

  /** Loads the graphs for these shapes onto the lanes. */
  async open(lanes: Lane[], shapes: (readonly [number, number])[]): Promise<void> {
    this.#lanes = lanes;
    const distinct = new Map(shapes.map((shape) => [sessionName(shape), shape]));
    await Promise.all(
      [...distinct].flatMap(([name, [rows, columns]]) => lanes.map((lane) => lane.load(name, newtonSchulzGraph(rows, columns)))),
    );
  }

  /** Orthogonalises matrices of one shape, all in one run, on the lane of this number (modulo their count). Results are in the given order. */
  async run(shape: readonly [number, number], matrices: Float64Array[], lane: number): Promise<Float32Array[]> {
    const size = shape[0] * shape[1];
    const data = new Float32Array(matrices.length * size);
    matrices.forEach((matrix, i) => {
      let squares = 0;
      for (const x of matrix) squares += x * x;
      const factor = 1 / (Math.sqrt(squares) + TINY);
      for (let j = 0; j < size; j++) data[i * size + j] = matrix[j]! * factor;
    });
    const { y } = await this.#lanes[lane % this.#lanes.length]!.run(sessionName(shape), { x: { data, dims: [matrices.length, ...shape] } });
    return matrices.map((_, i) => y!.subarray(i * size, (i + 1) * size));
  }
}
