/** What the measurements say about the aims, one line a figure: what was measured, the least that is wanted, the aim, and which is reached. */
import type { Gemm, Large, Row } from './sections.ts';

export interface Figure {
  what: string;
  /** undefined where it was not measured. */
  measured: number | undefined;
  floor: number | undefined;
  aim: number | undefined;
  unit: 'x' | 'GB' | 'share';
}

/** By size, against HF eager. */
const EAGER: Record<string, { floor: number; aim: number }> = {
  '1M': { floor: 1.14, aim: 1.2 },
  '6M': { floor: 1, aim: 1 },
  '16M': { floor: 0.87, aim: 1 },
};
const MEMORY_GB = 8;

const lower = ({ unit }: Figure) => unit === 'GB';

/** `aim`, `floor` (only that), `no`, or why nothing can be said. */
export function reached(figure: Figure): string {
  const { measured, floor, aim } = figure;
  if (measured === undefined) return 'not measured';
  if (floor === undefined && aim === undefined) return '–';
  const keeps = (bound: number | undefined) => bound !== undefined && (lower(figure) ? measured <= bound : measured >= bound);
  return keeps(aim) ? 'aim' : keeps(floor) ? 'floor' : 'no';
}

/** All figures of these sizes. */
export function figuresOf(
  sizes: readonly string[],
  rows: readonly Row[],
  gemm: readonly Gemm[] | undefined,
  large: readonly Large[],
): Figure[] {
  const find = (section: string, size: string, name: string) =>
    rows.find((row) => row.section === section && row.size === size && row.name === name);
  const out: Figure[] = [];
  const roof = gemm && Math.max(...gemm.map(({ ours }) => ours));
  for (const size of sizes) {
    const against = (section: string, name: string, what: string, floor: number | undefined, aim: number | undefined) => {
      const [ours, theirs] = [find(section, size, 'Ratchet'), find(section, size, name)];
      out.push({ what: `${size}: ${what}, times faster`, measured: theirs?.ratio, floor, aim, unit: 'x' });
      const memory = ours && theirs && theirs.peakBytes / ours.peakBytes;
      out.push({ what: `${size}: ${what}, times less peak memory`, measured: memory, floor: 1, aim: 1, unit: 'x' });
    };
    against('training, full rows', 'HF eager', 'training step against HF eager', EAGER[size]?.floor, EAGER[size]?.aim);
    against('training, full rows', 'compiled PyTorch', 'training step against compiled PyTorch', 0.82, size === '1M' ? 1 : 0.92);
    against('training, ragged episodes', 'HF eager', 'ragged episodes against a padded HF loop', 1.3, 2);
    against('rollouts', 'static-cache PyTorch', 'turn of 64 episodes against a static-cache PyTorch loop', 0.95, 1.2);
    against('rollouts', 'HF generate loop', 'turn of 64 episodes against a loop over generate', 5, 5);
    const share = find('training, full rows', size, 'Ratchet')?.gflops;
    out.push({
      what: `${size}: training step, share of the matrix products' speed`,
      measured: share !== undefined && roof ? share / roof : undefined,
      floor: undefined,
      aim: undefined,
      unit: 'share',
    });
  }
  for (const { size, trainPeakBytes, turnPeakBytes } of large)
    for (const [what, bytes] of [
      ['training', trainPeakBytes],
      ['64 live episodes', turnPeakBytes],
    ] as const)
      out.push({ what: `${size}: peak memory of ${what}`, measured: bytes / 1e9, floor: MEMORY_GB, aim: MEMORY_GB, unit: 'GB' });
  return out;
}
