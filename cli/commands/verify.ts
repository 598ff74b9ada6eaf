/** `ratchet verify <run>`: re-hashes everything that a run says, from the store alone, and names the first thing that is wrong. */
import { Command } from 'commander';
import type { KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readPublicKey } from '../../artifacts/attestation.ts';
import { verifyRun, type VerifyReport } from '../../artifacts/verify.ts';
import { badInput } from '../../core/errors.ts';
import { WorkFailed } from '../failures.ts';
import { count, plural, short, size } from '../format.ts';
import { inPlace, print, printJson } from '../output.ts';
import { requireRun } from '../runs.ts';
import { withSession } from '../session.ts';

/** Problems shown in text; all are in the JSON. */
const SHOWN = 10;

export function verifyCommand(): Command {
  return new Command('verify')
    .description('re-hash everything a run says, from the store alone')
    .argument('<run>', 'run id, see `ratchet ls`')
    .option('--head <sha256>', 'digest that the last record must have, noted elsewhere')
    .option('--key <file>', 'a public key in PEM that you trust: every record must be vouched for by it (see `ratchet keys`)')
    .option('--json', 'the whole report, as JSON')
    .action(async (runId: string, { head, key, json }: { head?: string; key?: string; json?: boolean }) => {
      if (head !== undefined && !/^[0-9a-f]{64}$/.test(head))
        throw badInput('--head', head, '64 hexadecimal digits, as `ratchet history --json` shows');
      const trusted = key === undefined ? null : [trustedKey(key)];
      const report = await withSession({ borrow: true }, async ({ store }) => {
        await requireRun(store, runId);
        const show = inPlace();
        return verifyRun(store, runId, {
          ...(head !== undefined && { head }),
          ...(trusted && { trusted }),
          ...(!json && {
            onProgress: ({ done, total, bytes }) => show(`${count(done)}/${count(total)} objects, ${size(bytes)}`, done === total),
          }),
        });
      });
      if (json) printJson(report);
      else print(...reportText(report));
      const [first] = report.problems;
      if (first) throw new WorkFailed(`run ${runId} does not verify: ${first.what} at ${first.key}`);
    });
}

function trustedKey(file: string): KeyObject {
  let pem: string;
  try {
    pem = readFileSync(file, 'utf8');
  } catch (error) {
    throw badInput('--key', file, `a readable file (${(error as Error).message})`);
  }
  return readPublicKey(pem, '--key', file);
}

function reportText({ runId, ok, problems, head, unresolved, signers, givenUp, counts }: VerifyReport): string[] {
  const lines = [
    `${runId}: ${ok ? 'everything is as its records say' : plural(problems.length, 'problem')}`,
    `${plural(counts.records, 'record')}, ${plural(counts.stages, 'stage result')}, ${plural(counts.objects, 'object')} (${size(counts.bytes)}), ` +
      `${plural(counts.episodes, 'episode')}, ${plural(counts.evaluations, 'evaluation')}`,
    `head ${head ? head.sha256 : 'none: no records yet'}`,
    ...signers.map(
      ({ keyid, records, trusted }) => `signed by ${short(keyid)}: ${plural(records, 'record')}${trusted ? ' (trusted)' : ''}`,
    ),
  ];
  if (givenUp)
    lines.push(
      `given up by ${givenUp.by} on ${givenUp.at}: ${plural(givenUp.objects, 'object')} of episodes, labels and weights (${size(givenUp.bytes)}); ` +
        `${count(givenUp.absent)} of them are removed`,
    );
  if (unresolved.length > 0) lines.push(`not closed yet: iteration ${unresolved.join(', ')}`);
  for (const { what, key, expected, found } of problems.slice(0, SHOWN))
    lines.push('', `${what}`, `  at        ${key}`, `  expected  ${expected}`, `  found     ${found}`);
  if (problems.length > SHOWN) lines.push('', `and ${problems.length - SHOWN} more; --json lists all`);
  return lines;
}
