/** Draws a study as SVG: for each variant a row, for each seed a dot with its 95 % interval, and the mean over the seeds. No dependency, no style sheet. */
import type { Estimate } from '../core/nouns.ts';

export interface Row {
  name: string;
  /** One per seed, in [-1, 1]. */
  gains: Estimate[];
}

const WIDTH = 760;
const LEFT = 190;
const RIGHT = 24;
const ROW = 56;
const TOP = 64;

/** Gains in percentage points on a common axis, with a line at 0. */
export function drawGains(title: string, subtitle: string, rows: readonly Row[]): string {
  const all = rows.flatMap(({ gains }) => gains.flatMap(({ low, high }) => [100 * low, 100 * high]));
  const [min, max] = [Math.floor(Math.min(0, ...all) / 5) * 5, Math.ceil(Math.max(5, ...all) / 5) * 5];
  const x = (gain: number) => LEFT + ((100 * gain - min) / (max - min)) * (WIDTH - LEFT - RIGHT);
  const bottom = TOP + rows.length * ROW;
  const parts: string[] = [];
  for (let tick = min; tick <= max; tick += 5) {
    const at = x(tick / 100).toFixed(1);
    parts.push(`<line x1="${at}" y1="${TOP}" x2="${at}" y2="${bottom}" stroke="${tick === 0 ? '#222' : '#ddd'}"/>`);
    parts.push(`<text x="${at}" y="${bottom + 18}" text-anchor="middle" fill="#555">${tick > 0 ? '+' : ''}${tick}</text>`);
  }
  rows.forEach(({ name, gains }, r) => {
    const middle = TOP + r * ROW + ROW / 2;
    const colour = r === 0 ? '#1f6feb' : '#8a8f98';
    parts.push(`<text x="${LEFT - 12}" y="${middle + 5}" text-anchor="end" fill="#222">${name}</text>`);
    gains.forEach((gain, i) => {
      const y = middle + (i - (gains.length - 1) / 2) * 11;
      parts.push(
        `<line x1="${x(gain.low).toFixed(1)}" y1="${y}" x2="${x(gain.high).toFixed(1)}" y2="${y}" stroke="${colour}" stroke-width="2"/>`,
      );
      parts.push(`<circle cx="${x(gain.value).toFixed(1)}" cy="${y}" r="4" fill="${colour}"/>`);
    });
    const mean = gains.reduce((sum, { value }) => sum + value, 0) / Math.max(1, gains.length);
    parts.push(
      `<line x1="${x(mean).toFixed(1)}" y1="${middle - 22}" x2="${x(mean).toFixed(1)}" y2="${middle + 22}" stroke="${colour}" stroke-width="3" opacity="0.45"/>`,
    );
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${bottom + 36}" font-family="sans-serif" font-size="13">`,
    `<rect width="100%" height="100%" fill="white"/>`,
    `<text x="16" y="26" font-size="16" fill="#222">${title}</text>`,
    `<text x="16" y="46" fill="#555">${subtitle}</text>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}
