/** Homes with real servers for the tests of infra/: making them, talking to them, killing what runs in them, and looking at what is left. */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { Client, Connection } from '@temporalio/client';
import { homePaths } from '../../infra/home.ts';
import type { HomeRecord } from '../../infra/home.ts';
import { processesWithArguments } from '../../infra/processes.ts';
import type { Endpoints, ProcessEvent, Servers } from '../../infra/servers.ts';
import { cleanEnvironment, temporaryDirectory, until } from './clean.ts';

export const env = cleanEnvironment();
export const quiet = { env, onProgress: () => {} };
/** Noticing a death and having the port served again; a loaded machine needs longer for the second half. */
export const NOTICED_MS = 1_000;

export const newHome = () => join(temporaryDirectory(), '.ratchet');
export const recordOf = (home: string) => JSON.parse(readFileSync(homePaths(home).record, 'utf8')) as HomeRecord;

/** Every process on this home's data, recorded or not. */
export async function processesOf(home: string): Promise<number[]> {
  const found = await Promise.all([homePaths(home).temporalDatabase, homePaths(home).s3Data].map((path) => processesWithArguments([path])));
  return found.flat().map(({ pid }) => pid);
}

export function s3Of({ s3 }: Endpoints): S3Client {
  const credentials = { accessKeyId: s3.accessKeyId!, secretAccessKey: s3.secretAccessKey! };
  return new S3Client({ endpoint: s3.endpoint!, region: s3.region, forcePathStyle: s3.forcePathStyle, credentials });
}

export async function putText(endpoints: Endpoints, key: string, text: string): Promise<void> {
  await s3Of(endpoints).send(new PutObjectCommand({ Bucket: endpoints.s3.bucket, Key: key, Body: text }));
}

export async function getText(endpoints: Endpoints, key: string): Promise<string> {
  const { Body } = await s3Of(endpoints).send(new GetObjectCommand({ Bucket: endpoints.s3.bucket, Key: key }));
  return await Body!.transformToString();
}

export async function withTemporal<T>({ temporal }: Endpoints, work: (client: Client) => Promise<T>): Promise<T> {
  const connection = await Connection.connect({ address: temporal.address });
  try {
    return await work(new Client({ connection, namespace: temporal.namespace }));
  } finally {
    await connection.close();
  }
}

/** Kills with SIGKILL and waits for the replacement. Returns the time from the kill to its start and until it answers. */
export async function killAndWait(servers: Servers, name: 'temporal' | 's3'): Promise<{ noticedMs: number; readyMs: number }> {
  const events: ProcessEvent[] = [];
  const end = servers.onExit((event) => void (event.name === name && events.push(event)));
  process.kill(servers.pids[name]!, 'SIGKILL');
  const noticedMs = await until(`${name} exit noticed`, () => events.some(({ kind }) => kind === 'exited'));
  const readyMs = noticedMs + (await until(`${name} ready again`, () => events.some(({ kind }) => kind === 'ready'), 60_000));
  end();
  return { noticedMs, readyMs };
}

/** Another process that uses the home, once its servers are ready. */
export async function user(home: string): Promise<{ child: ChildProcess; pids: { temporal: number; s3: number }; endpoints: Endpoints }> {
  const child = fork(join(import.meta.dirname, 'servers-user.ts'), [home], { env: env as NodeJS.ProcessEnv });
  const [message] = (await once(child, 'message')) as [{ pids: { temporal: number; s3: number }; endpoints: Endpoints }];
  return { child, ...message };
}

/** Local addresses, in the kernel's hexadecimal, on which a process accepts connections. */
export function listeningAddresses(pid: number): string[] {
  const sockets = new Set<string>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    const match = /^socket:\[(\d+)\]$/.exec(targetOf(`/proc/${pid}/fd/${fd}`));
    if (match) sockets.add(match[1]!);
  }
  const rows = ['tcp', 'tcp6'].flatMap((table) => readFileSync(`/proc/${pid}/net/${table}`, 'utf8').split('\n').slice(1));
  const fields = rows.map((row) => row.trim().split(/\s+/));
  return fields.filter((row) => row[3] === '0A' && sockets.has(row[9]!)).map((row) => row[1]!);
}

/** What a descriptor is; '' when the process has closed it since it was listed. A socket that accepts connections stays open. */
function targetOf(descriptor: string): string {
  try {
    return readlinkSync(descriptor);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}

export function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}
