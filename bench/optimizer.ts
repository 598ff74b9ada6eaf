/**
 * Where AdamW belongs: the optimizer as it is (WebAssembly on a lane, over weights in place) against the same arithmetic in plain loops, and as an ONNX graph on
 * a lane, whose new weights and moments are outputs. CPU time of the whole process per step, in turns: `node bench/optimizer.ts [million parameters]`.
 */
import { Graph } from '../learning/graph/graph.ts';
import type { Value } from '../learning/graph/graph.ts';
import { add, mul, sub } from '../learning/graph/operators.ts';
import { LaneMemory } from '../learning/lanes/arithmetic.ts';
import { Lane } from '../learning/lanes/lane.ts';
import type { Feed } from '../learning/lanes/lane.ts';
import { NewtonSchulz } from '../learning/newton-schulz.ts';
import { Optimizer } from '../learning/optimizer.ts';
import type { Tensor } from '../learning/types.ts';
import { cpuSeconds } from './cpu-time.ts';

const ROUNDS = 7;
const STEPS = 3;
const WIDTH = 1024;
const OPTIONS = { kind: 'adamw', beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 } as const;
const RATE = 1e-3;

const millions = Number(process.argv[2] ?? 6);
// Sixteen matrices, about as many as a small model has large ones.
const rows = Math.round((millions * 1e6) / 16 / WIDTH);
const names = Array.from({ length: 16 }, (_, i) => `matrix${i}`);
const noise = (scale: number) => Float32Array.from({ length: rows * WIDTH }, (_, i) => scale * Math.sin(i * i));

// In memory that the lanes share, as a trainer keeps them.
const memory = await LaneMemory.create();
const tensors = (scale: number) =>
  memory.copies(new Map<string, Tensor>(names.map((name) => [name, { shape: [rows, WIDTH], data: noise(scale) }])));
const parameters = tensors(0.1);
const gradients = new Map([...tensors(0.01)].map(([name, { data }]) => [name, data]));
const optimizer = new Optimizer(OPTIONS, parameters, new NewtonSchulz(), memory);

/** The same step as a graph. The corrections for the bias of the moments are numbers that the host folds into rate and epsilon. */
function adamwGraph(): Uint8Array {
  const graph = new Graph({ O: rows, I: WIDTH });
  const scalar = (name: string) => graph.input(name, 'float32', []);
  const [rate, epsilon, decay] = [scalar('rate'), scalar('epsilon'), scalar('decay')];
  const blend = (a: Value, b: Value, beta: number) => add(mul(a, graph.scalar(beta)), mul(b, graph.scalar(1 - beta)));
  const outputs: Record<string, Value> = {};
  for (const name of names) {
    const [p, g, m, v] = ['p', 'g', 'm', 'v'].map((part) => graph.input(`${part} ${name}`, 'float32', ['O', 'I'])) as [
      Value,
      Value,
      Value,
      Value,
    ];
    const first = blend(m, g, OPTIONS.beta1);
    const second = blend(v, mul(g, g), OPTIONS.beta2);
    const axes = { outputs: [{ axes: ['O', 'I'] }] };
    const root = graph.node('Sqrt', [second], axes)[0]!;
    const step = graph.node('Div', [first, add(root, epsilon)], axes)[0]!;
    Object.assign(outputs, { [`new p ${name}`]: sub(mul(p, decay), mul(step, rate)), [`new m ${name}`]: first, [`new v ${name}`]: second });
  }
  return graph.emit(outputs);
}

const shared: Record<string, Feed> = {};
const dims = [rows, WIDTH];
for (const name of names)
  for (const part of ['p', 'g', 'm', 'v']) {
    const data = new Float32Array(new SharedArrayBuffer(4 * rows * WIDTH));
    if (part === 'p') data.set(noise(0.1));
    if (part === 'g') data.set(noise(0.01));
    shared[`${part} ${name}`] = { data, dims };
  }
const lane = new Lane();
await lane.share(memory);
optimizer.open([lane]);
await lane.load('adamw', adamwGraph(), shared);
let taken = 0;
async function graphStep(): Promise<void> {
  taken++;
  const correction = Math.sqrt(1 - OPTIONS.beta2 ** taken);
  const number = (value: number): Feed => ({ data: Float32Array.of(value), dims: [] });
  const feeds = {
    rate: number((RATE * correction) / (1 - OPTIONS.beta1 ** taken)),
    epsilon: number(OPTIONS.epsilon * correction),
    decay: number(1 - RATE * OPTIONS.weightDecay),
  };
  const out = await lane.run('adamw', feeds);
  for (const [name, { data }] of Object.entries(shared)) if (!name.startsWith('g ')) (data as Float32Array).set(out[`new ${name}`]!);
}

/** The same step in this thread, one number after the other. */
const looped = names.map(() => ({ p: noise(0.1), m: new Float32Array(rows * WIDTH), v: new Float32Array(rows * WIDTH), g: noise(0.01) }));
let loopSteps = 0;
async function loopStep(): Promise<void> {
  loopSteps++;
  const { beta1, beta2, weightDecay } = OPTIONS;
  const correction = Math.sqrt(1 - beta2 ** loopSteps);
  const [size, epsilon, decay] = [(RATE * correction) / (1 - beta1 ** loopSteps), OPTIONS.epsilon * correction, 1 - RATE * weightDecay];
  for (const { p, m, v, g } of looped)
    for (let i = 0; i < p.length; i++) {
      const d = g[i]!;
      const first = beta1 * m[i]! + (1 - beta1) * d;
      const second = beta2 * v[i]! + (1 - beta2) * d * d;
      m[i] = first;
      v[i] = second;
      p[i] = p[i]! * decay - (size * first) / (Math.sqrt(second) + epsilon);
    }
}

async function cpuMs(step: () => Promise<void>): Promise<number> {
  const before = cpuSeconds();
  for (let i = 0; i < STEPS; i++) await step();
  return (1000 * (cpuSeconds() - before)) / STEPS;
}
const contestants = { lanes: () => optimizer.step(gradients, 1, { learningRate: RATE }), loops: loopStep, graph: graphStep };
type Name = keyof typeof contestants;
const times: Record<Name, number>[] = [];
for (let round = 0; round < ROUNDS; round++) {
  const taken: Partial<Record<Name, number>> = {};
  for (const [name, step] of Object.entries(contestants)) taken[name as Name] = await cpuMs(step);
  times.push(taken as Record<Name, number>);
}
let difference = 0;
for (const [k, name] of names.entries()) {
  const a = parameters.get(name)!.data;
  for (const b of [shared[`p ${name}`]!.data as Float32Array, looped[k]!.p])
    for (let i = 0; i < a.length; i++) difference = Math.max(difference, Math.abs(a[i]! - b[i]!));
}
const median = (list: number[]) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)]!;
console.log(`${(16 * rows * WIDTH) / 1e6} M parameters, ms of CPU a step:`);
for (const name of Object.keys(contestants) as Name[]) {
  const ratio = median(times.map((time) => time[name] / time.lanes));
  console.log(`${name.padEnd(5)} ${median(times.map((time) => time[name])).toFixed(1)}, ${ratio.toFixed(2)} times that of the lanes`);
}
console.log(`largest difference of a weight after ${ROUNDS * STEPS} steps: ${difference}`);
await lane.close();
