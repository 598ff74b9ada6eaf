/**
 * Writes ONNX models (the protobuf of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, the fields that ONNX Runtime needs).
 * It knows bytes only: what operators mean and whether shapes fit is the business of `graph.ts`.
 */
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';

export type ElementType = 'float32' | 'int64' | 'bool';
/** Their numbers in TensorProto.DataType. */
export const DATA_TYPE: Record<ElementType, number> = { float32: 1, int64: 7, bool: 9 };

/** Operator sets of the models that are written: ONNX 21 (IR version 10) and ONNX Runtime's own operators. */
const OPSETS: [domain: string, version: number][] = [
  ['', 21],
  ['com.microsoft', 1],
];
const IR_VERSION = 10;

/** An integer, a list of integers, a string, or a float. */
export type Attribute = number | number[] | string | { float: number };

export interface OnnxNode {
  name: string;
  op: string;
  domain: string;
  inputs: string[];
  outputs: string[];
  attributes: Record<string, Attribute>;
}
export interface OnnxTensor {
  name: string;
  dims: number[];
  data: Float32Array | BigInt64Array;
}
export interface OnnxPort {
  name: string;
  type: ElementType;
  /** A string is a dimension that is only known at run time. */
  dims: (number | string)[];
}

function message(writer: BinaryWriter, field: number, write: (inner: BinaryWriter) => void): void {
  writer.tag(field, WireType.LengthDelimited).fork();
  write(writer);
  writer.join();
}
const text = (writer: BinaryWriter, field: number, value: string) => writer.tag(field, WireType.LengthDelimited).string(value);
const integer = (writer: BinaryWriter, field: number, value: number) => writer.tag(field, WireType.Varint).int64(value);

function writeNode(writer: BinaryWriter, node: OnnxNode): void {
  for (const name of node.inputs) text(writer, 1, name);
  for (const name of node.outputs) text(writer, 2, name);
  text(writer, 3, node.name);
  text(writer, 4, node.op);
  for (const [name, value] of Object.entries(node.attributes)) {
    message(writer, 5, (attribute) => {
      text(attribute, 1, name);
      if (typeof value === 'number') {
        integer(attribute, 3, value);
        integer(attribute, 20, 2); // AttributeType INT
      } else if (typeof value === 'string') {
        text(attribute, 4, value);
        integer(attribute, 20, 3); // AttributeType STRING
      } else if (Array.isArray(value)) {
        for (const item of value) integer(attribute, 8, item);
        integer(attribute, 20, 7); // AttributeType INTS
      } else {
        attribute.tag(2, WireType.Bit32).float(value.float);
        integer(attribute, 20, 1); // AttributeType FLOAT
      }
    });
  }
  text(writer, 7, node.domain);
}

function writeTensor(writer: BinaryWriter, tensor: OnnxTensor): void {
  for (const dim of tensor.dims) integer(writer, 1, dim);
  integer(writer, 2, DATA_TYPE[tensor.data instanceof Float32Array ? 'float32' : 'int64']);
  text(writer, 8, tensor.name);
  const bytes = new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);
  writer.tag(9, WireType.LengthDelimited).bytes(bytes);
}

function writePort(writer: BinaryWriter, port: OnnxPort): void {
  text(writer, 1, port.name);
  message(writer, 2, (type) =>
    message(type, 1, (tensor) => {
      integer(tensor, 1, DATA_TYPE[port.type]);
      message(tensor, 2, (shape) => {
        for (const dim of port.dims) {
          message(shape, 1, (one) => {
            if (typeof dim === 'number') integer(one, 1, dim);
            else text(one, 2, dim);
          });
        }
      });
    }),
  );
}

export interface OnnxGraph {
  /** In an order in which every input is made before it is used. */
  nodes: OnnxNode[];
  constants: OnnxTensor[];
  inputs: OnnxPort[];
  outputs: OnnxPort[];
  /** Types and dimensions of what lies between; viewers show them. */
  values: OnnxPort[];
}

/** The bytes of an ONNX model. */
export function encodeOnnx(graph: OnnxGraph): Uint8Array {
  const writer = new BinaryWriter();
  integer(writer, 1, IR_VERSION);
  message(writer, 7, (inner) => {
    for (const node of graph.nodes) message(inner, 1, (w) => writeNode(w, node));
    text(inner, 2, 'graph');
    for (const tensor of graph.constants) message(inner, 5, (w) => writeTensor(w, tensor));
    for (const port of graph.inputs) message(inner, 11, (w) => writePort(w, port));
    for (const port of graph.outputs) message(inner, 12, (w) => writePort(w, port));
    for (const port of graph.values) message(inner, 13, (w) => writePort(w, port));
  });
  for (const [domain, version] of OPSETS) {
    message(writer, 8, (opset) => {
      text(opset, 1, domain);
      integer(opset, 2, version);
    });
  }
  return writer.finish();
}
