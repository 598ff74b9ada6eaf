/** How numbers are written for people. Expected texts are written out; laws hold for any number. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { bar, clip, duration, percentEstimate, points, pointsEstimate, size } from '../../cli/format.ts';
import { Rate } from '../../cli/live/rates.ts';
import { table } from '../../cli/table.ts';

test('durations', () => {
  const written: [number, string][] = [
    [0, '0:00'],
    [7_400, '0:07'],
    [65_000, '1:05'],
    [3_599_600, '1:00:00'],
    [11_045_000, '3:04:05'],
    [2 * 86_400_000 + 61_000, '2 d 00:01:01'],
    [-5, '0:00'],
  ];
  for (const [ms, text] of written) assert.equal(duration(ms), text);
});

test('shares, gains and sizes', () => {
  assert.equal(percentEstimate({ value: 0.652, low: 0.613, high: 0.689, n: 600 }), '65.2 [61.3, 68.9]');
  assert.equal(percentEstimate({ value: 0, low: 0, high: 1, n: 0 }), '–', 'no games, no number');
  assert.equal(pointsEstimate({ value: 0.108, low: -0.0004, high: 0.146, n: 600 }), '+10.8 [+0.0, +14.6]');
  assert.equal(points(-0.004), '-0.4');
  assert.deepEqual([0, 1023, 1536, 144_636_000].map(size), ['0 B', '1023 B', '1.5 KiB', '138 MiB']);
});

test('bars', () => {
  assert.equal(bar(0.5, 8), '████░░░░');
  assert.equal(bar(0.5, 8, false), '####....');
  assert.equal(bar(1 / 1000, 8), '█░░░░░░░', 'begun');
  assert.equal(bar(999 / 1000, 8), '███████░', 'not yet done');
  fc.assert(
    fc.property(fc.double({ min: 0, max: 1, noNaN: true }), fc.integer({ min: 2, max: 60 }), (share, width) => {
      const drawn = bar(share, width, false);
      assert.equal(drawn.length, width);
      assert.equal(drawn === '#'.repeat(width), share === 1);
      assert.equal(drawn === '.'.repeat(width), share === 0);
    }),
  );
});

test('a table fits the width, or becomes blocks with every cell whole', () => {
  const word = fc.stringMatching(/^[a-z0-9.]{1,30}$/);
  const cells = fc.array(fc.tuple(word, word), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(cells, fc.integer({ min: 10, max: 60 }), (rows, width) => {
      const columns = [
        { title: 'first', cell: ([a]: [string, string]) => a },
        { title: 'second', cell: ([, b]: [string, string]) => b, align: 'right' as const },
      ];
      const lines = table(columns, rows, width);
      const text = lines.join('\n');
      for (const [a, b] of rows) assert.ok(text.includes(a) && text.includes(b));
      if (lines[0]?.includes('second')) assert.ok(lines.every((line) => line.length <= width));
    }),
  );
});

test('lines are cut to the terminal', () => {
  assert.equal(clip('abcdef', 6), 'abcdef');
  assert.equal(clip('abcdefg', 6), 'abcde…');
});

test('the time left follows the pace of the last half minute', () => {
  const rate = new Rate();
  rate.add(0, 0);
  assert.equal(rate.leftMs(100), null, 'one look tells no pace');
  for (let second = 1; second <= 10; second++) rate.add(second * 1000, second);
  assert.equal(rate.leftMs(100), 90_000, '1 per second, 90 to go');
  for (let second = 11; second <= 60; second++) rate.add(second * 1000, 10 + (second - 10) * 2);
  assert.equal(rate.leftMs(120), 5_000, '2 per second now, 10 to go');
  rate.add(61_000, 50);
  assert.equal(rate.leftMs(120), null, 'taken up again from an earlier point: no pace yet');
});
