/** `ratchet up`: servers and workers in the background, kept alive until `ratchet down`. */
import { Command } from 'commander';
import { spawn } from 'node:child_process';
import { mkdir, open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { RatchetError, type ErrorType } from '../../core/errors.ts';
import type { ProgressLine } from '../../infra/progress.ts';
import type { Endpoints } from '../../infra/servers.ts';
import { explain } from '../failures.ts';
import { becomeHost, logFile, runningHost, tail } from '../host.ts';
import { eventText, preparing } from '../live/preparing.ts';
import { note, print, printJson } from '../output.ts';
import { home, openSession, PROGRAM_FOLDER } from '../session.ts';
import { ENDING_SIGNALS } from '../signals.ts';

/** What the process in the background tells the one that started it. */
type Message = { progress: ProgressLine } | { ready: true } | { failed: { type: ErrorType; message: string } };

export function upCommand(): Command {
  return new Command('up')
    .description('start servers and workers in the background and keep them alive')
    .option('--foreground', 'stay in the foreground, for service managers')
    .option('--json', 'addresses, as JSON')
    .action(async ({ foreground, json }: { foreground?: boolean; json?: boolean }) => {
      if (foreground) return stayUp();
      const host = await runningHost(home());
      if (!host) await startBackground();
      const session = await openSession({ borrow: false });
      await session.close();
      const { temporal, s3 } = session.endpoints;
      if (json) return printJson({ home: home(), temporal, s3: { endpoint: s3.endpoint, bucket: s3.bucket } });
      print(...upText(session.endpoints, host?.command ?? null));
    });
}

function upText({ temporal, s3 }: Endpoints, already: string | null): string[] {
  return [
    already ? `Up already, kept alive by \`ratchet ${already}\`.` : 'Up: servers and workers, kept alive in the background.',
    `  Temporal  ${temporal.address}${temporal.uiUrl ? `   dashboard ${temporal.uiUrl}` : ''}`,
    `  S3        ${s3.endpoint ?? `AWS ${s3.region}`}   bucket ${s3.bucket}`,
    `  logs      ${dirname(logFile(home(), 'up'))}`,
    '',
    'Next: npx ratchet run agentprm-household --scale tiny --watch, npx ratchet ls; npx ratchet down ends it.',
  ];
}

/** Starts `ratchet up --foreground` as a process of its own and waits until it is ready; it outlives this one. */
async function startBackground(): Promise<void> {
  const path = logFile(home(), 'up');
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const log = await open(path, 'a', 0o600);
  const { RATCHET_HANDED_OVER: _, ...env } = process.env;
  const child = spawn(process.execPath, [join(PROGRAM_FOLDER, 'cli', 'ratchet.js'), 'up', '--foreground'], {
    cwd: PROGRAM_FOLDER,
    env: { ...env, RATCHET_HOME: home() },
    detached: true,
    stdio: ['ignore', log.fd, log.fd, 'ipc'],
  });
  await log.close();
  const display = preparing();
  try {
    await new Promise<void>((resolve, reject) => {
      child.on('message', (message: Message) => {
        if ('progress' in message) display.onProgress(message.progress);
        else if ('ready' in message) resolve();
        else reject(new RatchetError(message.failed.type, message.failed.message));
      });
      child.on('error', reject);
      child.on('exit', (code) => {
        tail(path).then(
          (text) => reject(new RatchetError('Unavailable', `it ended with code ${code}; the end of ${path}:\n${text}`)),
          reject,
        );
      });
    });
  } finally {
    display.end();
    if (child.connected) child.disconnect();
    child.removeAllListeners('exit');
    child.unref();
  }
}

/** The process that keeps everything up, until it is asked to end. */
async function stayUp(): Promise<void> {
  const asked = Promise.withResolvers<void>();
  let times = 0;
  let hurry: () => Promise<void> = async () => undefined;
  const onSignal = () => {
    times++;
    if (times === 1) asked.resolve();
    else void hurry();
  };
  for (const name of ENDING_SIGNALS) process.on(name, onSignal);
  const tell = (message: Message): void => {
    if (process.connected) process.send?.(message);
  };
  const stamp = (text: string) => note(`${new Date().toISOString()} ${text}`);
  const display = preparing();
  try {
    const host = await becomeHost(home(), 'up', {
      onProgress: (progress) => {
        display.onProgress(progress);
        tell({ progress });
      },
      onEvent: (event) => {
        const text = eventText(event);
        if (text) stamp(text);
      },
    });
    hurry = host.hurry;
    display.end();
    stamp('up');
    tell({ ready: true });
    const reason = await Promise.race([asked.promise, host.failed]);
    stamp(reason instanceof RatchetError ? reason.message : 'stopping: the workers finish with a checkpoint');
    await host.stop();
    stamp('down');
    if (reason instanceof RatchetError) throw reason;
  } catch (error) {
    const type = error instanceof RatchetError ? error.type : 'Unavailable';
    tell({ failed: { type, message: explain(error).message } });
    throw error;
  }
}
