/** `ratchet pause`, `resume`, `stop`, `approve`, `reject`, `amend` and `cancel`: what an operator asks of a run under way. One file, because they differ in a word. */
import type { Client } from '@temporalio/client';
import { Command } from 'commander';
import { AMENDABLE } from '../../recipes/amend.ts';
import { parseOverride } from '../../recipes/load.ts';
import type { Control, Operator } from '../../workflows/durable-loop.ts';
import { badInput, RatchetError } from '../../core/errors.ts';
import { executionState } from '../launch.ts';
import { operatorName, setOption } from '../options.ts';
import { print, printJson } from '../output.ts';
import { requireRun } from '../runs.ts';
import { ask, withSession } from '../session.ts';

/** A worker answers within a second; one that is being restarted, or is busy replaying, gets this long. */
const ANSWER_BOUND_MS = 20_000;

const STEERING = [
  { name: 'pause', description: 'hold the run before its next stage; stages in flight finish', done: 'pauses before its next stage' },
  { name: 'resume', description: 'let a paused run go on', done: 'goes on' },
  { name: 'stop', description: 'end the run after the iteration at hand', done: 'stops after the iteration at hand' },
  { name: 'approve', description: 'promote the policy that the run asks about', done: 'promotes the policy' },
  { name: 'reject', description: 'keep the old policy instead of the one that the run asks about', done: 'keeps the old policy' },
] as const;

interface SteerOptions {
  as?: string;
  reason?: string;
  updateId?: string;
  json?: boolean;
}

export function steeringCommands(): Command[] {
  return [...STEERING.map(({ name, description, done }) => updateCommand(name, description, done)), amendCommand(), cancelCommand()];
}

function updateCommand(name: string, description: string, done: string): Command {
  return steering(name, description).action((runId: string, options: SteerOptions) => update(runId, name, [], done, options));
}

function amendCommand(): Command {
  return steering('amend', 'change budgets or hyper-parameters from the next iteration on')
    .addOption(setOption())
    .action((runId: string, options: SteerOptions & { set: string[] }) => {
      if (options.set.length === 0) throw badInput('--set', options.set, `at least one field of ${AMENDABLE.join(', ')}`);
      const amendments = options.set.map(parseOverride);
      return update(runId, 'amend', [amendments], `takes ${options.set.join(', ')} from its next iteration on`, options);
    });
}

function steering(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .argument('<run>', 'run id, see `ratchet ls`')
    .option('--as <name>', 'who asks, for the attestation; else the user of this machine')
    .option('--reason <text>', 'why, for the attestation')
    .option('--update-id <id>', 'sent twice with one id, it is done once')
    .option('--json', 'the new state, as JSON');
}

async function update(runId: string, name: string, args: unknown[], done: string, options: SteerOptions): Promise<void> {
  const operator: Operator = { by: options.as ?? operatorName(), reason: options.reason ?? null };
  const control = await steer(runId, async (client) => {
    const handle = client.workflow.getHandle(runId);
    const asked = { args: [operator, ...args] as [Operator, ...unknown[]], ...(options.updateId && { updateId: options.updateId }) };
    return ask(client, () => handle.executeUpdate<Control, [Operator, ...unknown[]]>(name, asked), ANSWER_BOUND_MS);
  });
  if (options.json) printJson({ run: runId, control });
  else print(`run ${runId} ${done}`);
}

function cancelCommand(): Command {
  return new Command('cancel')
    .description('end the run now; finished work is kept, and `ratchet run --id` can go on with it')
    .argument('<run>', 'run id, see `ratchet ls`')
    .action(async (runId: string) => {
      await steer(runId, (client) => ask(client, () => client.workflow.getHandle(runId).cancel()));
      print(`run ${runId} is being cancelled: npx ratchet status ${runId}`);
    });
}

async function steer<T>(runId: string, work: (client: Client) => Promise<T>): Promise<T> {
  return withSession({ borrow: false }, async ({ store, temporal }) => {
    await requireRun(store, runId);
    const client = await temporal();
    const state = await executionState(client, runId);
    if (state !== 'RUNNING' && state !== 'PAUSED')
      throw badInput('run', runId, `a run under way; this one is ${state === null ? 'unknown to Temporal' : state.toLowerCase()}`);
    try {
      return await work(client);
    } catch (error) {
      if (error instanceof RatchetError && error.type === 'BadInput')
        throw new RatchetError('BadInput', `run ${runId}: ${error.message}`, { cause: error });
      throw error;
    }
  });
}
