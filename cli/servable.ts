/**
 * A model by the name that a person gives it, as a folder on this machine: a folder that is there, or the newest (or a named) iteration of a run, whose
 * files are brought from the store once and kept under their digest.
 */
import { createWriteStream, existsSync } from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { digestJson } from '../core/digest.ts';
import { badInput } from '../core/errors.ts';
import type { ModelRef } from '../core/nouns.ts';
import { requireBulk } from '../artifacts/retention.ts';
import type { ArtifactStore } from '../artifacts/store.ts';
import { worldNamed } from '../environments/registry.ts';
import { usageOf, type Usage } from '../environments/tokenizer.ts';
import { parseConfig } from '../learning/config.ts';
import { configJson } from '../learning/model-files.ts';
import { DEFAULT_CHAT_TEMPLATE } from '../learning/tokenizer/chat-template.ts';
import type { LlamaConfig } from '../learning/types.ts';
import { isIterationBody } from './records.ts';
import { requireRecords } from './runs.ts';
import { home, withSession } from './session.ts';

/** A run, and an iteration of it. */
const RUN = /^([^@]*)(?:@(\d+))?$/;

type ServableKind = 'policy' | 'rewardModel';

interface Asked {
  /** A folder, a run, or `<run>@<iteration>`. */
  source: string;
  /** What it was asked by, for messages. */
  field: string;
}

export interface Servable {
  folder: string;
  name: string;
}

/** With one session for all that are in runs. Throws BadInput for what is neither a folder nor a run that has such a model. */
export async function fetchServables(
  asked: Partial<Record<ServableKind, Asked | undefined>>,
): Promise<Partial<Record<ServableKind, Servable>>> {
  const found: Partial<Record<ServableKind, Servable>> = {};
  const inRuns: (Asked & { kind: ServableKind })[] = [];
  for (const kind of ['policy', 'rewardModel'] as const) {
    const model = asked[kind];
    const local = model && localServable(model);
    if (local) found[kind] = local;
    else if (model) inRuns.push({ kind, ...model });
  }
  if (inRuns.length > 0)
    await withSession({ borrow: true }, async ({ store }) => {
      for (const model of inRuns) found[model.kind] = await servableOfRun(store, model);
    });
  return found;
}

/** Null for what can only be a run. */
function localServable({ source, field }: Asked): Servable | null {
  if (existsSync(source)) return { folder: resolve(source), name: basename(resolve(source)) };
  if (/[/\\]/.test(source)) throw badInput(field, source, 'there is no such folder');
  if (!RUN.test(source)) throw badInput(field, source, 'a folder, a run, or <run>@<iteration>');
  return null;
}

async function servableOfRun(store: ArtifactStore, { kind, source, field }: Asked & { kind: ServableKind }): Promise<Servable> {
  const [, run, at] = RUN.exec(source) as unknown as [string, string, string | undefined];
  const { genesis, iterations } = await requireRecords(store, run);
  await requireBulk(store, run);
  const all = iterations.filter(({ body }) => kind === 'policy' || isIterationBody(body));
  const having = all.filter(({ iteration }) => at === undefined || iteration === Number(at)).at(-1);
  if (!having) {
    const there = all.map(({ iteration }) => `${run}@${iteration}`).join(', ');
    throw badInput(
      field,
      source,
      there ? `one of ${there}` : 'a run with a closed iteration that made such a model; this one has none yet',
    );
  }
  const { body, iteration } = having;
  const ref = kind === 'rewardModel' && isIterationBody(body) ? body.rewardModel.rewardModel : body.policy;
  // A run's models are trained with the words of its world's codec: others are refused (`activities/stages/models.ts`).
  const { codec } = worldNamed(genesis.recipe.environment.name);
  const config = parseConfig(await store.getJson(ref.files.config));
  const usage = usageOf(codec, kind, config.max_position_embeddings);
  if (kind === 'policy') usage.files['chat_template.jinja'] = DEFAULT_CHAT_TEMPLATE;
  return { folder: await fetchModel(store, ref, config, usage), name: `${run}@${iteration}` };
}

/** A model of a run as a folder under the digest of all that is in it. */
async function fetchModel(store: ArtifactStore, { sha256: digest, files }: ModelRef, config: LlamaConfig, usage: Usage): Promise<string> {
  const configText = configJson({ ...config, ...usage.config });
  const folder = join(home(), 'models', digestJson([digest, configText, usage.files]));
  if (existsSync(folder)) return folder;
  // Under another name until it is complete.
  const draft = `${folder}.${process.pid}`;
  await mkdir(draft, { recursive: true, mode: 0o700 });
  try {
    await writeFile(join(draft, 'config.json'), configText);
    for (const [name, text] of Object.entries(usage.files)) await writeFile(join(draft, name), text);
    for (const [name, ref] of [
      ['tokenizer.json', files.tokenizer],
      ['model.safetensors', files.weights],
    ] as const)
      await pipeline(store.getStream(ref), createWriteStream(join(draft, name)));
    await rename(draft, folder).catch((error: NodeJS.ErrnoException) => {
      // Somebody else was faster, with the same bytes.
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    });
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
  return folder;
}
