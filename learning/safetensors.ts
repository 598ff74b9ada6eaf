/**
 * The safetensors format (https://github.com/huggingface/safetensors#format): an 8-byte little-endian length, a JSON header, the raw numbers. Only F32;
 * every other thing that can be wrong with a file is a BadInput that names the tensor.
 */
import { RatchetError } from '../core/errors.ts';
import type { Tensor } from './types.ts';

/** The format's own bound on the header. */
const MAX_HEADER_BYTES = 100_000_000;

const wrong = (message: string) => new RatchetError('BadInput', `safetensors: ${message}`);

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** Tensors in alphabetical order, so that equal tensors give equal bytes; `metadata` is kept as strings in the header. */
export function writeSafetensors(tensors: ReadonlyMap<string, Tensor>, metadata: Record<string, string> = { format: 'pt' }): Uint8Array {
  const names = [...tensors.keys()].sort();
  const header = Object.create(null) as Record<string, unknown>; // without prototype: any name may be a tensor's
  header['__metadata__'] = metadata;
  let offset = 0;
  for (const name of names) {
    const { shape, data } = tensors.get(name)!;
    if (shape.reduce((a, b) => a * b, 1) !== data.length)
      throw wrong(`tensor '${name}' of shape [${shape.join()}] cannot hold ${data.length} numbers`);
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, (offset += data.byteLength)] };
  }
  let text = JSON.stringify(header);
  text += ' '.repeat((8 - (Buffer.byteLength(text) % 8)) % 8); // so that the numbers start at a multiple of 8
  const json = new TextEncoder().encode(text);
  const out = new Uint8Array(8 + json.length + offset);
  new DataView(out.buffer).setBigUint64(0, BigInt(json.length), true);
  out.set(json, 8);
  let at = 8 + json.length;
  for (const name of names) {
    const { data } = tensors.get(name)!;
    out.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return out;
}

export function readSafetensors(bytes: Uint8Array): { tensors: Map<string, Tensor>; metadata: Record<string, string> } {
  if (bytes.length < 8) throw wrong(`${bytes.length} bytes are too few for a header`);
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  if (length > MAX_HEADER_BYTES || length > bytes.length - 8)
    throw wrong(`the header claims ${length} bytes, ${bytes.length - 8} are there`);
  const header = parseHeader(bytes.subarray(8, 8 + length));
  const body = bytes.subarray(8 + length);
  const tensors = new Map<string, Tensor>();
  let metadata: Record<string, string> = {};
  const spans: { name: string; begin: number; end: number }[] = [];
  for (const [name, value] of Object.entries(header)) {
    if (name === '__metadata__') {
      metadata = value as Record<string, string>;
      continue;
    }
    const entry = checkEntry(name, value, body.length);
    const [begin, end] = entry.data_offsets;
    spans.push({ name, begin, end });
    const data = new Float32Array((end - begin) / 4);
    new Uint8Array(data.buffer).set(body.subarray(begin, end));
    tensors.set(name, { shape: entry.shape, data });
  }
  // The format asks that the tensors cover the body without holes or overlaps.
  let covered = 0;
  for (const { name, begin, end } of spans.sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== covered) throw wrong(`tensor '${name}' starts at byte ${begin} of the data, not at ${covered}`);
    covered = end;
  }
  if (covered !== body.length) throw wrong(`${body.length - covered} bytes at the end belong to no tensor`);
  return { tensors, metadata };
}

function parseHeader(bytes: Uint8Array): Record<string, unknown> {
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

function checkEntry(name: string, value: unknown, bodyBytes: number): Entry {
  const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Partial<Entry>;
  if (dtype !== 'F32') throw wrong(`tensor '${name}' has dtype ${JSON.stringify(dtype)}; only "F32" is read`);
  if (!Array.isArray(shape) || !shape.every(isCount)) throw wrong(`tensor '${name}' has the shape ${JSON.stringify(shape)}`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount) || offsets[0] > offsets[1])
    throw wrong(`tensor '${name}' has the offsets ${JSON.stringify(offsets)}`);
  if (offsets[1] > bodyBytes) throw wrong(`tensor '${name}' ends at byte ${offsets[1]} of ${bodyBytes}; the file is truncated`);
  const bytes = shape.reduce((a, b) => a * b, 4);
  if (offsets[1] - offsets[0] !== bytes)
    throw wrong(`tensor '${name}' of shape [${shape.join()}] needs ${bytes} bytes, not ${offsets[1] - offsets[0]}`);
  return { dtype, shape, data_offsets: offsets };
}
