/**
 * Tables as Parquet files, the same bytes for the same values always: no times, no statistics, a fixed writer's name. Any Parquet reader opens them.
 * It refuses values that would not come back as they were (text with half characters, integers beyond 32 bits) and has no empty cells.
 */
import { parquetMetadata, parquetRead } from 'hyparquet';
import { parquetWriteBuffer, type ColumnSource } from 'hyparquet-writer';
import { badInput, RatchetError } from '../core/errors.ts';

/** `string`: Unicode text (BYTE_ARRAY, UTF8). `int`: 32 bits, signed. `double`: 64-bit floating point, exact, infinities and -0 included. */
export type ColumnType = 'string' | 'int' | 'double';

/** Column names with their types, in the order of the file. */
export type TableSchema = Readonly<Record<string, ColumnType>>;

/** One array per column, all of one length. */
export type Columns<S extends TableSchema> = { [Name in keyof S]: S[Name] extends 'string' ? string[] : number[] };

const PARQUET_TYPES = { string: 'STRING', int: 'INT32', double: 'DOUBLE' } as const;
const PHYSICAL_TYPES = { string: 'BYTE_ARRAY', int: 'INT32', double: 'DOUBLE' } as const;
/** Readers decode a row group at once: 20,000 turns of an episode table are about 10 MB of text. */
const ROW_GROUP_ROWS = 20_000;
/** Exact: a byte order mark is text like any other, and bytes that are not UTF-8 are damage. */
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
/** Stands in every file, so it must not name a version. */
const CREATED_BY = 'ratchet';

/** The table as a Parquet file. Throws BadInput naming column and row for a value that the type cannot hold. */
export function writeTable<S extends TableSchema>(schema: S, columns: Columns<S>): Uint8Array {
  const names = Object.keys(schema);
  const rows = columns[names[0] ?? '']?.length ?? 0;
  const columnData = names.map((name): ColumnSource => {
    const type = schema[name] as ColumnType;
    const data = columns[name] as string[] | number[];
    if (data.length !== rows) throw badInput(`column ${name}`, data.length, `${rows} rows, as in column ${names[0]}`);
    data.forEach((value, row) => check(name, type, row, value));
    // A dictionary of doubles would merge 0 and -0.
    return { name, data, type: PARQUET_TYPES[type], nullable: false, ...(type === 'double' && { encoding: 'PLAIN' as const }) };
  });
  return new Uint8Array(parquetWriteBuffer({ columnData, statistics: false, rowGroupSize: ROW_GROUP_ROWS, createdBy: CREATED_BY }));
}

function check(name: string, type: ColumnType, row: number, value: unknown): void {
  if (type === 'string') {
    if (typeof value !== 'string' || !value.isWellFormed()) throw badInput(`${name} of row ${row}`, value, 'text without lone surrogates');
  } else if (typeof value !== 'number' || (type === 'int' && (value | 0) !== value)) {
    throw badInput(`${name} of row ${row}`, value, type === 'int' ? 'an integer of 32 bits' : 'a number');
  }
}

/** The columns of a file that `writeTable` made with the same schema. Throws Corrupt when the file is damaged or has other columns. */
export async function readTable<S extends TableSchema>(schema: S, file: Uint8Array): Promise<Columns<S>> {
  const columns: Record<string, (string | number)[]> = {};
  for (const name of Object.keys(schema)) columns[name] = [];
  let rows: number;
  try {
    const buffer = new Uint8Array(file).buffer;
    const metadata = parquetMetadata(buffer);
    rows = Number(metadata.num_rows);
    const [, ...stored] = metadata.schema;
    const described = stored.map((column) => `${column.name} ${column.type}`).join(', ');
    const expected = Object.entries(schema)
      .map(([name, type]) => `${name} ${PHYSICAL_TYPES[type]}`)
      .join(', ');
    if (described !== expected) throw new RatchetError('Corrupt', `the table has the columns ${described}; expected ${expected}`);
    await parquetRead({
      file: buffer,
      metadata,
      parsers: { stringFromBytes: (bytes: Uint8Array | undefined) => bytes && UTF8.decode(bytes) },
      onChunk: ({ columnName, columnData }) => {
        const column = columns[columnName] as (string | number)[];
        for (const value of columnData as Iterable<string | number>) column.push(value);
      },
    });
  } catch (error) {
    if (error instanceof RatchetError) throw error;
    throw new RatchetError('Corrupt', `not a readable Parquet table: ${(error as Error).message}`, { cause: error });
  }
  for (const [name, column] of Object.entries(columns)) {
    if (column.length !== rows) throw new RatchetError('Corrupt', `column ${name} has ${column.length} values; the table has ${rows} rows`);
  }
  return columns as Columns<S>;
}
