/**
 * Records the histories of this version's workflows, for the test that replays those of every released version: the warm start, iterations that were
 * amended, approved and rejected, and a fork. To be run for a release, and when the workflows come to decide otherwise on purpose:
 *
 *   node test/workers/record-histories.ts
 *
 * writes test/workers/fixtures/histories/<version>-<build id>/. Who decided and asked is replaced, since that names a machine and its user; nothing else is
 * changed. It refuses to write a history whose payloads name them.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname, userInfo } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { Client, Connection } from '@temporalio/client';
import { historyToJSON } from '@temporalio/common/lib/proto-utils.js';
import { runningServers } from '../../infra/servers.ts';
import { buildId } from '../../workers/bundle.ts';
import { RATCHET_CODE } from '../../workers/process.ts';
import type { LoopStatus } from '../../workflows/durable-loop.ts';
import { bareEnvironment, cli, newHome } from '../support/loop.ts';
import { IDENTITY, SMALL } from './fixtures/small-run.ts';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };
const folder = join(import.meta.dirname, 'fixtures', 'histories', `${version}-${await buildId(RATCHET_CODE.workflowsPath)}`);
/** A micro iteration takes some ten seconds; this is for a machine that is busy. */
const ASK_BOUND_MS = 600_000;
const LOOK_EVERY_MS = 200;

const MACHINE = new RegExp(`\\b${hostname().replaceAll('.', '\\.')}\\b`);

const home = newHome();

async function ratchet(...args: string[]): Promise<void> {
  const run = cli(home, args);
  const { code } = await run.exited;
  if (code !== 0) throw new Error(`ratchet ${args.join(' ')} ended with ${code}\n${run.output()}`);
}

/** Waits until the run asks for approval in that iteration. */
async function asked(client: Client, runId: string, iteration: number): Promise<void> {
  for (const deadline = performance.now() + ASK_BOUND_MS; ; await delay(LOOK_EVERY_MS)) {
    const { question } = await client.workflow.getHandle(runId).query<LoopStatus>('status');
    if (question?.iteration === iteration) return;
    if (performance.now() > deadline) throw new Error(`run ${runId} did not ask in iteration ${iteration}`);
  }
}

/** One field of a history, without the names of this machine and its user. */
function nameless(key: string, value: unknown): unknown {
  if (typeof value !== 'string') return value;
  if (key === 'identity') return IDENTITY;
  if (key !== 'data') return value.split(MACHINE).join(IDENTITY);
  const payload = Buffer.from(value, 'base64').toString();
  if (MACHINE.test(payload) || payload.includes(`${userInfo().username}@`)) throw new Error(`a payload names this machine: ${payload}`);
  return value;
}

try {
  await ratchet('up');
  const endpoints = await runningServers(home.path, bareEnvironment(home));
  if (!endpoints) throw new Error('no servers');
  const client = new Client({ connection: await Connection.connect({ address: endpoints.temporal.address }) });
  const steered = ['iterations=1', 'gate.approval=person', 'gate.minGain=-1', ...SMALL].flatMap((setting) => ['--set', setting]);
  await ratchet('run', 'agentprm-household', '--scale', 'micro', '--id', 'run', ...steered);
  const by = ['--as', 'operator'];
  await ratchet('pause', 'run', ...by);
  await ratchet('resume', 'run', ...by);
  await asked(client, 'run', 1);
  await ratchet('amend', 'run', '--set', 'iterations=2', '--set', 'collect.repeats=1', ...by);
  await ratchet('reject', 'run', ...by);
  await asked(client, 'run', 2);
  await ratchet('approve', 'run', ...by);
  await client.workflow.getHandle('run').result();
  await ratchet('fork', 'run', '--at-iteration', '1', '--set', 'gate.approval=none', '--set', 'iterations=2', '--id', 'fork');
  await client.workflow.getHandle('fork').result();

  mkdirSync(folder, { recursive: true });
  const executions: { id: string; runId: string; at: number }[] = [];
  for await (const { workflowId, runId, startTime } of client.workflow.list())
    executions.push({ id: workflowId, runId, at: startTime.getTime() });
  const counts: Record<string, number> = {};
  for (const { id, runId } of executions.sort((a, b) => a.at - b.at)) {
    const history = await client.workflow.getHandle(id, runId).fetchHistory();
    const text = JSON.stringify(JSON.parse(historyToJSON(history)), nameless);
    const number = (counts[id] = (counts[id] ?? 0) + 1);
    const path = join(folder, `${id}-${number}.json.gz`);
    writeFileSync(path, gzipSync(text, { level: 9 }));
    console.log(`${path}: ${history.events?.length} events`);
  }
  await client.connection.close();
} finally {
  await ratchet('down');
  home.remove();
}
