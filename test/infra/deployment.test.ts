/** The files for many machines: what they name is there, and they wait as long as a worker needs to stop. Nothing is built: that needs an engine. */
import assert from 'node:assert/strict';
import { existsSync, globSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { STOP_BOUND_MS } from '../../activities/activities.ts';
import { workerConfig } from '../../workers/config.ts';
import { QUEUES } from '../../workflows/task-queues.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');
/** Beyond the wait for checkpoints a worker takes 6 s to report the stop (workers/worker.ts); what is left is for the process to end. */
const LEAST_GRACE_MS = STOP_BOUND_MS + 6_000 + 5_000;

const lines = (path: string) =>
  read(path)
    .split('\n')
    .filter((line) => line && !line.startsWith('#'));
/** `A=b` lines. */
const variables = Object.fromEntries(lines('infra/worker.env.example').map((line) => line.split('=') as [string, string]));

test('the image holds every folder that the command is made of, and starts it with a Node that can', () => {
  const steps = lines('infra/Dockerfile').map((line) => line.split(' '));
  const copied = steps.filter(([step]) => step === 'COPY').flatMap(([, ...names]) => names.slice(0, -1));
  for (const name of copied) assert.ok(existsSync(join(ROOT, name)), name);
  const imported = new Set(['cli']);
  for (const folder of imported) {
    for (const file of globSync(`${folder}/**/*.{ts,js}`, { cwd: ROOT })) {
      for (const [, name] of read(file).matchAll(/from '(?:\.\.\/)+([a-z]+)\//g)) if (existsSync(join(ROOT, name!))) imported.add(name!);
    }
  }
  assert.ok(imported.size > 8);
  assert.deepEqual(
    [...imported].filter((folder) => readdirSync(ROOT).includes(folder) && !copied.includes(folder)),
    [],
  );
  const image = steps.find(([step]) => step === 'FROM')![1];
  const lock = JSON.parse(read('package-lock.json')) as { packages: Record<string, { version: string }> };
  assert.equal(image, `node:${lock.packages['node_modules/node']!.version.split('.')[0]}-bookworm-slim`);
  const entry = JSON.parse(
    steps
      .find(([step]) => step === 'ENTRYPOINT')!
      .slice(1)
      .join(' '),
  ) as string[];
  assert.equal(entry[0], 'node');
  assert.ok(existsSync(join(ROOT, entry[1]!)));
});

test('compose serves every queue once, by a command that exists, and gives workers time to stop', () => {
  const { services } = parse(read('infra/compose.yaml'), { merge: true }) as {
    services: Record<
      string,
      { command: string[]; env_file: string; stop_grace_period: string; build: { context: string; dockerfile: string } }
    >;
  };
  const served = Object.values(services).map(({ command, env_file, stop_grace_period, build }) => {
    assert.deepEqual(command.slice(0, 2), ['worker', '--queues']);
    assert.ok(existsSync(join(ROOT, 'infra', `${env_file}.example`)));
    assert.ok(existsSync(join(ROOT, 'infra', build.context, build.dockerfile)));
    assert.ok(Number.parseInt(stop_grace_period) * 1_000 >= LEAST_GRACE_MS, stop_grace_period);
    return command[2]!;
  });
  assert.deepEqual(served.sort(), [...QUEUES].sort());
});

test('the unit starts a file that is there, with a command that exists, and gives workers time to stop', () => {
  const unit = Object.fromEntries(
    lines('infra/systemd/ratchet-worker@.service').map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  );
  const [program, script, ...args] = unit['ExecStart']!.split(' ');
  for (const path of [program!, script!]) assert.ok(existsSync(path.replace('/opt/ratchet', ROOT)), path);
  assert.deepEqual(args, ['worker', '--queues', '%i']);
  assert.ok(Number(unit['TimeoutStopSec']) * 1_000 >= LEAST_GRACE_MS);
});

test('every variable of the example is one that the program reads, and its values are accepted', () => {
  const sources = globSync('{artifacts,infra,learning,workers,workflows}/**/*.ts', { cwd: ROOT }).map(read).join('\n');
  for (const name of Object.keys(variables)) {
    // Temporal's own are read by its configuration library.
    const known = sources.includes(`'${name}'`) || read('README.md').includes(`\`${name}\``);
    assert.ok(known, name);
  }
  assert.equal(workerConfig(QUEUES, variables).versioning, 'pinned');
});
