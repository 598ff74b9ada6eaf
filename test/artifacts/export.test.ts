/** An exported run is checked by two programs that know nothing of Ratchet: its own verifier of one file, and `sha256sum`. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createPublicKey } from 'node:crypto';
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { signAttestation, signingKey, statementIn, type Envelope } from '../../artifacts/attestation.ts';
import { exportRun } from '../../artifacts/export.ts';
import { recordKey } from '../../artifacts/run-log.ts';
import type { RecordRef } from '../../artifacts/record.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import { verifyRun } from '../../artifacts/verify.ts';
import { startS3, type TestS3 } from '../support/s3.ts';
import { SAMPLE_KEY_FILE, writeSampleRun } from './sample-run.ts';

let s3: TestS3;
let store: ArtifactStore;
let head: RecordRef;
let folder: string;
let files: string[];
const scratch = mkdtempSync(join(tmpdir(), 'ratchet-export-'));
const publicKeyFile = join(scratch, 'trusted.pem');

before(async () => {
  s3 = await startS3();
  store = ArtifactStore.connect({ ...s3.config, prefix: 'export' });
  await store.probe();
  head = await writeSampleRun(store, 'sample');
  folder = join(scratch, 'run');
  await exportRun(store, 'sample', folder);
  files = readFileSync(join(folder, 'SHA256SUMS'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => line.slice(66));
  writeFileSync(publicKeyFile, signingKey(SAMPLE_KEY_FILE).publicKey);
});

after(async () => {
  store.close();
  await s3.stop();
  rmSync(scratch, { recursive: true });
});

const verifier = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(folder, 'verify.mjs'), folder, ...args], { encoding: 'utf8' });
  return { status, text: stdout + stderr };
};
const sums = () => spawnSync('sha256sum', ['-c', '--quiet', 'SHA256SUMS'], { cwd: folder }).status;

/** Does `work` with other bytes in a file of the export (null: without the file). */
function withFile<T>(name: string, bytes: Uint8Array | null, work: () => T): T {
  const path = join(folder, name);
  const original = readFileSync(path);
  const aside = join(scratch, name.replaceAll('/', '-'));
  if (bytes === null) renameSync(path, aside);
  else writeFileSync(path, bytes);
  try {
    return work();
  } finally {
    if (bytes === null) renameSync(aside, path);
    else writeFileSync(path, original);
  }
}

test('an export holds the whole run, and both programs find it sound', async () => {
  const { status, text } = verifier('--head', head.sha256, '--key', publicKeyFile);
  assert.equal(status, 0, text);
  // Genesis and two records for each of two iterations, as written by writeSampleRun; each attested.
  assert.match(text, /^5 records, \d+ stage results, \d+ objects .*, 5 signed attestations$/m);
  assert.match(text, new RegExp(`^head ${head.sha256}$`, 'm'));
  // Whoever compares the two reports counts the same things.
  const { counts } = await verifyRun(store, 'sample');
  assert.match(text, new RegExp(`, ${counts.stages} stage results, ${counts.objects} objects \\(${counts.bytes} bytes\\), `));
  assert.equal(sums(), 0);
});

test('whichever byte is flipped, file deleted or cut: both programs find it, and the verifier names it', () => {
  const how = fc.constantFrom('flip', 'delete', 'cut');
  const place = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true });
  fc.assert(
    fc.property(fc.constantFrom(...files), how, place, fc.nat(7), (name, wanted, where, bit) => {
      const bytes = Buffer.from(readFileSync(join(folder, name)));
      const at = Math.floor(where * bytes.length);
      if (wanted === 'flip') bytes[at] = (bytes[at] as number) ^ (1 << bit);
      const changed = wanted === 'delete' ? null : wanted === 'cut' ? bytes.subarray(0, at) : bytes;
      withFile(name, changed, () => {
        // An attestation that is gone is only missed by whoever asks for it.
        const { status, text } = verifier('--head', head.sha256, '--key', publicKeyFile);
        // The trusted key is at hand, so its copy beside the run is not needed.
        const needless = changed === null && name.includes('/keys/');
        assert.equal(status, needless ? 0 : 1, `${wanted} ${name}\n${text}`);
        if (!needless) assert.ok(text.includes(name), `${wanted} ${name}\n${text}`);
        assert.notEqual(sums(), 0);
      });
    }),
    { numRuns: 40 },
  );
  assert.equal(verifier('--head', head.sha256).status, 0);
});

test('records cut from the end with their attestations are found by the head that somebody holds', () => {
  const record = recordKey('sample', head.index);
  const attestation = record.replace('/records/', '/attestations/');
  withFile(record, null, () => {
    assert.match(verifier().text, /^attested record$/m);
    withFile(attestation, null, () => {
      // Without the head there is nothing left that could know: this is what the head is for.
      assert.equal(verifier().status, 0);
      const { status, text } = verifier('--head', head.sha256);
      assert.equal(status, 1);
      assert.match(text, /^head$/m);
    });
  });
});

test('a statement signed by another key is refused by whoever trusts the right one', async () => {
  const key = `runs/sample/attestations/000004.json`;
  const envelope = JSON.parse(readFileSync(join(folder, key), 'utf8')) as Envelope;
  const forger = signingKey(join(scratch, 'forger.pem'));
  const { subject, predicate } = statementIn(envelope, key);
  const record = { index: 4, sha256: subject[0]?.digest.sha256 as string };
  const forged = signAttestation({ record, ...predicate, host: 'elsewhere' }, recordKey('sample', 4), forger);
  await store.writePointer(`runs/sample/keys/${forger.keyid}.json`, { keyid: forger.keyid, publicKey: forger.publicKey });
  await store.writePointer(key, forged);
  try {
    const trusted = [createPublicKey(readFileSync(publicKeyFile))];
    const report = await verifyRun(store, 'sample', { trusted });
    assert.deepEqual(
      report.problems.map(({ what, key: at }) => [what, at]),
      [
        ['signature of an attestation', key],
        ['attestation', key],
      ],
    );
    // Whoever names no key is told who signed what.
    const open = await verifyRun(store, 'sample');
    assert.equal(open.ok, true);
    assert.deepEqual(open.signers.map(({ records }) => records).sort(), [1, 4]);
  } finally {
    await store.writePointer(key, envelope);
    await store.delete(`runs/sample/keys/${forger.keyid}.json`);
  }
});

test('an export needs an empty folder and a run that verifies', async () => {
  await assert.rejects(exportRun(store, 'sample', folder), { type: 'BadInput', message: /^folder: / });
  await assert.rejects(exportRun(store, 'nobody', join(scratch, 'other')), { type: 'BadInput', message: /^run id: / });
});

test('the verifier refuses words it does not know', () => {
  assert.equal(verifier('--heads', 'x').status, 2);
  assert.equal(verifier('--head', 'x').status, 2);
});

test('a number is traced to its episodes and counted again with public tools alone, as docs/audit.md says', (context) => {
  const python = process.env['RATCHET_PYTHON'] ?? 'python3';
  if (spawnSync(python, ['-c', 'import pyarrow']).status !== 0) return context.skip('pyarrow is not installed');
  const page = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'audit.md'), 'utf8');
  const script = /```python\n([\s\S]*?)```/.exec(page)?.[1];
  assert.ok(script, 'the page has a script');
  const { status, stdout, stderr } = spawnSync(python, ['-c', script], { cwd: folder, encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  // Of six episodes one failed and one was abandoned; of the other four, numbers 0 and 2 succeed (writeSampleRun).
  assert.equal(stdout.trim(), 'unseen greedy 0.5 0.5');
});
