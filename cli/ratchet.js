#!/usr/bin/env node
/**
 * The door of the `ratchet` command. Plain JavaScript, so that any Node can read it: where Node is too old to run TypeScript it hands over to the pinned
 * Node among the dependencies, or says what to install. It does nothing else; `cli/main.ts` is the program.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import module from 'node:module';
import { constants } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The first long-term release that runs TypeScript files and 64-bit WebAssembly memories without a flag. Kept equal to `engines` in package.json by a test. */
const LEAST_NODE = [24, 0];
/** Set for the process that was handed over to, so that a broken dependency cannot hand over for ever. */
const HANDED_OVER = 'RATCHET_HANDED_OVER';
/** What is sent to this process is meant for the one that it handed over to: asking it to end, to write checkpoints, to draw anew. */
const PASSED_ON = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2', 'SIGWINCH', 'SIGCONT'];

const version = process.env.RATCHET_PRETEND_NODE ?? process.versions.node;
const [major = 0, minor = 0] = version.split('.').map(Number);
const recent = major > LEAST_NODE[0] || (major === LEAST_NODE[0] && minor >= LEAST_NODE[1]);
// `npm ci` puts it there; RATCHET_PINNED_NODE is for tests.
const pinned = process.env.RATCHET_PINNED_NODE ?? fileURLToPath(new URL('../node_modules/node/bin/node', import.meta.url));

if (recent) {
  // Halves the time until a command begins, and until the workers and compute children do that it starts; Node keeps the cache in the system's temporary directory.
  module.enableCompileCache?.();
  // A folder for each version of Node is in it.
  const cache = module.getCompileCacheDir?.();
  if (cache) process.env.NODE_COMPILE_CACHE ??= dirname(cache);
  const { main } = await import('./main.ts');
  await main(process.argv.slice(2));
} else if (existsSync(pinned) && !process.env[HANDED_OVER]) {
  handOver();
} else {
  const wanted = LEAST_NODE.join('.');
  console.error(
    `ratchet: this is Node ${version}; needed is ${wanted} or later. Run \`npm ci\` in the ratchet folder (it brings its own), or install Node 24.`,
  );
  process.exitCode = 3;
}

/** Runs the same command with the pinned Node, and ends as it ends. The channel tells it when this process is killed, so that it does not go on without a terminal. */
function handOver() {
  const { RATCHET_PRETEND_NODE: _, ...env } = process.env;
  const child = spawn(pinned, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
    env: { ...env, [HANDED_OVER]: '1' },
    // In a group of its own, so that Ctrl-C in the terminal, too, reaches it once: by this process.
    detached: true,
  });
  for (const signal of PASSED_ON) process.on(signal, () => child.kill(signal));
  process.on('SIGTSTP', () => {
    child.kill('SIGSTOP');
    process.kill(process.pid, 'SIGSTOP');
  });
  child.on('error', (error) => {
    console.error(`ratchet: ${pinned} cannot be run: ${error.message}`);
    process.exitCode = 3;
  });
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code ?? 1);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
    // A signal that ends nobody in this process.
    process.exit(128 + constants.signals[signal]);
  });
}
