/** What a long preparation tells whoever waits for it: data for a display, never more than a few lines a second. */
export interface ProgressLine {
  /** What is being done, such as `download temporal`. The same for all lines of one task. */
  step: string;
  detail: string;
  /** How far it is, in units of `detail` (bytes, packages), where that is known. */
  done?: number;
  total?: number;
}

export type OnProgress = (line: ProgressLine) => void;

/** Four lines a second are smooth for a reader and nothing for a log. */
const INTERVAL_MS = 250;

/** Passes on at most one line per interval; lines between are dropped, for each would be outdated by the next. */
export function thinned(onProgress: OnProgress): OnProgress {
  let last = -Infinity;
  return (line) => {
    const now = performance.now();
    if (now - last < INTERVAL_MS) return;
    last = now;
    onProgress(line);
  };
}
