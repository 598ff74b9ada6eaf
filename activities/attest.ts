/**
 * Attestations: when, where and by what a record was closed, signed by this machine's key. Kept beside the record and never in it, so that records stay
 * equal whoever wrote them.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, hostname, totalmem } from 'node:os';
import type { SigningKey } from '../artifacts/attestation.ts';
import { attest, readAttestation } from '../artifacts/run-log.ts';
import type { Attestation, RecordRef } from '../artifacts/record.ts';
import type { ArtifactStore } from '../artifacts/store.ts';
import { RatchetError } from '../core/errors.ts';

const { version, dependencies } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string;
  dependencies: Record<string, string>;
};

/** Attests `record` of the run, closed now by this process; `attempts` is how often its activity was tried, `steering` what operators did since the record before. */
export async function attestRecord(
  store: ArtifactStore,
  runId: string,
  record: RecordRef,
  { attempts, steering }: Pick<Attestation, 'attempts' | 'steering'>,
  key: SigningKey,
  signal: AbortSignal,
): Promise<void> {
  const before = record.index === 0 ? null : await earlier(store, runId, record.index - 1, signal);
  const at = new Date();
  await attest(
    store,
    runId,
    {
      record,
      at: at.toISOString(),
      host: hostname(),
      pid: process.pid,
      versions: {
        ratchet: version,
        node: process.versions.node,
        onnxruntime: dependencies['onnxruntime-node'] ?? '',
        temporal: dependencies['@temporalio/worker'] ?? '',
      },
      attempts,
      steering,
      // Since the record before was closed: the time that the work in between took, pauses and outages included.
      durationMs: before === null ? 0 : Math.max(0, at.getTime() - Date.parse(before.at)),
      details: { cores: availableParallelism(), processor: cpus()[0]?.model ?? 'unknown', memoryBytes: totalmem() },
    },
    key,
    { signal },
  );
}

/** What was attested before, for the time since; nothing where it has another form: a run of an earlier version goes on all the same. */
async function earlier(store: ArtifactStore, runId: string, index: number, signal: AbortSignal): Promise<Attestation | null> {
  try {
    return await readAttestation(store, runId, index, { signal });
  } catch (error) {
    if (error instanceof RatchetError && error.type === 'Corrupt') return null;
    throw error;
  }
}
