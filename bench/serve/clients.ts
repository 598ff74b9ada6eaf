/**
 * Python clients against `ratchet env serve`: OpenEnv's own (PyPI `openenv`) and AgentGym's calls play whole episodes, which are then played again in
 * this process and compared word for word; rounds of 256 sessions, half of them torn down, with the server's memory; speed. `node bench/serve/clients.ts`
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Environment } from '../../environments/environment.ts';
import { worldNamed } from '../../environments/registry.ts';
import { runPython } from '../python.ts';

interface Speed {
  steps_per_second: number;
  server_cpu_us: number;
}

interface Report {
  openenv: { index: number; commands: string[]; moments: Record<string, unknown>[] }[];
  agentgym: { game: number; commands: string[]; moments: Record<string, unknown>[]; task: { id: string } }[];
  memory_mib: number[];
  alone: Speed;
  together: Speed;
}

const TASKS = 300;
/** 256 live games of different tasks do not fit into 96 MiB. */
const HEAP_MIB = 384;
const world = worldNamed('household');
const folder = mkdtempSync(join(tmpdir(), 'ratchet-serve-'));
const server = spawn(process.execPath, ['cli/ratchet.js', 'env', 'serve', '--port', '0', '--tasks', String(TASKS)], {
  cwd: join(import.meta.dirname, '..', '..'),
  stdio: ['ignore', 'pipe', 'inherit'],
  // A heap in which keeping the games of ended sessions would end the server within a few rounds.
  env: { ...process.env, NODE_OPTIONS: `--max-old-space-size=${HEAP_MIB}` },
});
try {
  const lines: string[] = [];
  const output = createInterface({ input: server.stdout }).on('line', (line) => lines.push(line));
  let url: string | undefined;
  while ((url = lines.map((line) => /^listening on (\S+)/.exec(line)?.[1]).find(Boolean)) === undefined)
    await once(output, 'line', { signal: AbortSignal.timeout(60_000) });
  const out = join(folder, 'report.json');
  runPython(join(import.meta.dirname, 'requirements.txt'), join(import.meta.dirname, 'clients.py'), [url, String(server.pid), out]);
  const report = JSON.parse(readFileSync(out, 'utf8')) as Report;

  let steps = 0;
  const replay = (id: string, commands: readonly string[], check: (game: Environment, at: number) => void): void => {
    const game = world.open(id);
    check(game, 0);
    commands.forEach((command, i) => {
      game.step(command);
      check(game, i + 1);
      steps++;
    });
    assert.ok(game.done);
  };
  for (const { index, commands, moments } of report.openenv) {
    const [task] = world.tasks('unseen', index, 1);
    assert.ok(task);
    replay(task.id, commands, (game, at) => {
      const { text, admissible_commands, won, turn, reward, done, task: said } = moments[at] as Record<string, unknown>;
      assert.deepEqual(
        { text, admissible_commands, won, turn, reward, done },
        {
          text: game.observation,
          admissible_commands: game.admissible,
          won: game.outcome === 1,
          turn: at,
          reward: at === 0 ? null : game.outcome,
          done: game.done,
        },
      );
      assert.deepEqual(said, { id: task.id, split: 'unseen', index, sha256: task.sha256 });
    });
  }
  console.log(`OpenEnv client    ${report.openenv.length} episodes, ${steps} steps, all equal to the games played in process`);
  steps = 0;
  for (const { commands, moments, task } of report.agentgym) {
    replay(task.id, commands, (game, at) => {
      const { observation, available_actions, reward, done } = moments[at] as Record<string, unknown>;
      if (at > 0) assert.equal(observation, game.observation);
      assert.deepEqual({ available_actions, reward, done }, { available_actions: game.admissible, reward: game.outcome, done: game.done });
    });
  }
  console.log(`AgentGym client   ${report.agentgym.length} episodes, ${steps} steps, all equal to the games played in process`);
  const sessions = 256 * report.memory_mib.length;
  console.log(
    `sessions          ${sessions}, 256 at a time, half of them torn down, all places given back, in a heap of at most ${HEAP_MIB} MiB`,
  );
  console.log(`resident memory   ${report.memory_mib.filter((_, i) => i % 2 === 1).join(' ')} MiB, after every second round`);
  for (const [who, { steps_per_second, server_cpu_us }] of [
    ['one client      ', report.alone],
    ['64 clients      ', report.together],
  ] as const)
    console.log(`${who}  ${steps_per_second} steps/s with one Python process, ${server_cpu_us} microseconds of the server's CPU per step`);
} finally {
  server.kill('SIGTERM');
  await once(server, 'exit');
  rmSync(folder, { recursive: true, force: true });
}
