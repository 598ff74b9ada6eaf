/**
 * Shows a run while it goes on: a block that is redrawn in place on a terminal, single lines elsewhere (one per change, and now and then in between).
 * It writes control codes only to a terminal.
 */
import { MOST_COLUMNS } from '../output.ts';
import { closedLine, displayLine, displayLines, whereText } from './display.ts';
import type { LiveView } from './view.ts';

/** Redraws per second suffice for counts that change once a second. */
const REDRAW_MS = 500;
/** In a log, a line at least this often while nothing changes but counts. */
const LINE_EVERY_MS = 10_000;

export interface Screen {
  /** Draws the last state and leaves it standing. */
  end(): void;
  /** A line above the block, or in the log. */
  say(line: string): void;
}

export function showLive(view: () => LiveView, stream: NodeJS.WriteStream = process.stdout): Screen {
  return stream.isTTY ? redrawn(view, stream) : logged(view, stream);
}

function redrawn(view: () => LiveView, stream: NodeJS.WriteStream): Screen {
  const unicode = /utf-?8/i.test(process.env['LC_ALL'] || process.env['LC_CTYPE'] || process.env['LANG'] || 'utf-8');
  let height = 0;
  const erase = () => (height > 0 ? `\u001b[${height}A\r\u001b[J` : '');
  const draw = () => {
    const columns = Math.min(MOST_COLUMNS, stream.columns || 80);
    // A block that is taller than the terminal cannot be redrawn: its top has scrolled away.
    const lines = displayLines(view(), { columns: columns - 1, unicode }).slice(0, Math.max(4, (stream.rows || 24) - 1));
    stream.write(`${erase()}${lines.join('\n')}\n`);
    height = lines.length;
  };
  draw();
  const timer = setInterval(draw, REDRAW_MS);
  return {
    say(line) {
      stream.write(`${erase()}${line}\n`);
      height = 0;
      draw();
    },
    end() {
      clearInterval(timer);
      draw();
    },
  };
}

function logged(view: () => LiveView, stream: NodeJS.WriteStream): Screen {
  let told = '';
  let toldAtMs = -Infinity;
  let closed = -1;
  const step = () => {
    const now = view();
    for (const { iteration } of now.records?.iterations ?? []) {
      if (iteration <= closed) continue;
      closed = iteration;
      const line = closedLine(now, iteration);
      if (line) stream.write(`${line}\n`);
    }
    // What it is doing and what it waits for; counts alone are no change.
    const state = [whereText(now), ...now.waiting.map((reason) => reason.replace(/\d+/g, ''))].join(' ');
    if (state === told && performance.now() - toldAtMs < LINE_EVERY_MS) return;
    told = state;
    toldAtMs = performance.now();
    stream.write(`${displayLine(now)}\n`);
  };
  step();
  const timer = setInterval(step, REDRAW_MS);
  return {
    say: (line) => void stream.write(`${line}\n`),
    end() {
      clearInterval(timer);
      step();
    },
  };
}
