/**
 * A model by the name that a person gives it, as a folder on this machine: a folder that is there, or the newest (or a named) iteration of a run, whose
 * files are brought from the store once and kept under their digest.
 */
import { createWriteStream, existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { badInput } from '../core/errors.ts';
import type { ModelRef } from '../core/nouns.ts';
import { requireBulk } from '../artifacts/retention.ts';
import type { ArtifactStore } from '../artifacts/store.ts';
import { isIterationBody } from './records.ts';
import { requireRecords } from './runs.ts';
import { home, withSession } from './session.ts';

export type ServableKind = 'policy' | 'rewardModel';

/** Throws BadInput, naming `field`, for what is neither a folder nor a run that has such a model. */
export async function fetchServable(kind: ServableKind, asked: string, field: string): Promise<{ folder: string; name: string }> {
  if (existsSync(asked)) return { folder: resolve(asked), name: basename(resolve(asked)) };
  if (/[/\\]/.test(asked)) throw badInput(field, asked, 'there is no such folder');
  const [, run, at] = /^([^@]*)(?:@(\d+))?$/.exec(asked) ?? [];
  if (run === undefined) throw badInput(field, asked, 'a folder, a run, or <run>@<iteration>');
  return withSession({ borrow: true }, async ({ store }) => {
    const { iterations } = await requireRecords(store, run);
    await requireBulk(store, run);
    const all = iterations.filter(({ body }) => kind === 'policy' || isIterationBody(body));
    const having = all.filter(({ iteration }) => at === undefined || iteration === Number(at)).at(-1);
    if (!having) {
      const there = all.map(({ iteration }) => `${run}@${iteration}`).join(', ');
      throw badInput(
        field,
        asked,
        there ? `one of ${there}` : 'a run with a closed iteration that made such a model; this one has none yet',
      );
    }
    const { body, iteration } = having;
    const ref = kind === 'rewardModel' && isIterationBody(body) ? body.rewardModel.rewardModel : body.policy;
    return { folder: await fetchModel(store, ref), name: `${run}@${iteration}` };
  });
}

async function fetchModel(store: ArtifactStore, { sha256, files }: ModelRef): Promise<string> {
  const folder = join(home(), 'models', sha256);
  if (existsSync(folder)) return folder;
  // Under another name until it is complete.
  const draft = `${folder}.${process.pid}`;
  await mkdir(draft, { recursive: true, mode: 0o700 });
  try {
    for (const [name, ref] of [
      ['config.json', files.config],
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
