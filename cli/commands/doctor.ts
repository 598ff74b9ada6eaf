/** `ratchet doctor`: what this machine has and lacks for a run, and what to do about it. Changes nothing. */
import { Command } from 'commander';
import { diagnose, type Check } from '../../infra/doctor.ts';
import { diagnoseAccelerators } from '../../learning/diagnose.ts';
import { readWorkerReports } from '../../workers/report.ts';
import { WorkFailed } from '../failures.ts';
import { runningHost } from '../host.ts';
import { workersText } from '../live/display.ts';
import { print, printJson } from '../output.ts';
import { home } from '../session.ts';

const SIGNS = { ok: 'ok', warning: 'note', failed: 'FAILED' } as const;

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('check what a run needs from this machine')
    .option('--gpu', 'also try every execution provider, and say what is missing for those that do not work')
    .option('--json', 'as JSON')
    .action(async ({ gpu, json }: { gpu?: boolean; json?: boolean }) => {
      const checks = [...(await diagnose(home())), await workersCheck(), ...(gpu ? await diagnoseAccelerators() : [])];
      if (json) printJson(checks);
      else {
        const width = Math.max(...checks.map(({ name }) => name.length));
        for (const { name, state, found, fix } of checks) {
          print(`${SIGNS[state].padEnd(6)}  ${name.padEnd(width)}  ${found}`);
          if (fix) print(`${' '.repeat(width + 10)}-> ${fix}`);
        }
      }
      const failed = checks.filter(({ state }) => state === 'failed');
      if (failed.length > 0) throw new WorkFailed(`${failed.map(({ name }) => name).join(', ')}: see above`);
    });
}

async function workersCheck(): Promise<Check> {
  const reports = await readWorkerReports(home());
  const host = await runningHost(home());
  const by = host ? `, kept alive by \`ratchet ${host.command}\` (pid ${host.process.pid})` : '';
  const slow = reports.map(({ eventLoopDelayMs }) => eventLoopDelayMs.p99);
  const delay = slow.length > 0 ? `, event loop late by at most ${Math.max(...slow)} ms (99 %)` : '';
  return { name: 'workers', state: 'ok', found: `${workersText(reports.length)}${delay}${by}`, fix: null };
}
