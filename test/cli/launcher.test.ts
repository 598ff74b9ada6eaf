/** The entry that any Node can read: hands over to the pinned Node where the one at hand is too old, else says what to install. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ENTRY, ratchet } from './cli.ts';

const manifest = JSON.parse(readFileSync(join(import.meta.dirname, '..', '..', 'package.json'), 'utf8')) as {
  engines: { node: string };
  bin: { ratchet: string };
  version: string;
};

/** A command that has not ended so long after its signal never will. */
const HANGS_MS = 20_000;

test('a Node that is too old, and no other: one clear message', async () => {
  const { code, out, err } = await ratchet(['recipes'], { env: { RATCHET_PRETEND_NODE: '20.20.2', RATCHET_PINNED_NODE: '/nowhere/node' } });
  assert.equal(code, 3);
  assert.equal(out, '');
  assert.match(err, /^ratchet: this is Node 20\.20\.2; needed is 24\.0 or later\. .*npm ci.*\n$/);
});

test('a Node that is too old beside the pinned one: the pinned one does it, exit code and all', async () => {
  const env = { RATCHET_PRETEND_NODE: '18.0.0' };
  const listed = await ratchet(['recipes', '--json'], { env });
  assert.equal(listed.code, 0);
  assert.ok((JSON.parse(listed.out) as { name: string }[]).some(({ name }) => name === 'agentprm-household'));
  assert.equal((await ratchet(['recipez'], { env })).code, 2);
});

test('signals to the one process that a person sees are passed on, and it ends as what it handed over to', async () => {
  const begun = async (...args: string[]) => {
    const child = spawn(process.execPath, [ENTRY, ...args], {
      env: { ...process.env, RATCHET_PRETEND_NODE: '20.20.2' },
      stdio: ['pipe', 'pipe', 'inherit'],
      timeout: HANGS_MS,
      killSignal: 'SIGKILL',
    });
    await once(child.stdout, 'data');
    return { child, exited: once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]> };
  };
  // A server ends in order, with code 0.
  const serving = await begun('env', 'serve', '--tasks', '1', '--port', '0');
  serving.child.kill('SIGINT');
  assert.deepEqual(await serving.exited, [0, null]);
  // A game that waits for its player knows of no signal.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    const playing = await begun('play');
    playing.child.kill(signal);
    assert.deepEqual(await playing.exited, [null, signal]);
  }
});

test('the least version is the one that package.json names, and the entry is its bin', () => {
  const least = /LEAST_NODE = \[(\d+), (\d+)\]/.exec(readFileSync(ENTRY, 'utf8'));
  assert.equal(manifest.engines.node, `>=${least?.[1]}.${least?.[2]}.0`);
  assert.equal(manifest.bin.ratchet, './cli/ratchet.js');
});

test('works from any directory, also by its own shebang', async () => {
  const { code, out } = await ratchet(['--version'], { cwd: tmpdir() });
  assert.equal(code, 0);
  assert.equal(out.trim(), manifest.version);
  const direct = spawnSync(ENTRY, ['--version'], { cwd: tmpdir(), encoding: 'utf8' });
  assert.equal(direct.stdout.trim(), manifest.version);
});

test('help names every command, and each explains itself', async () => {
  const { code, out } = await ratchet([]);
  assert.equal(code, 0);
  const promised =
    'start up down doctor worker run ls status watch pause resume stop cancel history show episodes verify recipes play'.split(' ');
  for (const name of promised) assert.match(out, new RegExp(`^  ${name}\\b`, 'm'));
  const { out: help } = await ratchet(['run', '--help']);
  for (const option of ['--scale', '--seed', '--set', '--id', '--watch']) assert.ok(help.includes(option));
});
