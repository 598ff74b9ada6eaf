/**
 * Loaded into every process of a test run by `NODE_OPTIONS=--import`; acts only in compute children. When a stage's progress reaches a planned count, it
 * kills what the plan says, at that very moment and once. Moments by progress count, so that the same plan hits the same place every time.
 *
 * `RATCHET_TEST_KILLS` names a folder with `plan.json`: Kill[]. A file `<index>.done` is made, exclusively, before each kill.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Kill {
  /** `child`: this compute child. `worker`: its parent. `temporal`, `s3`: the server of the run's home. `all`: whoever watches the folder kills the tree. */
  target: 'child' | 'worker' | 'temporal' | 's3' | 'all';
  /** Name of the stage, and the progress count at which it happens. */
  stage: string;
  done: number;
  /** Progress messages of other phases of the stage are passed over. */
  phase?: string;
  /** Which call of the stage, counted over all children since the plan began; 0 is the first. */
  call: number;
}

const folder = process.env['RATCHET_TEST_KILLS'];
const isChild = process.argv[1]?.endsWith('/learning/compute/child.ts') ?? false;

if (folder && isChild && process.send) {
  const plan = JSON.parse(readFileSync(join(folder, 'plan.json'), 'utf8')) as Kill[];
  let stage = '';
  let call = -1;
  process.on('message', (message: { type?: string; job?: { name: string } }) => {
    if (message.type !== 'run') return;
    stage = message.job?.name ?? '';
    call = -1;
    for (let n = 0; call < 0; n++) if (exclusively(`${stage}.${n}.call`)) call = n;
  });
  const send = process.send.bind(process);
  process.send = ((message: { type?: string; progress?: { done: number; phase: string } }, ...rest: []) => {
    const sent = send(message, ...rest);
    const { progress } = message;
    if (message.type === 'progress' && progress) {
      plan.forEach((kill, index) => {
        if (kill.stage !== stage || call < kill.call || progress.done < kill.done || (kill.phase && kill.phase !== progress.phase)) return;
        if (exclusively(`${index}.done`)) execute(kill);
      });
    }
    return sent;
  }) as typeof process.send;
}

function exclusively(name: string): boolean {
  const path = join(folder as string, name);
  if (existsSync(path)) return false;
  try {
    writeFileSync(path, String(process.pid), { flag: 'wx' });
    return true;
  } catch {
    return false;
  }
}

function execute({ target }: Kill): void {
  if (target === 'child') process.kill(process.pid, 'SIGKILL');
  if (target === 'worker') process.kill(process.ppid, 'SIGKILL');
  if (target === 'temporal' || target === 's3') {
    const record = JSON.parse(readFileSync(join(process.env['RATCHET_HOME'] as string, 'servers.json'), 'utf8')) as Record<
      string,
      { process: { pid: number } | null }
    >;
    const pid = record[target]?.process?.pid;
    if (pid === undefined) throw new Error(`no process of ${target} to kill`);
    process.kill(pid, 'SIGKILL');
  }
}
