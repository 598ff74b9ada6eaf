/**
 * The speed of the learning engine beside PyTorch on two cores, in one run: training, rollouts, memory, how costs grow, and what the matrix products
 * themselves would allow. Prints tables and writes `learning-speed.json` and `learning-growth.svg`. About ten minutes; the first run also makes a Python
 * environment (or uses the one whose interpreter `RATCHET_PYTHON` names) and compiles PyTorch's models.
 *
 *   node bench/learning/run.ts [--quick] [--only dense,ragged,rollouts,roofline,growth,large] [--out docs]
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { drawPanels } from './plot.ts';
import { dense, growth, large, ragged, rollouts, roofline } from './sections.ts';
import type { Gemm, Growth, Large, Row } from './sections.ts';

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string', default: 'roofline,dense,ragged,rollouts,large,growth' },
    /** Folder for the JSON and the plots. */
    out: { type: 'string', default: 'docs' },
  },
});
const effort = { quick: values.quick };
const wanted = new Set(values.only.split(','));
const megabytes = (bytes: number) => String(Math.round(bytes / 1e6));

function table(head: string[], rows: string[][]): void {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: string[]) => `| ${cells.map((cell, i) => cell.padEnd(widths[i]!)).join(' | ')} |`;
  console.log([line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line), ''].join('\n'));
}

function showRows(rows: Row[]): void {
  table(
    ['what', 'size', 'contestant', 'median ms', 'best ms', 'CPU ms', 'a second', 'Ratchet is faster', 'by CPU time', 'peak MB', 'rounds'],
    rows.map((row) => [
      row.section,
      row.size,
      row.name,
      (1000 * row.seconds).toFixed(0),
      (1000 * row.best).toFixed(0),
      (1000 * row.cpuSeconds).toFixed(0),
      `${row.perSecond.toPrecision(3)} ${row.unit}`,
      `${row.ratio.toFixed(2)} x`,
      `${row.cpuRatio.toFixed(2)} x`,
      megabytes(row.peakBytes),
      String(row.rounds),
    ]),
  );
}

const started = performance.now();
const load = [loadavg()[0]!];
const rows: Row[] = [];
const results: { gemm?: Gemm[]; growth?: Growth[]; large?: Large[] } = {};
if (wanted.has('roofline')) {
  results.gemm = await roofline(effort);
  table(
    ['matrix product', 'ONNX Runtime, 2 lanes, GFLOP/s', 'PyTorch, 2 threads, GFLOP/s'],
    results.gemm.map(({ shape, ours, theirs }) => [shape, ours.toFixed(0), theirs.toFixed(0)]),
  );
}
for (const [name, section] of Object.entries({ dense, ragged, rollouts })) {
  if (!wanted.has(name)) continue;
  const measured = await section(effort);
  showRows(measured);
  rows.push(...measured);
}
if (results.gemm && wanted.has('dense')) {
  const roof = Math.max(...results.gemm.map(({ ours }) => ours));
  table(
    ['training, full rows', 'GFLOP/s', `share of ${roof.toFixed(0)} GFLOP/s`],
    rows.flatMap((row) =>
      row.gflops === undefined ? [] : [[`${row.size} ${row.name}`, row.gflops.toFixed(0), (row.gflops / roof).toFixed(2)]],
    ),
  );
}
if (wanted.has('large')) {
  results.large = await large(effort);
  table(
    ['size', 'training step s', 'peak MB', '64 turns s', 'peak MB'],
    results.large.map((one) => [
      one.size,
      one.trainSeconds.toFixed(2),
      megabytes(one.trainPeakBytes),
      one.turnSeconds.toFixed(2),
      megabytes(one.turnPeakBytes),
    ]),
  );
}
mkdirSync(values.out, { recursive: true });
if (wanted.has('growth')) {
  results.growth = await growth(effort);
  for (const { x, points } of results.growth)
    table(
      [x, 'Ratchet ms', 'HF eager ms', 'Ratchet is faster'],
      points.map((point) => [
        String(point.x),
        (1000 * point.ours.seconds).toFixed(0),
        (1000 * point.theirs.seconds).toFixed(0),
        `${(point.theirs.seconds / point.ours.seconds).toFixed(2)} x`,
      ]),
    );
  const panels = results.growth.map(({ title, x, points }) => ({
    title,
    x,
    y: 'ms a step',
    series: [
      { name: 'Ratchet', points: points.map((point): [number, number] => [point.x, 1000 * point.ours.seconds]) },
      { name: 'HF eager', points: points.map((point): [number, number] => [point.x, 1000 * point.theirs.seconds]) },
    ],
  }));
  writeFileSync(join(values.out, 'learning-growth.svg'), drawPanels(panels));
}
load.push(loadavg()[0]!);
const machine = { cpu: cpus()[0]!.model, cores: cpus().length, memoryBytes: totalmem(), node: process.version, loadBeforeAndAfter: load };
writeFileSync(join(values.out, 'learning-speed.json'), `${JSON.stringify({ machine, rows, ...results }, null, 2)}\n`);
console.log(
  `${Math.round((performance.now() - started) / 1000)} s; load ${load.map((one) => one.toFixed(1)).join(' before, ')} after; written to ${values.out}`,
);
