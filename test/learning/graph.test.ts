/** The graph compiler: what is the same is computed once, what does not matter is left out, and the emitted file says what its nodes are. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import protobuf from 'protobufjs';

import { trainingGraph } from '../../learning/gradient-lanes.ts';
import { formOf } from '../../learning/objectives.ts';
import { gradients } from '../../learning/graph/gradient.ts';
import { AxisError, Graph } from '../../learning/graph/graph.ts';
import type { Value } from '../../learning/graph/graph.ts';
import * as op from '../../learning/graph/operators.ts';
import { Lane } from '../../learning/lanes/lane.ts';

import { tinyModel } from './reference.ts';

let lane: Lane;
before(() => {
  lane = new Lane();
});
after(() => lane.close());

const graphOf = () => new Graph({ A: 'symbolic', B: 3, C: 3, A2: { sameAs: 'A' } });
const ops = (graph: Graph, outputs: Record<string, Value>) => graph.plan(outputs).nodes.map((node) => node.op);

test('common subexpressions are made once: same operands in any order where it does not matter, same views, same constants', () => {
  const graph = graphOf();
  const [x, y] = [graph.input('x', 'float32', ['A', 'B']), graph.input('y', 'float32', ['A', 'B'])];
  const half = () => op.sigmoid(op.rename(op.add(x, y), ['A2', 'B']));
  assert.equal(half(), half());
  assert.equal(op.mul(x, y), op.mul(y, x));
  assert.notEqual(op.sub(x, y), op.sub(y, x));
  assert.notEqual(op.transpose(x, [1, 0]), op.transpose(x, [0, 1]));
  assert.notEqual(op.scale(x, 2), op.scale(x, 3));
  // B and C are equally long, but a name means something.
  assert.notEqual(op.rename(x, ['A', 'B']), op.rename(x, ['A', 'C']));
  const table = () =>
    graph.constant(
      Float32Array.from({ length: 9 }, (_, i) => i),
      ['B', 'C'],
    );
  assert.equal(table(), table());
  assert.notEqual(table(), graph.constant(new Float32Array(9), ['B', 'C']));
  // Two norms of one axis need the same row of ones.
  const norms = graph.plan({ a: op.rmsNorm(x, 1e-5), b: op.rmsNorm(y, 1e-5) });
  assert.deepEqual([norms.nodes.length, norms.constants.length], [2, 1]);
});

test('an expression with shared parts has the value of the expression', async () => {
  const graph = graphOf();
  const [x, y] = [graph.input('x', 'float32', ['A', 'B']), graph.input('y', 'float32', ['A', 'B'])];
  const z = op.mul(op.add(x, y), op.sub(op.add(y, x), op.add(x, y))); // (x + y) * 0
  const w = op.mul(op.add(x, y), op.add(y, x)); // (x + y)^2
  const [dx] = gradients(op.total(w), [x]); // 2 (x + y)
  assert.equal(ops(graph, { z, w }).filter((name) => name === 'Add').length, 1);
  await lane.load('shared', graph.emit({ z, w, dx: dx! }));
  const feed = (values: number[]) => ({ data: Float32Array.from(values), dims: [2, 3] });
  const found = await lane.run('shared', { x: feed([1, 2, 3, 4, 5, 6]), y: feed([1, 0, -3, 4, -5.5, 0.25]) });
  assert.deepEqual(
    [...found['z']!],
    [0, 0, 0, 0, 0, 0].map((v, i) => [2, 2, 0, 8, -0.5, 6.25][i]! * v),
  );
  assert.deepEqual([...found['w']!], [4, 4, 0, 64, 0.25, 39.0625]);
  assert.deepEqual([...found['dx']!], [4, 4, 0, 16, -1, 12.5]);
});

test('dead nodes, constants and inputs are left out', () => {
  const graph = graphOf();
  const [x, y] = [graph.input('x', 'float32', ['A', 'B']), graph.input('y', 'float32', ['A', 'B'])];
  const kept = op.exp(x);
  op.mul(op.rmsNorm(kept, 1e-5), op.softplus(y));
  const plan = graph.plan({ kept });
  assert.deepEqual([plan.nodes.map((node) => node.op), plan.inputs.map(({ name }) => name), plan.constants], [['Exp'], ['x'], []]);
  // What only the forward value needs is not part of a graph of gradients: d sum(sigmoid x) needs no sum.
  const [dx] = gradients(op.total(op.sigmoid(x)), [x]);
  assert.ok(!ops(graph, { dx: dx! }).includes('ReduceSum'));
});

test('wrong shapes are refused when the graph is built; the operator and the axes are named', () => {
  const graph = graphOf();
  const x = graph.input('x', 'float32', ['A', 'B']);
  const z = graph.input('z', 'float32', ['A', 'C']);
  const wrong: [() => unknown, RegExp][] = [
    [() => op.add(x, z), /Add: \[A, B\] and \[A, C\] differ: 'B' is not 'C'/],
    [() => op.matmul(x, z), /matmul: \[A, B\] times \[A, C\]/],
    [() => op.reshape(x, ['B', 'A']), /reshape: \[A, B\] cannot become \[B, A\]/],
    [() => op.rename(x, ['B', 'B']), /rename: \[A, B\] cannot be called \[B, B\]/],
    [() => graph.input('w', 'float32', ['Q']), /axis 'Q' is not declared/],
    [() => graph.input('x', 'float32', ['A']), /'x' exists already/],
    [() => graph.constant(new Float32Array(2), ['B']), /constant: \[B\] holds 3 elements, not 2/],
    [() => graph.constant(new Float32Array(2), ['A']), /axis 'A' has no size before the run/],
    [() => gradients(x, [x]), /the loss must have no axes, not \[A, B\]/],
    [() => gradients(op.total(x), [z]), /the loss does not depend on 'z' \[A, C\]/],
  ];
  for (const [build, message] of wrong) {
    assert.throws(build, (error) => error instanceof AxisError && message.test(error.message), String(message));
  }
});

/** The fields of onnx.proto that are looked at, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto */
const ONNX = `
  syntax = "proto2";
  message Dimension { optional int64 dim_value = 1; optional string dim_param = 2; }
  message Shape { repeated Dimension dim = 1; }
  message TensorType { optional int32 elem_type = 1; optional Shape shape = 2; }
  message Type { optional TensorType tensor_type = 1; }
  message ValueInfo { optional string name = 1; optional Type type = 2; }
  message Node { repeated string input = 1; repeated string output = 2; optional string name = 3; optional string op_type = 4; optional string domain = 7; }
  message Tensor { repeated int64 dims = 1; optional string name = 8; }
  message GraphProto { repeated Node node = 1; optional string name = 2; repeated Tensor initializer = 5;
    repeated ValueInfo input = 11; repeated ValueInfo output = 12; repeated ValueInfo value_info = 13; }
  message Model { optional int64 ir_version = 1; optional GraphProto graph = 7; }`;

test('the emitted file is well formed and readable: nodes say where they belong, tensors carry their axes', () => {
  interface Info {
    name: string;
    type: { tensorType: { shape?: { dim?: { dimParam?: string; dimValue?: number }[] } } };
  }
  const { graph } = protobuf
    .parse(ONNX)
    .root.lookupType('Model')
    .decode(trainingGraph(tinyModel(1).config, formOf({ objective: 'crossEntropy' })).model)
    .toJSON() as {
    graph: Record<'node', { name: string; opType: string; input?: string[]; output: string[] }[]> &
      Record<'initializer', { name: string }[]> &
      Record<'input' | 'output' | 'valueInfo', Info[]>;
  };
  const names = graph.node.map(({ name }) => name);
  assert.equal(new Set(names).size, names.length);
  for (const section of ['embed_tokens', 'layers.0.self_attn', 'layers.1.mlp', 'norm', 'head', 'gradient of layers.1.mlp'])
    assert.ok(
      names.some((name) => name.startsWith(`${section}/`)),
      section,
    );
  // Every tensor is made once, before it is used.
  const made = new Set([...graph.input, ...graph.initializer].map(({ name }) => name));
  for (const { name, input = [], output } of graph.node) {
    for (const one of input) assert.ok(made.has(one), `${name} reads ${one}, which nobody has made`);
    for (const one of output) {
      assert.ok(!made.has(one), `${one} is made twice`);
      made.add(one);
    }
  }
  const dims = new Map(
    [...graph.valueInfo, ...graph.output].map(({ name, type }) => [
      name,
      type.tensorType.shape?.dim?.map((d) => d.dimParam ?? Number(d.dimValue)) ?? [],
    ]),
  );
  assert.deepEqual(dims.get('d model.layers.0.mlp.up_proj.weight'), [8, 12]);
  assert.deepEqual(dims.get(graph.node.find(({ opType }) => opType === 'QuickGelu')!.output[0]!), ['T*R', 12]);
  for (const name of made)
    if (!graph.input.some((one) => one.name === name) && !graph.initializer.some((one) => one.name === name))
      assert.ok(dims.has(name), name);
});
