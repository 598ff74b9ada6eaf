/** `ratchet verify <run>`: re-hashes everything that a run says, from the store alone, and names the first thing that is wrong. */
import { Command } from 'commander';
import { verifyRun, type VerifyReport } from '../../artifacts/verify.ts';
import { badInput } from '../../core/errors.ts';
import { WorkFailed } from '../failures.ts';
import { count, plural, size } from '../format.ts';
import { print, printJson } from '../output.ts';
import { requireRun } from '../runs.ts';
import { withSession } from '../session.ts';

/** Problems shown in text; all are in the JSON. */
const SHOWN = 10;
const REDRAW_MS = 250;

export function verifyCommand(): Command {
  return new Command('verify')
    .description('re-hash everything a run says, from the store alone')
    .argument('<run>', 'run id, see `ratchet ls`')
    .option('--head <sha256>', 'digest that the last record must have, noted elsewhere')
    .option('--json', 'the whole report, as JSON')
    .action(async (runId: string, { head, json }: { head?: string; json?: boolean }) => {
      if (head !== undefined && !/^[0-9a-f]{64}$/.test(head))
        throw badInput('--head', head, '64 hexadecimal digits, as `ratchet history --json` shows');
      const report = await withSession({ borrow: true }, async ({ store }) => {
        await requireRun(store, runId);
        return verifyRun(store, runId, { ...(head !== undefined && { head }), ...(json ? {} : { onProgress: progress() }) });
      });
      if (json) printJson(report);
      else print(...reportText(report));
      const [first] = report.problems;
      if (first) throw new WorkFailed(`run ${runId} does not verify: ${first.what} at ${first.key}`);
    });
}

/** Objects checked so far, in place on a terminal; silent elsewhere. */
function progress(): (progress: { done: number; total: number; bytes: number }) => void {
  let shownAtMs = -Infinity;
  return ({ done, total, bytes }) => {
    if (!process.stderr.isTTY || performance.now() - shownAtMs < REDRAW_MS) return;
    shownAtMs = performance.now();
    process.stderr.write(`\r\u001b[K${count(done)}/${count(total)} objects, ${size(bytes)}${done === total ? '\r\u001b[K' : ''}`);
  };
}

function reportText({ runId, ok, problems, head, unresolved, counts }: VerifyReport): string[] {
  const lines = [
    `${runId}: ${ok ? 'everything is as its records say' : plural(problems.length, 'problem')}`,
    `${plural(counts.records, 'record')}, ${plural(counts.stages, 'stage result')}, ${plural(counts.objects, 'object')} (${size(counts.bytes)}), ` +
      `${plural(counts.episodes, 'episode')}, ${plural(counts.evaluations, 'evaluation')}`,
    `head ${head ? head.sha256 : 'none: no records yet'}`,
  ];
  if (unresolved.length > 0) lines.push(`not closed yet: iteration ${unresolved.join(', ')}`);
  for (const { what, key, expected, found } of problems.slice(0, SHOWN))
    lines.push('', `${what}`, `  at        ${key}`, `  expected  ${expected}`, `  found     ${found}`);
  if (problems.length > SHOWN) lines.push('', `and ${problems.length - SHOWN} more; --json lists all`);
  return lines;
}
