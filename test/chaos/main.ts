/**
 * The chaos harness, `npm run chaos -- --kills 100 --seed 7`: runs the loop as a user does, hurts it again and again at moments drawn by the seed, and
 * checks after each run that nothing was lost. Exit code 1 where something was, with the command that repeats the first such run. Linux only.
 */
import { Command, Option } from 'commander';
import { mkdirSync, readFileSync, existsSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { bar, clip, duration } from '../../cli/format.ts';
import { badInput, exitCodeOf, RatchetError } from '../../core/errors.ts';
import { draw } from './figure.ts';
import { ALL_KINDS, KINDS, planCampaign, type Kind, type PlannedRun } from './plan.ts';
import { summary, type Campaign } from './summary.ts';
import { hurtRun, undisturbed } from './run.ts';
import { whyNoMount } from './site.ts';

/** A run of the smallest scale takes 20 s; five outages of a minute and restarts are added. A tiny one takes eight minutes alone. */
const BOUND_MS: Record<string, number> = { micro: 8 * 60_000, tiny: 90 * 60_000 };
const OUTAGE_S = 60;
const BAR_WIDTH = 30;

interface Options {
  kills: string;
  seed: string;
  scale: 'micro' | 'tiny';
  only?: string;
  run?: string;
  outageSeconds: string;
  out: string;
  plan?: boolean;
}

const command = new Command('chaos')
  .description('hurts runs at moments drawn by a seed, and checks that nothing is lost')
  .option('--kills <n>', 'hurts in all', '100')
  .option('--seed <n>', 'draws what is hurt, and when', '7')
  .addOption(new Option('--scale <scale>', 'size of the runs').choices(['micro', 'tiny']).default('micro'))
  .option('--only <kinds>', `only these, separated by commas: ${ALL_KINDS.join(', ')}`)
  .option('--run <a-b>', 'only these runs of the campaign, counted from 1; results are added to those in --out')
  .option('--outage-seconds <n>', 'how long Temporal is away', String(OUTAGE_S))
  .option('--out <file>', 'results as JSON; the figure is written beside it as SVG', '.ratchet/chaos.json')
  .option('--plan', 'print the plan and hurt nothing')
  .action(main);

await command.parseAsync().catch((error: unknown) => {
  if (!(error instanceof RatchetError)) throw error;
  console.error(error.message);
  process.exitCode = exitCodeOf(error);
});

async function main(options: Options): Promise<void> {
  const seed = whole('--seed', options.seed, 0);
  const kills = whole('--kills', options.kills, 1);
  const outageMs = 1000 * whole('--outage-seconds', options.outageSeconds, 1);
  const { scale } = options;
  const boundMs = BOUND_MS[scale] as number;
  const asked = kindsOf(options.only);
  const interrupted = new AbortController();
  // More than one is one: what is being taken down is taken down to the end.
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(name, () => interrupted.abort(new RatchetError('Stopped', 'interrupted; everything was taken down')));
  const { signal } = interrupted;
  const repeat = `npm run chaos -- --kills ${kills} --seed ${seed}${scale === 'micro' ? '' : ` --scale ${scale}`}${options.only ? ` --only ${options.only}` : ''}${outageMs === 1000 * OUTAGE_S ? '' : ` --outage-seconds ${outageMs / 1000}`}`;

  note(`an undisturbed run of scale ${scale} first`);
  const profile = await undisturbed({ scale, boundMs, signal });
  note(`its head: ${profile.head}`);
  const all = planCampaign(profile, { seed, kills, kinds: asked, scale, outageMs });
  const runs = chosen(all, options.run);
  if (options.plan) return console.log(JSON.stringify(runs, null, 2));

  const noMount = asked.includes('disk-full') ? whyNoMount() : null;
  if (noMount !== null) note(`SKIPPED: disk-full needs a file system of fixed size, and none can be mounted here: ${noMount}`);

  const campaign = earlier(options.out, { repeat, head: profile.head, results: [], skipped: 0 });
  const total = runs.reduce((sum, { hurts }) => sum + hurts.length, 0);
  const began = performance.now();
  let struck = 0;
  for (const planned of runs) {
    const hurts = planned.hurts.filter(({ kind }) => noMount === null || kind !== 'disk-full');
    campaign.skipped += planned.hurts.length - hurts.length;
    const show = (what: string) =>
      progress(struck / total, `${struck}/${total} hurts, run ${planned.run} (${planned.setting}): ${what}`, began);
    show('starting');
    const onStrike = ({ kind }: { kind: Kind }) => {
      struck++;
      show(kind);
    };
    const result = await hurtRun({ ...planned, hurts }, profile, { scale, boundMs, onStrike, signal });
    campaign.results = [...campaign.results.filter(({ run }) => run !== planned.run), result].sort((a, b) => a.run - b.run);
    save(options.out, campaign);
    const kinds = hurts.map(({ kind }) => kind).join(', ');
    note(
      `run ${planned.run} (${planned.setting}, ${duration(result.wallS * 1000)}): ${kinds}: ${result.problems.length === 0 ? 'as undisturbed' : 'FAILED'}`,
    );
    for (const problem of result.problems) note(`  ${problem}`);
    if (result.folder) note(`  its folder: ${result.folder}`);
  }
  console.log(['', ...summary(campaign), ''].join('\n'));
  const svg = resolve(options.out).replace(/(\.json)?$/, '.svg');
  writeFileSync(svg, draw(campaign));
  console.log(`every hurt: ${options.out}   figure: ${svg}`);
  const bad = campaign.results.find(({ problems }) => problems.length > 0);
  if (bad) {
    console.log(`\nrun ${bad.run} failed: ${bad.problems[0]}\nto repeat it: ${repeat} --run ${bad.run}`);
    process.exitCode = 1;
  }
}

function whole(name: string, text: string, least: number): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least) throw badInput(name, text, `a whole number of at least ${least}`);
  return value;
}

function kindsOf(only: string | undefined): Kind[] {
  if (only === undefined) return ALL_KINDS;
  return only.split(',').map((name) => {
    if (!Object.hasOwn(KINDS, name)) throw badInput('--only', name, ALL_KINDS.join(', '));
    return name as Kind;
  });
}

function chosen(runs: PlannedRun[], range: string | undefined): PlannedRun[] {
  if (range === undefined) return runs;
  const [, from, to] = /^(\d+)(?:-(\d+))?$/.exec(range) ?? [];
  const picked = runs.filter(({ run }) => run >= Number(from) && run <= Number(to ?? from));
  if (picked.length === 0) throw badInput('--run', range, `a number or range between 1 and ${runs.length}`);
  return picked;
}

/** What earlier calls of the same campaign found is kept. */
function earlier(file: string, fresh: Campaign): Campaign {
  if (!existsSync(file)) return fresh;
  const found = JSON.parse(readFileSync(file, 'utf8')) as Campaign;
  return found.repeat === fresh.repeat && found.head === fresh.head ? found : fresh;
}

function save(file: string, campaign: Campaign): void {
  mkdirSync(dirname(resolve(file)), { recursive: true });
  writeFileSync(file, `${JSON.stringify(campaign, null, 1)}\n`);
}

function progress(share: number, text: string, began: number): void {
  if (!process.stderr.isTTY) return;
  const line = `${bar(share, BAR_WIDTH)} ${duration(performance.now() - began)} ${text}`;
  process.stderr.write(`\r\u001b[K${clip(line, (process.stderr.columns || 80) - 1)}`);
}

function note(line: string): void {
  process.stderr.write(`${process.stderr.isTTY ? '\r\u001b[K' : ''}${line}\n`);
}
