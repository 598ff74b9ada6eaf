/** `ratchet show <run> [iteration]`: the records themselves, as YAML for people or as the JSON that is hashed. */
import { Command } from 'commander';
import { stringify } from 'yaml';
import { badInput } from '../../core/errors.ts';
import { short, size } from '../format.ts';
import { wholeNumber } from '../options.ts';
import { print, printJson } from '../output.ts';
import { recipeOf, recordsOf, requireRecords, requireRun } from '../runs.ts';
import { withSession } from '../session.ts';

export function showCommand(): Command {
  return new Command('show')
    .description("a run's recipe, or the records of one iteration")
    .argument('<run>', 'run id, see `ratchet ls`')
    .argument('[iteration]', 'which iteration; 0 is the warm start')
    .option('--json', 'as JSON, whole digests')
    .action(async (runId: string, iterationText: string | undefined, { json }: { json?: boolean }) => {
      const iteration = wholeNumber('iteration', iterationText);
      await withSession({ borrow: true }, async ({ store }) => {
        const shown = iteration === undefined ? await runOf(store, runId) : await iterationOf(store, runId, iteration);
        if (json) printJson(shown);
        else print(stringify(readable(shown), { aliasDuplicateObjects: false, lineWidth: 0 }).trimEnd());
      });
    });
}

type Store = Parameters<typeof requireRun>[0];

async function runOf(store: Store, runId: string): Promise<object> {
  const manifest = await requireRun(store, runId);
  const [recipe, records] = await Promise.all([recipeOf(store, manifest), recordsOf(store, runId)]);
  const chain = records?.entries.map(({ entry, ref }) => ({
    index: ref.index,
    kind: entry.kind,
    iteration: entry.iteration,
    sha256: ref.sha256,
  }));
  return { run: runId, recipeSha256: manifest.recipeSha256, panels: records?.genesis.panels ?? null, records: chain ?? [], recipe };
}

async function iterationOf(store: Store, runId: string, iteration: number): Promise<object> {
  const records = await requireRecords(store, runId);
  const of = records.entries.filter(({ entry }) => entry.iteration === iteration && entry.kind !== 'genesis');
  const last = records.entries.at(-1)?.entry.iteration ?? 0;
  if (of.length === 0) throw badInput('iteration', iteration, `run ${runId} has iterations 0 to ${last}`);
  return { run: runId, iteration, records: of.map(({ entry, ref }) => ({ sha256: ref.sha256, ...entry })) };
}

/** References and digests in short, so that a record fits a screen. */
function readable(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(readable);
  if (typeof value === 'string' && /^[0-9a-f]{64}$/.test(value)) return short(value);
  if (typeof value !== 'object' || value === null) return value;
  const { key, sha256, bytes, ...rest } = value as Record<string, unknown>;
  if (typeof key === 'string' && typeof sha256 === 'string' && typeof bytes === 'number' && Object.keys(rest).length === 0)
    return `${short(sha256)} (${size(bytes)})`;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, readable(each)]));
}
