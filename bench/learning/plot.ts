/** Line plots as SVG, several panels beside each other; both axes logarithmic. No dependency, no style sheet. */

export interface Panel {
  title: string;
  x: string;
  y: string;
  series: { name: string; points: [x: number, y: number][] }[];
}

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [380, 260, 56, 14, 40, 42];
const COLOURS = ['#1f6feb', '#8a8f98', '#d29922'];

/** Powers of ten and their doubles and fives within a range. */
function ticks(low: number, high: number): number[] {
  const out: number[] = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const digit of [1, 2, 5]) {
      const tick = digit * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) out.push(tick);
    }
  return out;
}
/** `0.25`, `1,024`, `16k`, `5.6M`. */
const label = (value: number) =>
  value >= 1e6
    ? `${Number((value / 1e6).toPrecision(2))}M`
    : value >= 1e4
      ? `${Number((value / 1e3).toPrecision(3))}k`
      : Number(value.toPrecision(4)).toLocaleString('en-US');

function drawPanel({ title, x, y, series }: Panel, left: number): string[] {
  const points = series.flatMap((one) => one.points);
  const range = (values: number[]) => [Math.min(...values), Math.max(...values)] as const;
  const [x0, x1] = range(points.map(([value]) => value));
  const [y0, y1] = range(points.map(([, value]) => value));
  const scale = (value: number, low: number, high: number) => Math.log(value / low) / Math.max(1e-9, Math.log(high / low));
  const px = (value: number) => (left + LEFT + scale(value, x0, x1) * (WIDTH - LEFT - RIGHT)).toFixed(1);
  const py = (value: number) => (HEIGHT - BOTTOM - scale(value, y0, y1) * (HEIGHT - TOP - BOTTOM)).toFixed(1);
  const parts = [`<text x="${left + LEFT}" y="20" font-size="14" fill="#222">${title}</text>`];
  const xTicks = [...new Set(series[0]!.points.map(([value]) => value))];
  for (const tick of xTicks)
    // The last one would be cut off by the edge.
    parts.push(
      `<line x1="${px(tick)}" y1="${TOP}" x2="${px(tick)}" y2="${HEIGHT - BOTTOM}" stroke="#eee"/>`,
      `<text x="${px(tick)}" y="${HEIGHT - BOTTOM + 16}" text-anchor="${tick === x1 ? 'end' : 'middle'}" fill="#555">${label(tick)}</text>`,
    );
  for (const tick of ticks(y0, y1))
    parts.push(
      `<line x1="${left + LEFT}" y1="${py(tick)}" x2="${left + WIDTH - RIGHT}" y2="${py(tick)}" stroke="#eee"/>`,
      `<text x="${left + LEFT - 6}" y="${Number(py(tick)) + 4}" text-anchor="end" fill="#555">${label(tick)}</text>`,
    );
  parts.push(`<text x="${left + WIDTH / 2}" y="${HEIGHT - 6}" text-anchor="middle" fill="#555">${x}</text>`);
  parts.push(`<text x="${left + LEFT}" y="34" fill="#555">${y}</text>`);
  series.forEach(({ name, points }, i) => {
    const colour = COLOURS[i % COLOURS.length]!;
    parts.push(
      `<polyline fill="none" stroke="${colour}" stroke-width="2" points="${points.map(([a, b]) => `${px(a)},${py(b)}`).join(' ')}"/>`,
    );
    for (const [a, b] of points) parts.push(`<circle cx="${px(a)}" cy="${py(b)}" r="3" fill="${colour}"/>`);
    parts.push(`<text x="${left + WIDTH - RIGHT}" y="${16 + 13 * i}" text-anchor="end" fill="${colour}">${name}</text>`);
  });
  return parts;
}

export function drawPanels(panels: readonly Panel[]): string {
  const width = panels.length * WIDTH;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${HEIGHT}" font-family="sans-serif" font-size="11">`,
    '<rect width="100%" height="100%" fill="white"/>',
    ...panels.flatMap((panel, i) => drawPanel(panel, i * WIDTH)),
    '</svg>',
    '',
  ].join('\n');
}
