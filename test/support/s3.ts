/** A real S3 server for tests that damage its disk or kill it: versitygw on a free loopback port over a fresh temporary directory. */
import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { StoreConfig } from '../../artifacts/store-config.ts';
import { freePort } from '../../infra/ports.ts';
import { VERSITYGW } from '../../infra/programs.ts';
import { resolveProgram } from '../../infra/resolve.ts';

/** The server answers within 300 ms of its start; a busy machine may need some seconds. */
const START_TIMEOUT_MS = 20_000;

export interface TestS3 {
  config: StoreConfig;
  /** Where the objects lie as plain files: `<directory>/<bucket>/<prefix>/<key>`. */
  directory: string;
  /** SIGKILL, as in a crash. `restart` brings back the same port and data. */
  kill(): Promise<void>;
  restart(): Promise<void>;
  stop(): Promise<void>;
}

export async function startS3(): Promise<TestS3> {
  const { path } = await resolveProgram(VERSITYGW, {
    env: process.env,
    onProgress: ({ step, detail }) => console.log(`${step}: ${detail}`),
  });
  const directory = await mkdtemp(join(tmpdir(), 'ratchet-test-s3-'));
  const port = await freePort();
  const endpoint = `http://127.0.0.1:${port}`;
  const credentials = { accessKeyId: randomBytes(8).toString('hex'), secretAccessKey: randomBytes(16).toString('hex') };
  const env = { ...process.env, ROOT_ACCESS_KEY: credentials.accessKeyId, ROOT_SECRET_KEY: credentials.secretAccessKey };
  const launch = async (): Promise<ChildProcess> => {
    const args = ['--port', `127.0.0.1:${port}`, '--health', '/health', '--quiet', '--keep-alive', 'posix', directory];
    const child = spawn(path, args, { env, stdio: 'ignore' });
    const deadline = performance.now() + START_TIMEOUT_MS;
    while (!(await healthy(endpoint))) {
      if (child.exitCode !== null || performance.now() > deadline) throw new Error(`versitygw did not start (exit code ${child.exitCode})`);
      await delay(20);
    }
    return child;
  };
  let child = await launch();
  const end = async (signal: 'SIGKILL' | 'SIGTERM') => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    await exited;
  };
  return {
    config: { endpoint, region: 'us-east-1', bucket: 'test', credentials },
    directory,
    kill: () => end('SIGKILL'),
    restart: async () => {
      child = await launch();
    },
    stop: async () => {
      await end('SIGTERM');
      await rm(directory, { recursive: true, force: true });
    },
  };
}

async function healthy(endpoint: string): Promise<boolean> {
  try {
    return (await fetch(`${endpoint}/health`)).ok;
  } catch {
    return false; // not listening yet
  }
}
