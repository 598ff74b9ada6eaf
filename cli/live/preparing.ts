/** Shows what the servers need before they answer (a download, a build): one line redrawn on a terminal, few lines in a log. On standard error. */
import type { OnProgress, ProgressLine } from '../../infra/progress.ts';
import { bar, clip } from '../format.ts';
import type { ProcessEvent } from '../../infra/servers.ts';

/** In a log, a line at least this often during one step. */
const LINE_EVERY_MS = 10_000;
const BAR_WIDTH = 24;

export interface Preparing {
  onProgress: OnProgress;
  /** Removes the line and shows nothing more: what happens later is told by `eventText`. */
  end(): void;
}

export function preparing(stream: NodeJS.WriteStream = process.stderr): Preparing {
  let ended = false;
  let step = '';
  let toldAtMs = -Infinity;
  return {
    onProgress(line) {
      if (ended) return;
      if (stream.isTTY) return void stream.write(`\r\u001b[K${clip(lineText(line), (stream.columns || 80) - 1)}`);
      if (line.step === step && performance.now() - toldAtMs < LINE_EVERY_MS) return;
      step = line.step;
      toldAtMs = performance.now();
      stream.write(`${lineText(line)}\n`);
    },
    end() {
      if (!ended && stream.isTTY) stream.write('\r\u001b[K');
      ended = true;
    },
  };
}

function lineText({ step, detail, done, total }: ProgressLine): string {
  const drawn = done !== undefined && total !== undefined && total > 0 ? `${bar(done / total, BAR_WIDTH)} ` : '';
  return `${step}: ${drawn}${detail}`;
}

/** A death or a restart in a line; null for events that nobody needs to see. */
export function eventText({ name, kind, detail, restarts }: ProcessEvent): string | null {
  const titles: Record<string, string> = { temporal: 'Temporal', s3: 'the S3 server', workers: 'the workers' };
  const title = titles[name] ?? name;
  if (kind === 'exited' || kind === 'hung') return `${title}: ${detail}; starting again`;
  if (kind === 'ready' && restarts > 0) return `${title}: up again (${detail})`;
  if (kind === 'waiting' || kind === 'failed') return `${title}: ${detail}`;
  return null;
}
