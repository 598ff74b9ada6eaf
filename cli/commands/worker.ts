/** `ratchet worker`: a worker process in the foreground, for machines of a fleet and for service managers. */
import { Command } from 'commander';
import type { Queue } from '../../activities/stage.ts';
import { badInput } from '../../core/errors.ts';
import { nearest } from '../../core/nearest.ts';
import { parseProvider, providerEnvironment } from '../../learning/providers.ts';
import { QUEUES } from '../../workflows/task-queues.ts';
import { print } from '../output.ts';
import { openSession } from '../session.ts';

export function workerCommand(): Command {
  return new Command('worker')
    .description('host queues of work in the foreground; SIGTERM drains it with a checkpoint')
    .option('--queues <list>', `which, separated by commas: ${QUEUES.join(', ')}`, QUEUES.join(','))
    .option(
      '--provider <name>',
      'execution provider of the gpu queue: cpu, cuda, cuda:1, webgpu, coreml, dml; `ratchet doctor --gpu` says what is there',
    )
    .option('--build-id', 'print the build id of this code, for `temporal worker deployment set-current-version`, and end')
    .action(async ({ queues, provider, buildId }: { queues: string; provider?: string; buildId?: boolean }) => {
      if (buildId) return printBuildId();
      if (provider !== undefined) Object.assign(process.env, providerEnvironment(parseProvider(provider, '--provider')));
      const roles = queues.split(',').map((text): Queue => {
        const role = QUEUES.find((queue) => queue === text.trim());
        if (role) return role;
        throw badInput('--queues', queues, `did you mean ${nearest(text.trim(), QUEUES)}? The queues are ${QUEUES.join(', ')}`);
      });
      const session = await openSession({ borrow: false });
      Object.assign(process.env, session.environment);
      await session.close();
      // Only this command needs Temporal's native worker; loading it takes a while.
      const { runWorkerProcess } = await import('../../workers/process.ts');
      await runWorkerProcess(roles);
    });
}

async function printBuildId(): Promise<void> {
  const [{ RATCHET_CODE }, { buildId }] = await Promise.all([import('../../workers/process.ts'), import('../../workers/bundle.ts')]);
  print(await buildId(RATCHET_CODE.workflowsPath));
}
