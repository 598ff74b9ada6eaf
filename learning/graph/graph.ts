/**
 * A small tensor language that becomes ONNX. Every axis has a name ('T', 'D', products like 'T*R', or a plain number), shapes are checked when the
 * graph is built, and a mistake is an AxisError that names the operator and the axes. It computes nothing; operators live in `operators.ts`.
 */
import { sha256 } from '../../core/digest.ts';
import { currentProvider } from '../providers.ts';
import { lower } from './lowering.ts';
import { encodeOnnx } from './onnx.ts';
import type { Attribute, ElementType, OnnxGraph, OnnxNode, OnnxTensor } from './onnx.ts';

export class AxisError extends Error {
  constructor(op: string, message: string) {
    super(`${op}: ${message}`);
    this.name = 'AxisError';
  }
}

/** A tensor in a graph. `axes` are its dimensions from the outermost in; '1' is an axis of size one. */
export interface Value {
  readonly graph: Graph;
  readonly id: number;
  readonly type: ElementType;
  readonly axes: readonly string[];
  readonly node: Node | undefined;
  /** The name in the ONNX model; an alias bears the name of what it stands for. */
  readonly name: string;
}

/** From the gradients of a node's outputs (undefined: the output does not matter) to those of its inputs (undefined: none flows there). */
export type Backward = (gradients: (Value | undefined)[]) => (Value | undefined)[];

export interface Node {
  readonly op: string;
  /** Where in the model it belongs and what it is, e.g. `layers.0.mlp/FusedMatMul.2`; unique. */
  readonly name: string;
  /** The part of the name before the slash. */
  readonly section: string;
  readonly inputs: readonly Value[];
  readonly outputs: Value[];
  readonly attributes: Record<string, Attribute>;
  readonly domain: string;
  readonly backward: Backward | undefined;
  /** Set on nodes that compute nothing of their own: the value that the output stands for. */
  readonly aliasOf: Value | undefined;
}

export interface NodeSpec {
  outputs: { axes: readonly string[]; type?: ElementType }[];
  attributes?: Record<string, Attribute>;
  domain?: 'com.microsoft' | '';
  backward?: Backward;
}

export const showAxes = (axes: readonly string[]) => `[${axes.join(', ')}]`;

/** Operators whose operands may change places without changing a bit. */
const COMMUTATIVE = ['Add', 'Mul'];
/** Constants up to this many elements are compared by content: everything but weights. */
const COMPARED = 2 ** 16;

export class Graph {
  /** Names of nodes made from now on begin with this, so that a reader of the emitted graph finds its way. Changes no result. */
  section = 'graph';
  #named = new Map<string, number>();
  #sizes = new Map<string, number | 'symbolic'>();
  #values = 0;
  #nodes: Node[] = [];
  #inputs: Value[] = [];
  #constants: { value: Value; tensor: OnnxTensor }[] = [];
  #seen = new Map<string, Node>();
  #constantsSeen = new Map<string, Value>();

  #twins = new Map<string, string>();

  /** `sizes` declares every base axis: its size, 'symbolic' where only the run decides, or another axis that is always as long. */
  constructor(sizes: Record<string, number | 'symbolic' | { sameAs: string }>) {
    for (const [axis, size] of Object.entries(sizes)) {
      if (!/^[A-Za-z]\w*$/.test(axis)) throw new AxisError('Graph', `'${axis}' is no name of an axis`);
      if (typeof size !== 'object') this.#sizes.set(axis, size);
      else this.#twins.set(axis, size.sameAs);
    }
    for (const [axis, twin] of this.#twins) {
      const size = this.#sizes.get(twin);
      if (size === undefined) throw new AxisError('Graph', `axis '${axis}' is as long as '${twin}', which is not declared`);
      this.#sizes.set(axis, size);
    }
  }

  /** Whether two axes have the same number of elements in every run. */
  sameSize(a: string, b: string): boolean {
    const plain = (axis: string) =>
      this.factors(axis)
        .map((factor) => this.#twins.get(factor) ?? factor)
        .sort()
        .join('*');
    return plain(a) === plain(b) || (this.size(a) !== 'symbolic' && this.size(a) === this.size(b));
  }

  /** The base axes of an axis: 'T*R' gives T and R; '1' gives none. */
  factors(axis: string): string[] {
    const factors = axis.split('*').filter((factor) => factor !== '1');
    for (const factor of factors) {
      if (!this.#sizes.has(factor) && !/^\d+$/.test(factor)) throw new AxisError('Graph', `axis '${factor}' is not declared`);
    }
    return factors;
  }

  /** The size of an axis, or 'symbolic'. */
  size(axis: string): number | 'symbolic' {
    let product = 1;
    for (const factor of this.factors(axis)) {
      const size = this.#sizes.get(factor) ?? Number(factor);
      if (size === 'symbolic') return 'symbolic';
      product *= size;
    }
    return product;
  }

  #value(type: ElementType, axes: readonly string[], node: Node | undefined, name: string): Value {
    return { graph: this, id: this.#values++, type, axes, node, name };
  }

  #name(what: string): string {
    const label = `${this.section}/${what}`;
    const count = (this.#named.get(label) ?? 0) + 1;
    this.#named.set(label, count);
    return count === 1 ? label : `${label}.${count}`;
  }

  /** A tensor that every run is fed. */
  input(name: string, type: ElementType, axes: readonly string[]): Value {
    for (const axis of axes) this.size(axis);
    if (this.#inputs.some((other) => other.name === name)) throw new AxisError('input', `'${name}' exists already`);
    const value = this.#value(type, axes, undefined, name);
    this.#inputs.push(value);
    return value;
  }

  /** A tensor that is part of the model. */
  constant(data: Float32Array | BigInt64Array, axes: readonly string[]): Value {
    const dims = axes.map((axis) => this.#fixed('constant', axis));
    const count = dims.reduce((a, b) => a * b, 1);
    if (count !== data.length) throw new AxisError('constant', `${showAxes(axes)} holds ${count} elements, not ${data.length}`);
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const key = data.length <= COMPARED ? `${data.constructor.name} ${axes.join()} ${sha256(bytes)}` : undefined;
    const known = key === undefined ? undefined : this.#constantsSeen.get(key);
    if (known) return known;
    const value = this.#value(data instanceof Float32Array ? 'float32' : 'int64', axes, undefined, this.#name('constant'));
    this.#constants.push({ value, tensor: { name: value.name, dims, data } });
    if (key !== undefined) this.#constantsSeen.set(key, value);
    return value;
  }

  scalar(x: number): Value {
    return this.constant(Float32Array.of(x), []);
  }

  /** A constant list of integers, as ONNX wants for axes and shapes. */
  integers(list: number[]): Value {
    return this.constant(BigInt64Array.from(list, BigInt), [String(list.length)]);
  }

  #fixed(op: string, axis: string): number {
    const size = this.size(axis);
    if (size === 'symbolic') throw new AxisError(op, `axis '${axis}' has no size before the run`);
    return size;
  }

  #make(op: string, inputs: readonly Value[], rest: Omit<Node, 'op' | 'inputs' | 'outputs' | 'name' | 'section'>): Node {
    const node: Node = { op, name: this.#name(op), section: this.section, inputs, outputs: [], ...rest };
    this.#nodes.push(node);
    return node;
  }

  /** Adds an operator; the same operator on the same inputs is made only once (common subexpressions). */
  node(op: string, inputs: Value[], spec: NodeSpec): Value[] {
    const { attributes = {}, domain = '', backward, outputs } = spec;
    const ids = inputs.map((value) => value.id);
    if (COMMUTATIVE.includes(op) && !domain) ids.sort((a, b) => a - b);
    const key = JSON.stringify([op, domain, ids, attributes, outputs]);
    const known = this.#seen.get(key);
    if (known) return known.outputs;
    for (const axis of outputs.flatMap(({ axes }) => axes)) this.size(axis);
    const node = this.#make(op, inputs, { attributes, domain, backward, aliasOf: undefined });
    outputs.forEach(({ axes, type = 'float32' }, i) =>
      node.outputs.push(this.#value(type, axes, node, i ? `${node.name}:${i}` : node.name)),
    );
    this.#seen.set(key, node);
    return node.outputs;
  }

  /**
   * Another view of `value`: the same numbers under other axis names, or (with `inputs`) as the result of a composite operator whose gradient
   * is given as a whole, so that differentiation does not look inside. `op` and `value` must decide what the gradient is.
   */
  alias(op: string, value: Value, axes: readonly string[], inputs: Value[], backward: Backward): Value {
    const key = JSON.stringify(['alias', op, value.id, axes, inputs.map(({ id }) => id)]);
    const known = this.#seen.get(key);
    if (known) return known.outputs[0]!;
    const node = this.#make(op, inputs, { attributes: {}, domain: '', backward, aliasOf: value });
    node.outputs.push(this.#value(value.type, axes, node, value.name));
    this.#seen.set(key, node);
    return node.outputs[0]!;
  }

  /** The sizes of axes as an int64 list, computed in the run where they are symbolic. `like` gives places where an axis can be copied (0 in ONNX Reshape). */
  shape(axes: readonly string[], like: readonly string[] = []): Value {
    const entries = axes.map((axis, i) => (this.size(axis) === 'symbolic' && like[i] === axis ? 0 : this.size(axis)));
    const open = entries.flatMap((entry, i) => (entry === 'symbolic' ? [i] : []));
    if (open.length === 1 && like.length > 0) entries[open[0]!] = -1;
    if (entries.every((entry) => entry !== 'symbolic')) return this.integers(entries as number[]);
    const parts = axes.map((axis, i) => (entries[i] === 'symbolic' ? this.#runtimeSize(axis) : this.integers([entries[i] as number])));
    if (parts.length === 1) return parts[0]!;
    return this.node('Concat', parts, { outputs: [{ axes: [String(parts.length)], type: 'int64' }], attributes: { axis: 0 } })[0]!;
  }

  #runtimeSize(axis: string): Value {
    const parts = this.factors(axis).map((factor) => {
      const size = this.#sizes.get(factor) ?? Number(factor);
      if (size !== 'symbolic') return this.integers([size]);
      for (const input of this.#inputs) {
        const at = input.axes.findIndex((axis) => axis === factor || axis === this.#twins.get(factor));
        if (at >= 0)
          return this.node('Shape', [input], { outputs: [{ axes: ['1'], type: 'int64' }], attributes: { start: at, end: at + 1 } })[0]!;
      }
      throw new AxisError('shape', `axis '${factor}' is symbolic and is no axis of an input`);
    });
    return parts.reduce((a, b) => this.node('Mul', [a, b], { outputs: [{ axes: ['1'], type: 'int64' }] })[0]!);
  }

  /** The ONNX model that computes `outputs` from the inputs. */
  emit(outputs: Record<string, Value>): Uint8Array {
    return encodeOnnx(this.plan(outputs));
  }

  /**
   * What `emit` writes, for this process's execution provider: the nodes, constants and inputs that matter to the outputs; dead ones are left out.
   */
  plan(outputs: Record<string, Value>): OnnxGraph {
    const alive = new Set<Value>();
    const visit = (value: Value) => {
      for (let v: Value | undefined = value; v && !alive.has(v); v = v.node?.aliasOf) {
        alive.add(v);
        if (v.node && !v.node.aliasOf) v.node.inputs.forEach(visit);
      }
    };
    Object.values(outputs).forEach(visit);
    const port = (value: Value, name: string) => ({
      name,
      type: value.type,
      dims: value.axes.map((axis) => {
        const size = this.size(axis);
        return size === 'symbolic' ? axis : size;
      }),
    });
    // What a node makes bears the output's name at once; anything else (an input, a value that is two outputs) is copied to it.
    const made = new Set(this.#nodes.flatMap((node) => (node.aliasOf ? [] : node.outputs.map((value) => value.name))));
    const renamed = new Map<string, string>();
    const nameOf = (value: Value) => renamed.get(value.name) ?? value.name;
    const copies: OnnxNode[] = [];
    for (const [name, value] of Object.entries(outputs)) {
      if (made.has(value.name) && !renamed.has(value.name)) renamed.set(value.name, name);
      else copies.push({ name, op: 'Identity', domain: '', inputs: [nameOf(value)], outputs: [name], attributes: {} });
    }
    const kept = this.#nodes.filter((node) => !node.aliasOf && node.outputs.some((value) => alive.has(value)));
    const nodes = kept.map((node): OnnxNode => ({ ...node, inputs: node.inputs.map(nameOf), outputs: node.outputs.map(nameOf) }));
    const ranks = new Map(kept.flatMap((node) => node.inputs.map((value) => [nameOf(value), value.axes.length])));
    const lowered = lower([...nodes, ...copies], (name) => ranks.get(name)!, currentProvider().name);
    return {
      nodes: lowered.nodes,
      values: kept.flatMap((node) => node.outputs).flatMap((value) => (renamed.has(value.name) ? [] : [port(value, value.name)])),
      constants: [...this.#constants.filter(({ value }) => alive.has(value)).map(({ tensor }) => tensor), ...lowered.constants],
      inputs: this.#inputs.filter((value) => alive.has(value)).map((value) => port(value, value.name)),
      outputs: Object.entries(outputs).map(([name, value]) => port(value, name)),
    };
  }
}
