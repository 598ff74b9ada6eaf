/**
 * Numbers that the lanes of one trainer share, and the arithmetic on them that a step does once for all weights, outside its graphs: WebAssembly
 * (`arithmetic.wat`) on WebAssembly's memory, because it is bound by memory and by vector units, of which JavaScript uses neither well: AdamW takes a third
 * of the time (`bench/optimizer.ts`). Additions and products are float32, as in PyTorch. Everything else of a thread sees the same numbers as typed arrays.
 */
import { readFileSync } from 'node:fs';
import { RatchetError } from '../../core/errors.ts';
import type { Tensor } from '../types.ts';
import type { FoldOrder, Unfolding } from './folding.ts';

/** What of WebAssembly's interface is used; TypeScript has it only together with a browser's. */
interface SharedMemory {
  readonly buffer: SharedArrayBuffer;
  grow(pages: bigint): bigint;
}
declare const WebAssembly: {
  Memory: new (descriptor: { initial: bigint; maximum: bigint; address: 'i64'; shared: true }) => SharedMemory;
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object, imports: { lanes: { memory: SharedMemory } }) => { exports: Functions };
};
interface Functions {
  sum(sum: bigint, size: bigint, first: bigint, stride: bigint, count: number, begins: number): void;
  squares(at: bigint, size: bigint): number;
  adamw(...numbers: [p: bigint, size: bigint, m: bigint, v: bigint, g: bigint, ...scalars: number[]]): void;
  foldTiles(w: bigint, to: bigint, gain: bigint, factor: number, rows: bigint, columns: bigint): void;
  unfoldTiles(
    ...numbers: [...addresses: [bigint, bigint, bigint, bigint, bigint], factor: number, rows: bigint, columns: bigint, adds: number]
  ): void;
}

const PAGE = 65_536;
/** What V8 allows a memory: 16 GiB. */
const MOST_PAGES = 262_144;
/** Asked for at a time. Pages that nobody touches cost nothing, and every growth makes another object of the memory. */
const GROWTH = 1024;
/** Arrays begin at multiples of a line of a core's cache, and own what is left of their last one. */
const LINE = 64;
/** Numbers in a line. */
export const LINE_NUMBERS = LINE / Float32Array.BYTES_PER_ELEMENT;
/** Numbers in a vector, and on a side of a tile. */
const VECTOR = 4;

const bytesOf = (data: Float32Array) => BigInt(Math.ceil(data.byteLength / LINE) * LINE);
/** 0 stands for no array: the first line of a memory is nobody's. */
const address = (data: Float32Array | Float64Array | undefined) => BigInt(data?.byteOffset ?? 0);

/** By the whole process, when a first memory is made. */
let compiled: Promise<object> | undefined;
async function compile(): Promise<object> {
  const { default: wabt } = await import('wabt');
  const features = { simd: true, threads: true, memory64: true };
  const source = (await wabt()).parseWat('arithmetic.wat', readFileSync(new URL('arithmetic.wat', import.meta.url), 'utf8'), features);
  try {
    return new WebAssembly.Module(source.toBinary({}).buffer);
  } finally {
    source.destroy();
  }
}

/** What a lane is sent to take part. */
export interface SharedArithmetic {
  module: object;
  memory: object;
}

/** Arrays of one length that follow each other at equal distances, in bytes. */
export interface Row {
  first: Float32Array;
  stride: number;
  count: number;
}

/** AdamW on a stretch of one parameter: arrays of one length. The first three are changed. */
export interface AdamwPart {
  parameter: Float32Array;
  firstMoment: Float32Array;
  secondMoment: Float32Array;
  gradient: Float32Array;
  /** 1 - rate * weight decay. */
  decay: number;
}

export interface AdamwNumbers {
  beta1: number;
  beta2: number;
  epsilon: number;
  /** Multiplies every gradient (clipping). */
  gradientScale: number;
  /** Learning rate over the first bias correction, 1 - beta1^t. */
  stepSize: number;
  /** Root of the second bias correction, 1 - beta2^t. */
  rootCorrection: number;
}

/** The arithmetic on one memory, in one thread. All arrays must come from that memory's `floats` and `doubles`, or be stretches of such that begin at a line. */
export class Arithmetic {
  readonly #functions: Functions;

  constructor({ module, memory }: SharedArithmetic) {
    this.#functions = new WebAssembly.Instance(module, { lanes: { memory: memory as SharedMemory } }).exports;
  }

  /** sum = (begins ? 0 : sum) + `count` arrays of a row in their order, from array `from` on; the row's first is `first`, and each is `stride` bytes behind the one before. */
  sum(sum: Float32Array, { first, stride }: Row, from: number, count: number, begins: boolean): void {
    this.#functions.sum(address(sum), bytesOf(sum), address(first) + BigInt(from * stride), BigInt(stride), count, begins ? 1 : 0);
  }

  /** The sum of the squares, added up in float64. */
  squares(data: Float32Array): number {
    return this.#functions.squares(address(data), bytesOf(data));
  }

  /** arXiv 1711.05101, Algorithm 2. */
  adamw(parts: readonly AdamwPart[], numbers: AdamwNumbers): void {
    const { beta1, beta2, gradientScale } = numbers;
    // stepSize * first / (root / rootCorrection + epsilon), with one division fewer.
    const stepSize = numbers.stepSize * numbers.rootCorrection;
    const epsilon = numbers.epsilon * numbers.rootCorrection;
    for (const { parameter, firstMoment, secondMoment, gradient, decay } of parts) {
      const [p, m, v, g] = [address(parameter), address(firstMoment), address(secondMoment), address(gradient)];
      const averages = [beta1, 1 - beta1, beta2, 1 - beta2];
      this.#functions.adamw(p, bytesOf(parameter), m, v, g, gradientScale, ...averages, decay, stepSize, epsilon);
    }
  }

  /** Whether a matrix of this shape can be transposed here: only whole tiles can. */
  static hasTiles = (rows: number, columns: number): boolean => rows % VECTOR === 0 && columns % VECTOR === 0;

  /** matrix [I, O] = the transpose of factor * weight [O, I] * diag(gain). */
  foldTiles({ weight, matrix, gain, factor, inputs }: FoldOrder): void {
    const outputs = weight.length / inputs;
    this.#functions.foldTiles(address(weight), address(matrix), address(gain), factor, BigInt(outputs), BigInt(inputs));
  }

  /**
   * The way back from sum [I, O]: into [O, I] = (adds ? into : 0) + factor * sum^T diag(gain), and what the gain gets by it, factor * the columns' sums of
   * sum^T * weight, is added to `gainGradient`.
   */
  unfoldTiles(sum: Float32Array, { weight, into, gain, gainGradient, factor, inputs, adds }: Unfolding): void {
    const addresses = [sum, weight, into, gain, gain && gainGradient].map(address) as [bigint, bigint, bigint, bigint, bigint];
    this.#functions.unfoldTiles(...addresses, factor, BigInt(sum.length / inputs), BigInt(inputs), adds ? 1 : 0);
  }
}

/** Memory for one trainer and its lanes, which grows as arrays are asked for. It is freed as a whole, when nobody has any of them. */
export class LaneMemory {
  /** For lanes: `new Arithmetic(shared)`. */
  readonly shared: SharedArithmetic;
  /** The arithmetic in this thread. */
  readonly arithmetic: Arithmetic;
  readonly #memory: SharedMemory;
  /** All objects that have stood for the memory: every growth makes another one, also that of another memory of this thread. */
  readonly #buffers = new WeakSet<ArrayBufferLike>();
  /**
   * As many bytes again that nobody touches, so that they cost nothing: V8's collector counts these but not WebAssembly's memory, and without them would let
   * the memories of one closed trainer after another lie (`test/learning/arithmetic.test.ts`).
   */
  readonly #counted: ArrayBuffer[] = [];
  #used = LINE;

  private constructor(module: object) {
    try {
      this.#memory = new WebAssembly.Memory({ initial: 1n, maximum: BigInt(MOST_PAGES), address: 'i64', shared: true });
    } catch (error) {
      const text = `no room for ${MOST_PAGES * PAGE} addresses, of which a trainer uses what it needs (a bound on virtual memory, as of ulimit -v?)`;
      throw new RatchetError('OutOfMemory', text, { cause: error });
    }
    this.shared = { module, memory: this.#memory };
    this.arithmetic = new Arithmetic(this.shared);
  }

  /** Throws OutOfMemory where the system bounds addresses. */
  static async create(): Promise<LaneMemory> {
    compiled ??= compile();
    return new LaneMemory(await compiled);
  }

  #take(bytes: number): number {
    const at = this.#used;
    const end = at + Math.ceil(bytes / LINE) * LINE;
    const pages = this.#memory.buffer.byteLength / PAGE;
    const missing = Math.ceil(end / PAGE) - pages;
    if (missing > 0) {
      const more = Math.max(missing, Math.min(GROWTH, MOST_PAGES - pages));
      try {
        this.#memory.grow(BigInt(more));
      } catch (error) {
        const text = `a trainer's memory of ${end} bytes cannot be had: at most ${MOST_PAGES * PAGE}, and what the system gives`;
        throw new RatchetError('OutOfMemory', text, { cause: error });
      }
      this.#counted.push(new ArrayBuffer(more * PAGE));
    }
    this.#used = end;
    return at;
  }

  #buffer(): SharedArrayBuffer {
    const { buffer } = this.#memory;
    this.#buffers.add(buffer);
    return buffer;
  }

  /** Bytes that can still be asked for, if the system gives them. */
  get room(): number {
    return MOST_PAGES * PAGE - this.#used;
  }

  /** Numbers, all 0. Throws OutOfMemory. */
  floats(length: number): Float32Array {
    const at = this.#take(length * Float32Array.BYTES_PER_ELEMENT);
    return new Float32Array(this.#buffer(), at, length);
  }

  doubles(length: number): Float64Array {
    const at = this.#take(length * Float64Array.BYTES_PER_ELEMENT);
    return new Float64Array(this.#buffer(), at, length);
  }

  /** A row of arrays, all 0, and each of them. */
  row(length: number, count: number): { row: Row; arrays: Float32Array[] } {
    const distance = Math.ceil(length / LINE_NUMBERS) * LINE_NUMBERS;
    const all = this.floats(distance * count);
    const arrays = Array.from({ length: count }, (_, i) => all.subarray(i * distance, i * distance + length));
    return { row: { first: arrays[0]!, stride: distance * Float32Array.BYTES_PER_ELEMENT, count }, arrays };
  }

  /** The array, which must be in this memory: the arithmetic knows arrays by their places alone. */
  owned(data: Float32Array): Float32Array {
    if (!this.#buffers.has(data.buffer)) throw new Error('an array for the arithmetic of lanes is not in their memory');
    return data;
  }

  /** Copies of tensors. */
  copies(tensors: ReadonlyMap<string, Tensor>): Map<string, Tensor> {
    const copy = ({ shape, data }: Tensor): Tensor => {
      const own = this.floats(data.length);
      own.set(data);
      return { shape: [...shape], data: own };
    };
    return new Map([...tensors].map(([name, tensor]) => [name, copy(tensor)]));
  }
}

/** Cuts a list of parts into `count` lists of about as many numbers, at lines; nothing is copied. */
export function shares(parts: readonly AdamwPart[], count: number): AdamwPart[][] {
  const total = parts.reduce((sum, { parameter }) => sum + parameter.length, 0);
  const out: AdamwPart[][] = Array.from({ length: count }, () => []);
  let before = 0;
  for (const part of parts) {
    const { length } = part.parameter;
    const cut = (share: number) => {
      const at = (total * share) / count - before;
      return Math.min(length, Math.max(0, Math.round(at / LINE_NUMBERS) * LINE_NUMBERS));
    };
    out.forEach((list, share) => {
      const [from, to] = [cut(share), share === count - 1 ? length : cut(share + 1)];
      const stretch = (data: Float32Array) => data.subarray(from, to);
      if (from < to)
        list.push({
          parameter: stretch(part.parameter),
          firstMoment: stretch(part.firstMoment),
          secondMoment: stretch(part.secondMoment),
          gradient: stretch(part.gradient),
          decay: part.decay,
        });
    });
    before += length;
  }
  return out;
}
