/**
 * A run as a folder that outlives the system: every manifest and object that `verify` reads, under the same names as in the store, with a list for
 * `sha256sum -c`, a verifier of one file, and a page that says how to use them. It exports only what verifies, and never writes into a folder in use.
 */
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { copyFile, mkdir, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { badInput, RatchetError } from '../core/errors.ts';
import { forEachBounded } from './bounded.ts';
import { givenUpKey } from './retention.ts';
import { attestationsFolder, keysFolder, recordsFolder, runKey, stagesFolder } from './run-log.ts';
import type { ArtifactStore, CallOptions } from './store.ts';
import { verifyRun, type VerifyReport } from './verify.ts';

/** Reads under way at a time. */
const READS_AT_ONCE = 8;
const VERIFIER = new URL('./verify-export.mjs', import.meta.url);

export interface ExportOptions extends CallOptions {
  /** First all is checked, then all is copied. */
  onProgress?: (progress: { what: 'checked' | 'copied'; done: number; total: number; bytes: number }) => void;
}

/** Throws BadInput for a folder that is not empty or an unknown run, Corrupt for a run that does not verify, Unavailable for one that is being written meanwhile (nothing is exported then). */
export async function exportRun(store: ArtifactStore, runId: string, folder: string, options: ExportOptions = {}): Promise<VerifyReport> {
  const call: CallOptions = options.signal ? { signal: options.signal } : {};
  const there = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw badInput('folder', folder, `a new or empty folder (${error.message})`);
  });
  if (there.length > 0) throw badInput('folder', folder, 'a new or empty folder');

  const manifests = await manifestsOf(store, runId, call);
  const objects: { key: string; sha256: string; bytes: number }[] = [];
  const report = await verifyRun(store, runId, {
    ...call,
    onSound: (ref) => objects.push(ref),
    onProgress: (progress) => options.onProgress?.({ what: 'checked', ...progress }),
  });
  const [first] = report.problems;
  if (first) throw new RatchetError('Corrupt', `run ${runId} does not verify and is not exported: ${first.what} at ${first.key}`);
  if ((await manifestsOf(store, runId, call)).join() !== manifests.join())
    throw new RatchetError(
      'Unavailable',
      `run ${runId} is being written; pause it (\`npx ratchet pause ${runId}\`) or wait, and export again`,
    );

  const digests = new Map<string, string>();
  const total = manifests.length + objects.length;
  let bytes = 0;
  const wrote = (key: string, digest: string, size: number) => {
    digests.set(key, digest);
    bytes += size;
    options.onProgress?.({ what: 'copied', done: digests.size, total, bytes });
  };
  await forEachBounded(manifests, READS_AT_ONCE, async (key) => {
    const content = await store.readBytes(key, call);
    if (!content) throw new RatchetError('Corrupt', `${key} is missing; it was there a moment ago`);
    await mkdir(dirname(join(folder, key)), { recursive: true });
    await writeFile(join(folder, key), content);
    wrote(key, createHash('sha256').update(content).digest('hex'), content.length);
  });
  await mkdir(join(folder, 'objects'), { recursive: true });
  await forEachBounded(objects, READS_AT_ONCE, async (ref) => {
    await pipeline(store.getStream(ref, call), createWriteStream(join(folder, ref.key)));
    wrote(ref.key, ref.sha256, ref.bytes);
  });

  await copyFile(VERIFIER, join(folder, 'verify.mjs'));
  const lines = [...digests].sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, digest]) => `${digest}  ${key}\n`);
  await writeFile(join(folder, 'SHA256SUMS'), lines.join(''));
  await writeFile(join(folder, 'README.md'), readme(runId, report));
  return report;
}

function readme(runId: string, { head, counts, givenUp }: VerifyReport): string {
  const without =
    givenUp && givenUp.absent > 0
      ? `\nEpisodes, labels and weights were given up by ${givenUp.by} on ${givenUp.at}, as \`given-up.json\` states: ${givenUp.absent} objects are not here.\n`
      : '';
  return `# Run ${runId}

${counts.records} records, ${counts.stages} stage results, ${counts.objects} objects, ${counts.episodes} episodes, ${counts.evaluations} evaluations.
Head: \`${head?.sha256 ?? 'none'}\`
${without}
- \`runs/${runId}/records/\`: the chain of records, canonical JSON (RFC 8785); each holds the SHA-256 of the one before it.
- \`runs/${runId}/stages/\`: what every stage call was given and gave; \`attestations/\`: signed statements (in-toto in DSSE, Ed25519) about when, where and by
  whom each record was closed; \`keys/\`: the public keys.
- \`objects/<sha256>\`: everything else by digest: JSON, Parquet tables (episodes, turns, labels), safetensors.

Check it, with nothing but Node 18 or newer, or with coreutils:

    node verify.mjs . --head <the head that you noted>
    sha256sum -c --quiet SHA256SUMS

\`sha256sum -c\` finds a changed file; \`verify.mjs\` finds it even where SHA256SUMS was changed too, as long as you hold the head.
`;
}

/** Every manifest of the run, in a fixed order. */
async function manifestsOf(store: ArtifactStore, runId: string, call: CallOptions): Promise<string[]> {
  const keys = [runKey(runId)];
  for (const prefix of [recordsFolder(runId), stagesFolder(runId), attestationsFolder(runId), keysFolder(runId)])
    for await (const { key } of store.list(prefix, call)) keys.push(key);
  if ((await store.size(givenUpKey(runId), call)) !== null) keys.push(givenUpKey(runId));
  return keys;
}
