/** Starts the contestants: ours run under Node as a compute child does, theirs in a Python environment with pinned packages, with the allocator settings that suit it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ALLOCATOR_ENVIRONMENT } from '../../learning/compute/allocator.ts';
import { writeModelFolder } from '../../learning/model-files.ts';
import { initModel } from '../../learning/model.ts';
import type { LlamaConfig } from '../../learning/types.ts';
import { pythonWith } from '../python.ts';
import { Peer } from './peer.ts';
import type { Sequence } from './workload.ts';

const HERE = import.meta.dirname;
export const THREADS = 2;
/** Large blocks are kept instead of being given back to the system after every operator: 2 % faster. */
const THEIRS_ENV = {
  MALLOC_MMAP_THRESHOLD_: String(32 * 2 ** 20),
  MALLOC_TRIM_THRESHOLD_: '4000000000',
  MALLOC_TOP_PAD_: String(64 * 2 ** 20),
  TORCHINDUCTOR_CACHE_DIR: join(HERE, '../../.ratchet/inductor'),
  HF_HUB_OFFLINE: '1',
  HF_HUB_DISABLE_PROGRESS_BARS: '1',
  TRANSFORMERS_VERBOSITY: 'error',
};

/** The interpreter with PyTorch and transformers; it is made first of all, so that nothing is running while that takes minutes. */
export const PYTHON = pythonWith(join(HERE, '../parity/requirements.txt'));

export function ours(script: string): Peer {
  return new Peer('Ratchet', [process.execPath, join(HERE, script)], ALLOCATOR_ENVIRONMENT);
}
export function theirs(name: string, script: string): Peer {
  return new Peer(name, [PYTHON, join(HERE, 'theirs', script)], THEIRS_ENV);
}

/** Runs something with a folder for models and batches, which is gone afterwards. */
export async function withFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'ratchet-bench-'));
  try {
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Runs something with peers, which are ended afterwards. */
export async function withPeers<T>(peers: Peer[], work: (peers: Peer[]) => Promise<T>): Promise<T> {
  try {
    return await work(peers);
  } finally {
    await Promise.all(peers.map((peer) => peer.close()));
  }
}

/** A new model's folder; all contestants start from the same weights. */
export function modelFolder(folder: string, config: LlamaConfig): string {
  const path = mkdtempSync(join(folder, 'model-'));
  writeModelFolder(path, initModel(config, ['bench']), null);
  return path;
}
export function batchFile(folder: string, batch: Sequence[]): string {
  const path = join(mkdtempSync(join(folder, 'batch-')), 'batch.json');
  writeFileSync(path, JSON.stringify(batch));
  return path;
}
