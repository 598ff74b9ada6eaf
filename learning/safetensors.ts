/**
 * The safetensors format (https://github.com/huggingface/safetensors#format): an 8-byte little-endian length, a JSON header, the raw numbers. Read and
 * written piece by piece, so that a model is never in memory twice. F32, F16 and BF16 are read as float32; F32 and BF16 are written. Every other
 * thing that can be wrong with a file is a BadInput that names the tensor.
 */
import { RatchetError, badInput } from '../core/errors.ts';
import type { Tensor } from './types.ts';

/** The format's own bound on the header. */
const MAX_HEADER_BYTES = 100_000_000;
/** Numbers converted at a time when storing in another type: 1 MiB of float32. */
const PIECE = 2 ** 18;

export type StorageType = 'F32' | 'BF16';
const BYTES = { F32: 4, F16: 2, BF16: 2 } as const;
type ReadableType = keyof typeof BYTES;

export interface StoredTensor {
  name: string;
  dtype: ReadableType;
  shape: number[];
  /** First byte, and the one after the last, in the part behind the header. */
  begin: number;
  end: number;
}

const wrong = (message: string) => new RatchetError('BadInput', `safetensors: ${message}`);
const sizeOf = (shape: number[]) => shape.reduce((a, b) => a * b, 1);

// --- writing ---------------------------------------------------------------------------------------------------------------------------------------

/** The bytes of a file, in pieces. Tensors are in alphabetical order, so that equal tensors give equal bytes. `metadata` stands in the header. */
export function* safetensorsPieces(
  tensors: ReadonlyMap<string, Tensor>,
  { metadata = { format: 'pt' }, dtype = 'F32' }: { metadata?: Record<string, string>; dtype?: StorageType } = {},
): Generator<Uint8Array, void, void> {
  const names = [...tensors.keys()].sort();
  const header = Object.create(null) as Record<string, unknown>; // without prototype: any name may be a tensor's
  header['__metadata__'] = metadata;
  let offset = 0;
  for (const name of names) {
    const { shape, data } = tensors.get(name)!;
    if (sizeOf(shape) !== data.length) throw wrong(`tensor '${name}' of shape [${shape.join()}] cannot hold ${data.length} numbers`);
    header[name] = { dtype, shape, data_offsets: [offset, (offset += data.length * BYTES[dtype])] };
  }
  let text = JSON.stringify(header);
  text += ' '.repeat((8 - (Buffer.byteLength(text) % 8)) % 8); // so that the numbers start at a multiple of 8
  const json = new TextEncoder().encode(text);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(json.length), true);
  yield length;
  yield json;
  for (const name of names) {
    const { data } = tensors.get(name)!;
    if (dtype === 'F32') yield new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    else for (let at = 0; at < data.length; at += PIECE) yield bfloat16(name, data.subarray(at, at + PIECE));
  }
}

/** The nearest bfloat16 numbers, ties to even. */
function bfloat16(name: string, data: Float32Array): Uint8Array {
  const bits = new Uint32Array(data.slice().buffer);
  const out = new Uint16Array(data.length);
  for (let i = 0; i < out.length; i++) {
    const word = bits[i]!;
    const rounded = (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
    if ((rounded & 0x7f80) === 0x7f80) throw badInput(`tensor '${name}'`, data[i], 'numbers below 3.39e38 fit into bfloat16');
    out[i] = rounded;
  }
  return new Uint8Array(out.buffer);
}

/** The bytes of a file at once, F32. */
export function writeSafetensors(tensors: ReadonlyMap<string, Tensor>, metadata?: Record<string, string>): Uint8Array {
  return Buffer.concat([...safetensorsPieces(tensors, metadata && { metadata })]);
}

// --- reading ---------------------------------------------------------------------------------------------------------------------------------------

/** Takes the bytes of one file in any pieces, and converts each number as it comes. */
export class SafetensorsReader {
  readonly #total: number;
  /** Bytes that came before the header was complete. */
  #head: Uint8Array | undefined = new Uint8Array(0);
  #came = 0;
  #bodyStart = 0;
  /** In the order of their bytes. */
  #stored: StoredTensor[] = [];
  #current = 0;
  readonly tensors = new Map<string, Tensor>();
  metadata: Record<string, string> = {};

  /** `total`: how many bytes the file has, so that a header that claims more is refused before memory is taken. */
  constructor(total: number) {
    if (total < 8) throw wrong(`${total} bytes are too few for a header`);
    this.#total = total;
  }

  /** BadInput for a header that is wrong in itself or for a file of this length. */
  push(piece: Uint8Array): void {
    this.#came += piece.length;
    if (this.#came > this.#total) throw wrong(`more than the ${this.#total} bytes of the file came`);
    if (this.#head) {
      this.#head = Buffer.concat([this.#head, piece]);
      const header = parseHeader(this.#head, this.#total);
      if (!header) return;
      piece = this.#head.subarray(header.bodyStart);
      this.#head = undefined;
      this.#bodyStart = header.bodyStart;
      this.#stored = header.tensors;
      this.metadata = header.metadata;
      for (const { name, shape } of header.tensors) this.tensors.set(name, { shape, data: new Float32Array(sizeOf(shape)) });
    }
    let offset = this.#came - piece.length - this.#bodyStart;
    while (piece.length > 0) {
      const stored = this.#stored[this.#current]!;
      const part = piece.subarray(0, stored.end - offset);
      this.#write(stored, offset - stored.begin, part);
      offset += part.length;
      piece = piece.subarray(part.length);
      if (offset === stored.end) this.#current++;
    }
  }

  #write({ name, dtype, begin, end }: StoredTensor, at: number, bytes: Uint8Array): void {
    const { data } = this.tensors.get(name)!;
    const target = new Uint8Array(data.buffer);
    if (dtype === 'F32') return target.set(bytes, at);
    // Two bytes of four: the upper ones are a bfloat16's value in float32; the lower ones hold a float16 until the tensor is complete.
    const shift = dtype === 'BF16' ? 2 : 0;
    for (let i = 0; i < bytes.length; i++) target[(((at + i) >>> 1) << 2) + ((at + i) & 1) + shift] = bytes[i]!;
    if (dtype === 'F16' && at + bytes.length === end - begin) {
      const halves = new Uint32Array(data.buffer);
      for (let i = 0; i < data.length; i++) data[i] = float16(halves[i]!);
    }
  }

  /** Once everything has been pushed. */
  end(): { tensors: Map<string, Tensor>; metadata: Record<string, string> } {
    if (this.#head || this.#came < this.#total) throw wrong(`${this.#came} of ${this.#total} bytes came; the file is truncated`);
    return { tensors: this.tensors, metadata: this.metadata };
  }
}

/** The value of a half-precision number (IEEE 754 binary16) from its bits. */
function float16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const [exponent, fraction] = [(bits >>> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? Number.NaN : sign * Infinity;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** A whole file in memory. */
export function readSafetensors(bytes: Uint8Array): { tensors: Map<string, Tensor>; metadata: Record<string, string> } {
  const reader = new SafetensorsReader(bytes.length);
  reader.push(bytes);
  return reader.end();
}

export interface Header {
  /** In the order of their bytes, which cover the part behind the header without holes or overlaps. */
  tensors: StoredTensor[];
  metadata: Record<string, string>;
  bodyStart: number;
}

/** The header of a file of `total` bytes, from its first bytes; undefined while they are too few. */
export function parseHeader(bytes: Uint8Array, total: number): Header | undefined {
  if (bytes.length < 8) return undefined;
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  if (length > MAX_HEADER_BYTES || length > total - 8) throw wrong(`the header claims ${length} bytes, ${total - 8} are there`);
  if (bytes.length < 8 + length) return undefined;
  const bodyBytes = total - 8 - length;
  let metadata: Record<string, string> = {};
  const tensors: StoredTensor[] = [];
  for (const [name, value] of Object.entries(parseJson(bytes.subarray(8, 8 + length)))) {
    if (name === '__metadata__') metadata = value as Record<string, string>;
    else tensors.push(checkEntry(name, value, bodyBytes));
  }
  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let covered = 0;
  for (const { name, begin, end } of tensors) {
    if (begin !== covered) throw wrong(`tensor '${name}' starts at byte ${begin} of the data, not at ${covered}`);
    covered = end;
  }
  if (covered !== bodyBytes) throw wrong(`${bodyBytes - covered} bytes at the end belong to no tensor`);
  return { tensors, metadata, bodyStart: 8 + length };
}

function parseJson(bytes: Uint8Array): Record<string, unknown> {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw new RatchetError('BadInput', 'safetensors: the header is not JSON', { cause: error });
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header)) throw wrong('the header is no JSON object');
  return header as Record<string, unknown>;
}

const isCount = (x: unknown): x is number => Number.isSafeInteger(x) && (x as number) >= 0;

function checkEntry(name: string, value: unknown, bodyBytes: number): StoredTensor {
  const { dtype, shape, data_offsets: offsets } = (value ?? {}) as { dtype?: unknown; shape?: unknown; data_offsets?: unknown };
  if (typeof dtype !== 'string' || !Object.hasOwn(BYTES, dtype))
    throw wrong(`tensor '${name}' has dtype ${JSON.stringify(dtype)}; only ${Object.keys(BYTES).join(', ')} are read`);
  if (!Array.isArray(shape) || !shape.every(isCount)) throw wrong(`tensor '${name}' has the shape ${JSON.stringify(shape)}`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount) || offsets[0]! > offsets[1]!)
    throw wrong(`tensor '${name}' has the offsets ${JSON.stringify(offsets)}`);
  const [begin, end] = offsets as [number, number];
  if (end > bodyBytes) throw wrong(`tensor '${name}' ends at byte ${end} of ${bodyBytes}; the file is truncated`);
  const bytes = sizeOf(shape) * BYTES[dtype as ReadableType];
  if (end - begin !== bytes) throw wrong(`tensor '${name}' of shape [${shape.join()}] needs ${bytes} bytes, not ${end - begin}`);
  return { name, dtype: dtype as ReadableType, shape, begin, end };
}
