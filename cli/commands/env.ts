/** `ratchet env serve`: other programs play our environments over OpenEnv's WebSocket protocol or AgentGym's HTTP routes. */
import { Command } from 'commander';
import { readFileSync } from 'node:fs';
import { worldOf } from '../../activities/stages/games.ts';
import { storedPanel } from '../../activities/stages/panels.ts';
import { badInput } from '../../core/errors.ts';
import type { GameIndex } from '../../environments/household/game-index.ts';
import { worldNamed } from '../../environments/registry.ts';
import { tasksOfFolder, tasksOfPanel, tasksOfWorld, type ServedTasks } from '../../environments/serve/tasks.ts';
import { note, print } from '../output.ts';
import { withSession } from '../session.ts';
import { untilAskedToEnd } from '../signals.ts';
import { indexWithProgress, problemLines } from '../game-folders.ts';

const GENERATED = 'generated';
const DEFAULTS = { host: '127.0.0.1', port: 8000, tasks: 1000, maxSessions: 256, idleTimeoutS: 15 * 60, sessionTimeoutS: 24 * 60 * 60 };
/** Reverse proxies and NATs forget connections that are silent for a minute. */
const PING_INTERVAL_MS = 20_000;
/** A list of tasks is made before serving; a task takes some 0.2 ms. */
const MOST_TASKS = 100_000;
const MOST_SESSIONS = 100_000;
/** Timers of Node hold at most 2^31 ms. */
const LONGEST_TIMEOUT_S = 2_000_000;

interface Options {
  host: string;
  port: string;
  games: string;
  tasks: string;
  panel?: string;
  maxSessions: string;
  idleTimeout: string;
  sessionTimeout: string;
}

export function envCommand(): Command {
  const serve = new Command('serve')
    .description('serve the household world to other programs (OpenEnv: WebSocket /ws; AgentGym: POST /create) until Ctrl-C')
    .option('--games <folder>', 'a folder of ALFWorld data, or `generated`', GENERATED)
    .option('--tasks <n>', 'tasks in each split of the generated games', String(DEFAULTS.tasks))
    .option('--panel <sha256>', 'exactly the games of this stored panel, in its order, instead')
    .option(
      '--host <address>',
      'address to listen on; there is no authentication, so keep to this machine or a trusted network',
      DEFAULTS.host,
    )
    .option('--port <n>', '0 takes a free one', String(DEFAULTS.port))
    .option('--max-sessions <n>', 'live sessions at a time', String(DEFAULTS.maxSessions))
    .option('--idle-timeout <seconds>', 'a session unused for longer is ended', String(DEFAULTS.idleTimeoutS))
    .option('--session-timeout <seconds>', 'a session older than this is ended', String(DEFAULTS.sessionTimeoutS))
    .action(serveCommand);
  return new Command('env').description('environments for other programs').addCommand(serve);
}

async function serveCommand(options: Options): Promise<void> {
  const bounds = {
    maxSessions: within('--max-sessions', options.maxSessions, 1, MOST_SESSIONS),
    idleTimeoutMs: within('--idle-timeout', options.idleTimeout, 1, LONGEST_TIMEOUT_S) * 1000,
    sessionTimeoutMs: within('--session-timeout', options.sessionTimeout, 1, LONGEST_TIMEOUT_S) * 1000,
  };
  const port = within('--port', options.port, 0, 65_535);
  const perSplit = within('--tasks', options.tasks, 1, MOST_TASKS);
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };
  if (options.panel !== undefined && options.games !== GENERATED)
    throw badInput('--panel', options.panel, 'not together with --games: the panel says which games');
  // Only this command needs the server's libraries.
  const { serveEnvironment } = await import('../../environments/serve/server.ts');
  const tasks =
    options.panel !== undefined
      ? await tasksOfStored(options.panel)
      : options.games === GENERATED
        ? tasksOfWorld(worldNamed('household'), perSplit)
        : tasksOfFolder(indexed(options.games));
  const server = await serveEnvironment(tasks, {
    ...bounds,
    host: options.host,
    port,
    version,
    pingIntervalMs: PING_INTERVAL_MS,
    onBug: (error) => note(`ratchet: an answer failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`),
  });
  const asked = untilAskedToEnd();
  print(`${tasks.description}`, `listening on ${server.url} (at most ${bounds.maxSessions} sessions)`);
  await asked;
  await server.close();
  const { opened, refused, ended } = server.counts();
  print(
    `served ${opened} sessions, refused ${refused}; ended: ${Object.entries(ended)
      .map(([why, n]) => `${n} ${why}`)
      .join(', ')}`,
  );
}

/** The panel's games are fetched once and kept in memory, some 0.2 MB each where they are files; the store is not needed while it serves. */
async function tasksOfStored(digest: string): Promise<ServedTasks> {
  return withSession({ borrow: true }, async ({ store }) => {
    const { panel } = await storedPanel(store, digest, '--panel');
    const world = await worldOf(
      store,
      panel,
      panel.tasks.map(({ id }) => ({ task: id })),
    );
    return tasksOfPanel(panel, digest, world);
  });
}

/** Games that cannot be served are named, and the others are served. */
function indexed(folder: string): GameIndex {
  const index = indexWithProgress(folder);
  if (index.games.length === 0) throw badInput('--games', folder, 'no game of this folder can be played');
  if (index.problems.length > 0) note(...problemLines(index));
  return index;
}

/** A whole number within bounds. Throws BadInput. */
function within(option: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < least || value > most) throw badInput(option, text, `a whole number from ${least} to ${most}`);
  return value;
}
