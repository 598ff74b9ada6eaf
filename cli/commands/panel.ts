/** `ratchet panel`: task panels. `make` draws one from a folder of ALFWorld data or from generated games, and stores it with its games; `show` reads one. */
import { Command } from 'commander';
import { storedPanel } from '../../activities/stages/panels.ts';
import { badInput } from '../../core/errors.ts';
import { nearest } from '../../core/nearest.ts';
import type { ArtifactRef, TaskPanel } from '../../core/nouns.ts';
import { Random } from '../../core/random.ts';
import { TASKS_PER_SEED } from '../../environments/environment.ts';
import { readGame, type IndexedGame } from '../../environments/household/game-index.ts';
import { ALFWORLD_TURN_CAP } from '../../environments/household/world.ts';
import { worldNamed } from '../../environments/registry.ts';
import { indexWithProgress, problemLines } from '../game-folders.ts';
import { count, plural } from '../format.ts';
import { wholeNumber } from '../options.ts';
import { note, print, printJson } from '../output.ts';
import { withSession } from '../session.ts';

const ENVIRONMENT = 'household';
const ROLES: readonly TaskPanel['role'][] = ['train', 'validation', 'seen', 'unseen'];
/** What the games of a folder's split are for. Those of a folder without splits are taken as a test. */
const ROLE_OF_SPLIT: Readonly<Record<string, TaskPanel['role']>> = {
  train: 'train',
  validation: 'validation',
  valid_train: 'train',
  valid_seen: 'seen',
  valid_unseen: 'unseen',
};
/** Tasks shown; `--json` has all. */
const SHOWN = 10;

interface MakeOptions {
  split?: string;
  tasks: string;
  seed: string;
  json?: boolean;
}

export function panelCommand(): Command {
  const make = new Command('make')
    .description('draw a task panel and store it; the same games and options give the same digest, wherever the folder lies')
    .argument('<games>', `a folder of ALFWorld data, or ${worldNamed(ENVIRONMENT).collections.join(', ')}`)
    .option('--split <split>', 'of a folder: one of its splits; of generated games: train, validation, seen, unseen')
    .option('--tasks <n>', 'how many', '134')
    .option('--seed <n>', 'draws the tasks and their order; of generated games: those of a run with this seed', '1')
    .option('--json', 'as JSON')
    .action(makePanel);
  const show = new Command('show')
    .description('show a stored task panel')
    .argument('<sha256>', 'its digest, as `panel make` and evaluations name it')
    .option('--json', 'the whole panel, as JSON')
    .action(showPanel);
  return new Command('panel').description('task panels: what evaluations are compared on').addCommand(make).addCommand(show);
}

async function makePanel(games: string, options: MakeOptions): Promise<void> {
  const tasks = wholeNumber('--tasks', options.tasks) as number;
  const seed = wholeNumber('--seed', options.seed) as number;
  if (tasks < 1 || tasks > TASKS_PER_SEED) throw badInput('--tasks', options.tasks, `a whole number from 1 to ${TASKS_PER_SEED}`);
  const generated = worldNamed(ENVIRONMENT).collections.includes(games);
  const { panel, files } = generated ? ofGenerated(games, options.split, tasks, seed) : ofFolder(games, options.split, tasks, seed);
  const ref = await withSession({ borrow: true }, async ({ store }) => {
    for (const game of files) await store.put(Buffer.from(readGame(game)));
    const stored = await store.putJson(panel);
    // No run refers to it yet: this note is what keeps it, and its games, from `ratchet gc`.
    await store.commit(`panels/${stored.sha256}.json`, { panel: stored });
    return stored;
  });
  if (options.json) printJson({ ref, panel });
  else print(...text(ref, panel));
}

interface Drawn {
  panel: TaskPanel;
  files: readonly IndexedGame[];
}

/** The panel that a run with this seed and so many tasks has. */
function ofGenerated(collection: string, split: string | undefined, count: number, seed: number): Drawn {
  const world = worldNamed(ENVIRONMENT);
  const role = ROLES.find((each) => each === (split ?? 'unseen'));
  if (role === undefined)
    throw badInput('--split', split, `did you mean ${nearest(split ?? '', ROLES)}? Generated games have ${ROLES.join(', ')}`);
  const tasks = world.tasks(role, seed * TASKS_PER_SEED, count, collection);
  return { panel: { role, environment: ENVIRONMENT, turnCap: Math.max(...tasks.map(({ id }) => world.turnCapOf(id))), tasks }, files: [] };
}

/** So many games of the split in an order drawn by the seed: a smaller panel is the beginning of a larger one. */
function ofFolder(folder: string, asked: string | undefined, tasks: number, seed: number): Drawn {
  const index = indexWithProgress(folder);
  if (index.problems.length > 0) note(...problemLines(index));
  const split = asked ?? (index.splits.length === 1 ? index.splits[0] : undefined);
  if (split === undefined || !index.splits.includes(split))
    throw badInput('--split', asked ?? null, `the folder has ${index.splits.join(', ') || 'no games'}`);
  const games = index.games.filter((game) => game.split === split);
  if (games.length < tasks) throw badInput('--tasks', tasks, `split ${split} has ${plural(games.length, 'game')}`);
  const drawn = new Random(['panel', split, seed]).shuffled(games).slice(0, tasks);
  const panel: TaskPanel = {
    role: ROLE_OF_SPLIT[split] ?? 'unseen',
    environment: ENVIRONMENT,
    turnCap: ALFWORLD_TURN_CAP,
    seed,
    tasks: drawn.map(({ id, family, sha256, bytes }) => ({ id, family, sha256, bytes })),
  };
  return { panel, files: drawn };
}

async function showPanel(digest: string, { json }: { json?: boolean }): Promise<void> {
  const { ref, panel } = await withSession({ borrow: true }, ({ store }) => storedPanel(store, digest, 'sha256'));
  if (json) printJson(panel);
  else print(...text(ref, panel));
}

function text({ sha256 }: ArtifactRef, { role, environment, turnCap, seed, tasks }: TaskPanel): string[] {
  const families = Object.entries(Object.groupBy(tasks, ({ family }) => family)).map(([family, of]) => `${of?.length} ${family}`);
  return [
    `panel ${sha256}`,
    `${count(tasks.length)} ${role} tasks of ${environment}, at most ${turnCap} turns${seed === undefined ? '' : `, drawn with seed ${seed}`}: ${families.sort().join(', ')}`,
    ...tasks.slice(0, SHOWN).map(({ id, sha256 }) => `  ${sha256.slice(0, 12)}  ${id}`),
    ...(tasks.length > SHOWN ? [`  and ${count(tasks.length - SHOWN)} more; --json lists all`] : []),
  ];
}
