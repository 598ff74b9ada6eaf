import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readEpisodes, writeEpisodes } from '../../artifacts/episodes-file.ts';
import { readTable, writeTable } from '../../artifacts/table.ts';
import { sha256 } from '../../core/digest.ts';
import { RatchetError } from '../../core/errors.ts';
import type { Episode } from '../../core/nouns.ts';

const text = fc.oneof(
  fc.string({ unit: 'grapheme' }),
  fc.string({ unit: 'binary' }).filter((value) => value.isWellFormed()),
  fc.constantFrom('\u0000 "\\ \n', '\ufeffbyte order mark'),
);
const double = fc.double({ noNaN: true });
const plain = { noNullPrototype: true };
const turn = fc.record(
  {
    observation: text,
    admissible: fc.array(text, { maxLength: 4 }),
    action: text,
    logProbability: double,
    reward: double,
  },
  plain,
);
const ending = fc.oneof(
  fc.constant({ kind: 'completed' as const }),
  fc.record({ kind: fc.constantFrom('failed' as const, 'abandoned' as const), reason: text }, plain),
);
const episode = fc.record(
  {
    id: text,
    task: text,
    family: text,
    instruction: text,
    repeat: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
    policy: text,
    turns: fc.array(turn, { maxLength: 5 }),
    outcome: double,
    ending,
  },
  plain,
);
const episodes = fc.uniqueArray(episode, { selector: ({ id }) => id, maxLength: 8 });

/** As many episodes, turns and commands as one collection of `--scale tiny` has. */
function collection(): Episode[] {
  return Array.from({ length: 1200 }, (_, e) => ({
    id: `train/clean/${e}#0`,
    task: `train/clean/${e}`,
    family: 'clean',
    instruction: 'Put a clean mug in the cabinet.',
    repeat: 0,
    policy: 'f'.repeat(64),
    turns: Array.from({ length: 16 }, (_, t) => ({
      observation: `You arrive at drawer ${t}. On the drawer ${t}, you see a mug ${e}, a fork ${e % 7} and a plate ${t}.`,
      admissible: Array.from({ length: 13 }, (_, a) => `go to cabinet ${(a * e + t) % 29}`),
      action: `go to cabinet ${t % 29}`,
      logProbability: -Math.sqrt(e + t + 0.1),
      reward: t === 15 ? 1 : 0,
    })),
    outcome: 1,
    ending: { kind: 'completed' },
  }));
}

test('any episodes come back from Parquet exactly as they were, unicode, -0 and infinities included', async () => {
  await fc.assert(
    fc.asyncProperty(episodes, async (original) => {
      const files = writeEpisodes(original);
      assert.deepStrictEqual(await readEpisodes(files.episodes, files.turns), original);
    }),
    { numRuns: 60 },
  );
});

test('equal episodes give equal bytes, and the file names neither a version nor a time', () => {
  const files = writeEpisodes(collection().slice(0, 50));
  const again = writeEpisodes(structuredClone(collection().slice(0, 50)));
  assert.equal(sha256(files.episodes), sha256(again.episodes));
  assert.equal(sha256(files.turns), sha256(again.turns));
  const footer = Buffer.from(files.turns).subarray(-600).toString('latin1');
  assert.match(footer, /ratchet/);
  assert.doesNotMatch(footer, /hyparquet|version|20\d\d/);
});

test('1,200 episodes of 16 turns with 13 commands are written well within a second of CPU time, and come back', async () => {
  const original = collection();
  writeEpisodes(original.slice(0, 100)); // compiled before it is timed
  const started = process.cpuUsage();
  const files = writeEpisodes(original);
  const { user, system } = process.cpuUsage(started);
  // CPU time, not wall time: other processes share the machine. About 0.2 s when alone.
  assert.ok(user + system < 1_000_000, `${(user + system) / 1000} ms`);
  assert.deepStrictEqual(await readEpisodes(files.episodes, files.turns), original);
});

test('more rows than one row group holds come back in order', async () => {
  const numbers = Array.from({ length: 45_001 }, (_, i) => i - 20_000);
  const table = writeTable({ n: 'int', x: 'double', s: 'string' }, { n: numbers, x: numbers.map(Math.cbrt), s: numbers.map(String) });
  const read = await readTable({ n: 'int', x: 'double', s: 'string' }, table);
  assert.deepStrictEqual(read, { n: numbers, x: numbers.map(Math.cbrt), s: numbers.map(String) });
});

test('values that would not come back are refused by name', () => {
  const [one] = collection() as [Episode];
  assert.throws(() => writeEpisodes([one, one]), { type: 'BadInput', message: /episode id/ });
  assert.throws(() => writeEpisodes([{ ...one, task: '\ud800' }]), { type: 'BadInput', message: /task of row 0/ });
  assert.throws(() => writeTable({ n: 'int' }, { n: [1, 2 ** 31] }), { type: 'BadInput', message: /n of row 1/ });
  assert.throws(() => writeTable({ n: 'int', m: 'int' }, { n: [1], m: [] }), { type: 'BadInput', message: /column m/ });
});

test('damaged or mismatched tables are Corrupt, never other episodes', async () => {
  const files = writeEpisodes(collection().slice(0, 20));
  const shorter = writeEpisodes(collection().slice(0, 19));
  await assert.rejects(readEpisodes(files.episodes, shorter.turns), { type: 'Corrupt' });
  await assert.rejects(readEpisodes(shorter.episodes, files.turns), { type: 'Corrupt' });
  await assert.rejects(readEpisodes(files.turns, files.episodes), { type: 'Corrupt', message: /columns/ });
  await assert.rejects(
    readEpisodes(files.episodes.subarray(0, 300), files.turns),
    (error) => error instanceof RatchetError && error.type === 'Corrupt',
  );
  await assert.rejects(readEpisodes(new Uint8Array(0), files.turns), { type: 'Corrupt' });
});
