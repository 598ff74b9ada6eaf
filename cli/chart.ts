/** Figures with their 95 % intervals by iteration, as SVG: one colour per series, a legend, no dependency and no style sheet. */
import type { Estimate } from '../core/nouns.ts';

export interface Series {
  name: string;
  /** Iteration and figure; shares of 1 or differences of shares, drawn in per cent. */
  points: { iteration: number; estimate: Estimate }[];
}

const WIDTH = 760;
const HEIGHT = 380;
const MARGIN = { left: 56, right: 24, top: 66, bottom: 66 };
/** Told apart by people who see red and green alike (after Okabe and Ito). */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9'];
/** Series stand beside each other where they have points in common. */
const ASIDE = 7;

/** `range` in per cent; absent: what the figures need, 0 included. */
export function chart(title: string, subtitle: string, series: readonly Series[], range?: { min: number; max: number }): string {
  const all = series.flatMap(({ points }) => points);
  const bounds = all.flatMap(({ estimate }) => [100 * estimate.low, 100 * estimate.high]);
  const { min, max } = range ?? { min: 10 * Math.floor(Math.min(0, ...bounds) / 10), max: 10 * Math.ceil(Math.max(10, ...bounds) / 10) };
  const iterations = [...new Set(all.map(({ iteration }) => iteration))].sort((a, b) => a - b);
  const [first = 0, last = 0] = [iterations[0], iterations.at(-1)];
  const x = (iteration: number) =>
    MARGIN.left + ((iteration - first + 0.5) / Math.max(1, last - first + 1)) * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (value: number) => MARGIN.top + ((max - 100 * value) / (max - min)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const parts: string[] = [];
  const step = max - min > 60 ? 20 : 10;
  for (let tick = min; tick <= max; tick += step) {
    const at = y(tick / 100).toFixed(1);
    parts.push(`<line x1="${MARGIN.left}" y1="${at}" x2="${WIDTH - MARGIN.right}" y2="${at}" stroke="${tick === 0 ? '#222' : '#ddd'}"/>`);
    parts.push(`<text x="${MARGIN.left - 8}" y="${Number(at) + 4}" text-anchor="end" fill="#555">${tick}</text>`);
  }
  for (const iteration of iterations)
    parts.push(
      `<text x="${x(iteration).toFixed(1)}" y="${HEIGHT - MARGIN.bottom + 20}" text-anchor="middle" fill="#555">${iteration}</text>`,
    );
  parts.push(`<text x="${WIDTH / 2}" y="${HEIGHT - MARGIN.bottom + 38}" text-anchor="middle" fill="#555">iteration</text>`);
  series.forEach(({ name, points }, s) => {
    const colour = COLOURS[s % COLOURS.length] as string;
    const aside = (s - (series.length - 1) / 2) * ASIDE;
    const path = points.map(({ iteration, estimate }) => `${(x(iteration) + aside).toFixed(1)},${y(estimate.value).toFixed(1)}`);
    if (path.length > 1) parts.push(`<polyline points="${path.join(' ')}" fill="none" stroke="${colour}" stroke-width="2" opacity="0.6"/>`);
    for (const { iteration, estimate } of points) {
      const at = (x(iteration) + aside).toFixed(1);
      parts.push(
        `<line x1="${at}" y1="${y(estimate.low).toFixed(1)}" x2="${at}" y2="${y(estimate.high).toFixed(1)}" stroke="${colour}" stroke-width="2"/>`,
      );
      parts.push(`<circle cx="${at}" cy="${y(estimate.value).toFixed(1)}" r="4" fill="${colour}"/>`);
    }
    const left = MARGIN.left + s * ((WIDTH - MARGIN.left - MARGIN.right) / Math.max(1, series.length));
    parts.push(`<circle cx="${left + 6}" cy="${HEIGHT - 14}" r="5" fill="${colour}"/>`);
    parts.push(`<text x="${left + 18}" y="${HEIGHT - 10}" fill="#222">${escaped(name)}</text>`);
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" font-family="sans-serif" font-size="13">`,
    `<rect width="100%" height="100%" fill="white"/>`,
    `<text x="16" y="26" font-size="16" fill="#222">${escaped(title)}</text>`,
    `<text x="16" y="46" fill="#555">${escaped(subtitle)}</text>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
