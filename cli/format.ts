/** Numbers and names as people read them in a terminal: durations, percentages with intervals, bars. Pure; it knows nothing of runs. */
import type { Estimate } from '../core/nouns.ts';

/** What stands where there is no number. */
export const NONE = '–';

/** `0:07`, `12:05`, `3:04:05`, `2 d 03:04:05`. Negative durations (a clock that was set back) show as 0:00. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const two = (value: number) => String(value).padStart(2, '0');
  const [days, hours, minutes] = [Math.floor(seconds / 86_400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days > 0) return `${days} d ${two(hours)}:${two(minutes)}:${two(seconds % 60)}`;
  if (hours > 0) return `${hours}:${two(minutes)}:${two(seconds % 60)}`;
  return `${minutes}:${two(seconds % 60)}`;
}

/** A share of 1 as per cent with one decimal: `65.2`. */
export function percent(share: number): string {
  return (share * 100).toFixed(1);
}

/** A difference of shares with its sign: `+10.8`, `-0.4`, `+0.0`. */
export function points(difference: number): string {
  const text = (difference * 100).toFixed(1);
  return text.startsWith('-') ? (Number(text) === 0 ? '+0.0' : text) : `+${text}`;
}

/** `65.2 [61.3, 68.9]`: per cent with its 95 % interval. */
export function percentEstimate(estimate: Estimate | null | undefined): string {
  return estimate && estimate.n > 0 ? `${percent(estimate.value)} [${percent(estimate.low)}, ${percent(estimate.high)}]` : NONE;
}

/** `+10.8 [+7.0, +14.6]`: points of per cent with their 95 % interval. */
export function pointsEstimate(estimate: Estimate | null | undefined): string {
  return estimate && estimate.n > 0 ? `${points(estimate.value)} [${points(estimate.low)}, ${points(estimate.high)}]` : NONE;
}

export function decimals(value: number | null | undefined, digits: number): string {
  return value === null || value === undefined ? NONE : value.toFixed(digits);
}

/** `1,200`. */
export function count(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

/** `512 B`, `1.5 KiB`, `138 MiB`. */
export function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** The first twelve characters of a digest: enough to tell any two apart, and to find one by. */
export function short(digest: string): string {
  return digest.slice(0, 12);
}

/** A bar of `width` characters. A share above 0 shows something, one below 1 leaves something open. */
export function bar(share: number, width: number, unicode = true): string {
  const clamped = Math.min(1, Math.max(0, share));
  let full = Math.round(clamped * width);
  if (full === 0 && clamped > 0) full = 1;
  if (full === width && clamped < 1) full = width - 1;
  return unicode ? '█'.repeat(full) + '░'.repeat(width - full) : '#'.repeat(full) + '.'.repeat(width - full);
}

/** Cuts a line that a terminal of this width would wrap. */
export function clip(line: string, columns: number): string {
  return line.length <= columns ? line : `${line.slice(0, Math.max(0, columns - 1))}…`;
}

/** `1 run`, `2 runs`. */
export function plural(n: number, noun: string): string {
  return `${count(n)} ${noun}${n === 1 ? '' : 's'}`;
}
