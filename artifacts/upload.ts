/**
 * Large uploads: streams are spooled to a temporary file while they are hashed, and bodies above 16 MiB go up in parts. Bodies are always plain
 * buffers, never streams, because S3-compatible servers disagree about streamed signatures. An upload that fails is removed from the server.
 */
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  UploadPartCommand,
  type S3Client,
} from '@aws-sdk/client-s3';
import { createHash } from 'node:crypto';
import { mkdtemp, open, rm, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RatchetError } from '../core/errors.ts';
import { forEachBounded } from './bounded.ts';
import { failureOf, persevere } from './s3-failures.ts';

/** Above this a body goes up in parts; it also is the size of a part, and S3 wants at least 5 MiB. */
export const LARGE_OBJECT_BYTES = 16 * 1024 * 1024;
/** S3's limit on the number of parts; larger objects get larger parts. */
const MOST_PARTS = 10_000;
/** Parts under way at once: two fill a local disk, and memory stays below 64 MiB. */
const PARTS_AT_ONCE = 2;
/** One part is small; when it cannot be stored for so long, the whole upload is given up and its remains are removed. */
const PART_PATIENCE_MS = 10_000;

/** Removing the remains of a failed upload is one small request; a server that is away is not waited for, since the failure is already known. */
const REMOVAL_TIMEOUT_MS = 3_000;

interface Address {
  Bucket: string;
  Key: string;
}

/** A temporary file; whoever asked for it removes it. */
export interface SpooledFile {
  sha256: string;
  bytes: number;
  read(from: number, to: number): Promise<Uint8Array>;
  remove(): Promise<void>;
}

/** Writes the stream to a temporary file and hashes it on the way. Throws Unavailable when the disk is full. */
export async function spool(
  source: AsyncIterable<Uint8Array>,
  directory: string | undefined,
  signal: AbortSignal | undefined,
): Promise<SpooledFile> {
  const folder = await mkdtemp(join(directory ?? tmpdir(), 'ratchet-spool-'));
  let file: FileHandle | undefined;
  const remove = async () => {
    await file?.close();
    await rm(folder, { recursive: true, force: true });
  };
  try {
    file = await open(join(folder, 'body'), 'w+');
    const hash = createHash('sha256');
    let bytes = 0;
    for await (const chunk of source) {
      signal?.throwIfAborted();
      hash.update(chunk);
      for (let done = 0; done < chunk.length;) done += (await file.write(chunk, done)).bytesWritten;
      bytes += chunk.length;
    }
    const handle = file;
    const read = async (from: number, to: number) => {
      const part = new Uint8Array(to - from);
      for (let done = 0; done < part.length;) {
        const { bytesRead } = await handle.read(part, done, part.length - done, from + done);
        if (bytesRead === 0) throw new RatchetError('Unavailable', `the temporary file in ${folder} was cut while it was being uploaded`);
        done += bytesRead;
      }
      return part;
    };
    return { sha256: hash.digest('hex'), bytes, read, remove };
  } catch (error) {
    await remove();
    if ((error as NodeJS.ErrnoException).code === 'ENOSPC') {
      throw new RatchetError('Unavailable', `the disk of the temporary directory (${folder}) is full; free some space or set TMPDIR`, {
        cause: error,
      });
    }
    throw error;
  }
}

/** Stores `total` bytes, read in ranges, as one object. When it fails, its parts are removed from the server, or the error says that they could not be. */
export async function uploadInParts(
  client: S3Client,
  address: Address,
  total: number,
  read: (from: number, to: number) => Promise<Uint8Array>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const options = signal && { abortSignal: signal };
  // Not under the signal: an upload that began without our learning its id could not be removed.
  const { UploadId } = await client.send(new CreateMultipartUploadCommand(address));
  const upload = { ...address, UploadId };
  try {
    signal?.throwIfAborted();
    const size = Math.max(LARGE_OBJECT_BYTES, Math.ceil(total / MOST_PARTS));
    const parts = Array.from({ length: Math.ceil(total / size) }, (_, i) => ({ PartNumber: i + 1, ETag: undefined as string | undefined }));
    await forEachBounded(parts, PARTS_AT_ONCE, async (part) => {
      const from = (part.PartNumber - 1) * size;
      const body = await read(from, Math.min(from + size, total));
      const request = { ...upload, PartNumber: part.PartNumber, Body: body, ContentLength: body.length };
      part.ETag = (await persevere(PART_PATIENCE_MS, signal, () => client.send(new UploadPartCommand(request), options))).ETag;
    });
    await client.send(new CompleteMultipartUploadCommand({ ...upload, MultipartUpload: { Parts: parts } }), options);
  } catch (error) {
    throw await withoutRemains(client, upload, error);
  }
}

/**
 * Aborts the upload and returns the error to throw. Not under the caller's signal: an aborted stage must not leave parts behind. A completion whose
 * answer was lost leaves no upload to abort; the caller's next try finds the finished object.
 */
async function withoutRemains(client: S3Client, upload: Address & { UploadId: string | undefined }, error: unknown): Promise<unknown> {
  try {
    await client.send(new AbortMultipartUploadCommand(upload), { abortSignal: AbortSignal.timeout(REMOVAL_TIMEOUT_MS) });
  } catch (remains) {
    if (failureOf(remains) !== 'absent' && error instanceof Error) {
      error.message += ` (and the unfinished upload ${upload.UploadId} could not be removed: ${(remains as Error).message})`;
    }
  }
  return error;
}
