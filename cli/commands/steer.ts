/** `ratchet pause`, `resume`, `stop` and `cancel`: what an operator asks of a run under way. One file, because they differ in one word. */
import type { Client } from '@temporalio/client';
import { Command } from 'commander';
import type { Control } from '../../workflows/durable-loop.ts';
import { badInput, RatchetError } from '../../core/errors.ts';
import { executionState } from '../launch.ts';
import { print, printJson } from '../output.ts';
import { requireRun } from '../runs.ts';
import { ask, withSession } from '../session.ts';

/** A worker answers within a second; one that is being restarted, or is busy replaying, gets this long. */
const ANSWER_BOUND_MS = 20_000;

const STEERING = [
  { name: 'pause', description: 'hold the run before its next stage; stages in flight finish', done: 'pauses before its next stage' },
  { name: 'resume', description: 'let a paused run go on', done: 'goes on' },
  { name: 'stop', description: 'end the run after the iteration at hand', done: 'stops after the iteration at hand' },
] as const;

export function steeringCommands(): Command[] {
  return [...STEERING.map(({ name, description, done }) => updateCommand(name, description, done)), cancelCommand()];
}

function updateCommand(name: string, description: string, done: string): Command {
  return new Command(name)
    .description(description)
    .argument('<run>', 'run id, see `ratchet ls`')
    .option('--json', 'the new state, as JSON')
    .action(async (runId: string, { json }: { json?: boolean }) => {
      const control = await steer(runId, async (client) => {
        const handle = client.workflow.getHandle(runId);
        return ask(client, () => handle.executeUpdate<Control, []>(name), ANSWER_BOUND_MS);
      });
      if (json) printJson({ run: runId, control });
      else print(`run ${runId} ${done}`);
    });
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
