/**
 * The speed of the learning engine beside PyTorch on two cores, in one run: training, rollouts, memory, how costs grow, and what the matrix products
 * themselves would allow. Prints tables, then every figure beside its aim, and writes `learning-speed.json` and `learning-growth.svg` after each part, so
 * that a part that fails (the run goes on, and ends with 1) or Ctrl-C loses no other. About a quarter of an hour; the first run also makes a Python
 * environment (or uses the one whose interpreter `RATCHET_PYTHON` names) and compiles PyTorch's models.
 *
 *   node bench/learning/run.ts [--effort full|quick|check] [--only roofline,dense,ragged,rollouts,large,growth] [--out FOLDER]
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { PYTHON } from './contestants.ts';
import { figuresOf, reached } from './figures.ts';
import { Peer } from './peer.ts';
import { drawPanels } from './plot.ts';
import { dense, growth, growthSeries, large, ragged, rollouts, roofline } from './sections.ts';
import type { Gemm, Growth, Large, Row } from './sections.ts';
import { sizesOf } from './sizes.ts';
import type { Effort } from './sizes.ts';

const SECTIONS = ['roofline', 'dense', 'ragged', 'rollouts', 'large', 'growth'];
const { values } = parseArgs({
  options: {
    effort: { type: 'string', default: 'full' },
    only: { type: 'string', default: SECTIONS.join() },
    /** Folder for the JSON and the plots; `docs` for the whole bench, otherwise one for temporary files. */
    out: { type: 'string' },
  },
});
const effort = values.effort as Effort;
const wanted = new Set(values.only.split(','));
const wrong = [...wanted].find((name) => !SECTIONS.includes(name));
if (wrong !== undefined || !['full', 'quick', 'check'].includes(effort)) {
  console.error(wrong === undefined ? `--effort ${effort}: full, quick or check` : `--only ${wrong}: some of ${SECTIONS.join()}`);
  process.exit(2);
}
const isWhole = effort === 'full' && SECTIONS.every((name) => wanted.has(name));
const out = values.out ?? (isWhole ? 'docs' : join(tmpdir(), 'ratchet-bench-learning'));
const sizes = sizesOf(effort);
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

function showGrowth({ x, points }: Growth): void {
  table(
    [x, 'Ratchet ms', 'HF eager ms', 'Ratchet is faster'],
    points.map((point) => [
      String(point.x),
      (1000 * point.ours.seconds).toFixed(0),
      (1000 * point.theirs.seconds).toFixed(0),
      `${(point.theirs.seconds / point.ours.seconds).toFixed(2)} x`,
    ]),
  );
}

function plot(all: readonly Growth[]): string {
  const series = (points: Growth['points'], side: 'ours' | 'theirs') =>
    points.map((point): [number, number] => [point.x, 1000 * point[side].seconds]);
  return drawPanels(
    all.map(({ title, x, points }) => ({
      title,
      x,
      y: 'ms a step',
      series: [
        { name: 'Ratchet', points: series(points, 'ours') },
        { name: 'HF eager', points: series(points, 'theirs') },
      ],
    })),
  );
}

const rows: Row[] = [];
const largest: Large[] = [];
const grown: Growth[] = [];
let gemm: Gemm[] | undefined;

/** Everything in its order, each part small enough to lose. */
const parts: { section: string; what: string; work: () => Promise<void> }[] = [
  {
    section: 'roofline',
    what: 'roofline',
    work: async () => {
      gemm = await roofline(effort);
      table(
        ['matrix product', 'ONNX Runtime, 2 lanes, GFLOP/s', 'PyTorch, 2 threads, GFLOP/s'],
        gemm.map(({ shape, ours, theirs }) => [shape, ours.toFixed(0), theirs.toFixed(0)]),
      );
    },
  },
  ...Object.entries({ dense, ragged, rollouts }).flatMap(([section, measure]) =>
    sizes.compared.map((size) => ({
      section,
      what: `${section}, ${size.name}`,
      work: async () => {
        const measured = await measure(size, effort);
        showRows(measured);
        rows.push(...measured);
      },
    })),
  ),
  ...sizes.large.map((size) => ({
    section: 'large',
    what: `large, ${size.name}`,
    work: async () => {
      const one = await large(size);
      const cells = [one.trainSeconds.toFixed(2), megabytes(one.trainPeakBytes), one.turnSeconds.toFixed(2), megabytes(one.turnPeakBytes)];
      table(['size', 'training step s', 'peak MB', 'turn of 64 episodes s', 'peak MB'], [[size.name, ...cells]]);
      largest.push(one);
    },
  })),
  ...growthSeries(sizes.growing).map((series) => ({
    section: 'growth',
    what: `growth, ${series.title}`,
    work: async () => {
      const one = await growth(series);
      showGrowth(one);
      grown.push(one);
    },
  })),
];

const VERSIONS =
  'import json, torch, transformers; print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__}))';
const { dependencies } = JSON.parse(readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8')) as {
  dependencies: Record<string, string>;
};
const started = performance.now();
const load = [loadavg()[0]!];
const machine = {
  cpu: cpus()[0]!.model,
  cores: cpus().length,
  memoryBytes: totalmem(),
  node: process.version,
  onnxruntime: dependencies['onnxruntime-node'],
  ...(JSON.parse(execFileSync(PYTHON, ['-c', VERSIONS], { encoding: 'utf8' })) as Record<string, string>),
  loadBeforeAndAfter: load,
};
const failures: string[] = [];
let stopped = false;
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => {
    stopped = true;
    Peer.endAll();
  });

function save(): void {
  mkdirSync(out, { recursive: true });
  load[1] = loadavg()[0]!;
  const results = { effort, machine, rows, ...(gemm && { gemm }), large: largest, growth: grown, failures };
  writeFileSync(join(out, 'learning-speed.json'), `${JSON.stringify(results, null, 2)}\n`);
  if (grown.length > 0) writeFileSync(join(out, 'learning-growth.svg'), plot(grown));
}

for (const { section, what, work } of parts) {
  if (stopped || !wanted.has(section)) continue;
  try {
    await work();
  } catch (error) {
    failures.push(`${what}: ${stopped ? 'stopped' : error instanceof Error ? error.message : String(error)}`);
    console.error(`FAILED: ${failures.at(-1)}\n`);
  }
  save();
}
const names = sizes.compared.map(({ name }) => name);
table(
  ['figure', 'measured', 'at least', 'aim', 'reached'],
  figuresOf(names, rows, gemm, largest).map((figure) => [
    figure.what,
    figure.measured === undefined
      ? '–'
      : `${figure.measured.toFixed(2)} ${figure.unit === 'GB' ? 'GB' : figure.unit === 'x' ? 'x' : ''}`.trim(),
    figure.floor?.toString() ?? '–',
    figure.aim?.toString() ?? '–',
    reached(figure),
  ]),
);
console.log(
  `${Math.round((performance.now() - started) / 1000)} s; load ${load.map((one) => one.toFixed(1)).join(' before, ')} after; ${failures.length} parts failed; written to ${out}`,
);
if (failures.length > 0) process.exitCode = stopped ? 130 : 1;
