/** Draws a campaign as SVG: for each kind of hurt a row of dots, one per hurt, for the work lost and for the time to be working again. No dependency. */
import { quantile } from './measure.ts';
import { AIMS, spreads, type Campaign, type Spread } from './summary.ts';

const LEFT = 130;
const PANEL = 420;
const GAP = 50;
const ROW = 26;
const TOP = 84;
const WIDTH = LEFT + 2 * PANEL + GAP + 30;

export function draw(campaign: Campaign): string {
  const rows = spreads(campaign);
  const bottom = TOP + rows.length * ROW;
  const hurts = rows.reduce((sum, { count }) => sum + count, 0);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${bottom + 48}" font-family="sans-serif" font-size="13">`,
    '<rect width="100%" height="100%" fill="white"/>',
    `<text x="16" y="26" font-size="16" fill="#222">${hurts} hurts in ${campaign.results.length} runs: what each cost</text>`,
    `<text x="16" y="46" fill="#555">${campaign.repeat}; a dot is a hurt, the bar is the 95th percentile of its kind</text>`,
    ...rows.map(
      ({ kind, count }, i) => `<text x="${LEFT - 12}" y="${TOP + i * ROW + 17}" text-anchor="end" fill="#222">${kind} (${count})</text>`,
    ),
    ...panel(LEFT, 'compute repeated, s', rows, ({ lost }) => lost, AIMS.lostS, bottom),
    ...panel(LEFT + PANEL + GAP, 'until working again, s', rows, ({ again }) => again, AIMS.againS, bottom),
    '</svg>',
    '',
  ].join('\n');
}

function panel(left: number, title: string, rows: Spread[], pick: (row: Spread) => number[], aim: number, bottom: number): string[] {
  const most = Math.max(aim, ...rows.flatMap(pick));
  const step = [1, 2, 5, 10, 20, 50, 100].find((each) => most / each <= 8) ?? 200;
  const end = step * Math.ceil(most / step);
  const x = (value: number) => (left + (value / end) * PANEL).toFixed(1);
  const parts = [`<text x="${left}" y="${TOP - 14}" fill="#222">${title}</text>`];
  for (let tick = 0; tick <= end; tick += step) {
    parts.push(`<line x1="${x(tick)}" y1="${TOP}" x2="${x(tick)}" y2="${bottom}" stroke="#ddd"/>`);
    parts.push(`<text x="${x(tick)}" y="${bottom + 18}" text-anchor="middle" fill="#555">${tick}</text>`);
  }
  parts.push(`<line x1="${x(aim)}" y1="${TOP - 6}" x2="${x(aim)}" y2="${bottom}" stroke="#c0392b" stroke-dasharray="4 3"/>`);
  parts.push(`<text x="${x(aim)}" y="${bottom + 36}" text-anchor="middle" fill="#c0392b">aim</text>`);
  rows.forEach((row, i) => {
    const middle = TOP + i * ROW + ROW / 2;
    const values = pick(row);
    for (const value of values) parts.push(`<circle cx="${x(value)}" cy="${middle}" r="4" fill="#1f6feb" fill-opacity="0.45"/>`);
    const high = quantile(values, 0.95);
    if (high !== null)
      parts.push(`<line x1="${x(high)}" y1="${middle - 9}" x2="${x(high)}" y2="${middle + 9}" stroke="#222" stroke-width="2"/>`);
  });
  return parts;
}
