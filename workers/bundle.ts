/**
 * The build that a worker is: the digest of the workflow code and of the activities that it calls. The workflow bundle is built once per build and read
 * from the cache otherwise, so that a worker starts in a second; the cache can be deleted at any time.
 */
import { bundleWorkflowCode } from '@temporalio/worker';
import type { Logger } from '@temporalio/worker';
import { createHash, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** In every bundle, whoever traces: see there. */
const INTERCEPTORS = [join(ROOT, 'workflows', 'traces.ts')];

/**
 * Where workflow code may come from: the workflows themselves, and the two folders whose values they may use. And the activities: their names, inputs and
 * outputs are what a run relies on. What a stage does beneath them (learning, environments) may change under a run; its games and models are held to
 * their digests, and numbers to their fingerprint.
 */
const SOURCES = ['workflows', 'core', 'recipes', 'activities'];
/** Of the digest: enough to tell builds apart, short enough to be typed. */
const BUILD_ID_LENGTH = 16;

/** The bundle of a build. `workflowsPath`: the module that exports every workflow. `directory`: where bundles are kept. */
export async function workflowBundle(
  workflowsPath: string,
  build: string,
  directory: string,
  logger: Logger,
): Promise<{ codePath: string }> {
  const codePath = join(directory, `workflows-${build}.js`);
  if (!existsSync(codePath)) {
    const { code } = await bundleWorkflowCode({ workflowsPath, workflowInterceptorModules: INTERCEPTORS, logger });
    await mkdir(directory, { recursive: true });
    const draft = join(directory, `.${randomUUID()}.js`);
    await writeFile(draft, code);
    await rename(draft, codePath);
  }
  return { codePath };
}

/** 16 hexadecimal digits, equal on every machine with the same sources. Not the commit: a changed tree or an installed package has none that is true. */
export async function buildId(workflowsPath: string): Promise<string> {
  const { version } = createRequire(import.meta.url)('@temporalio/worker/package.json') as { version: string };
  const hash = createHash('sha256').update(version);
  const folders = new Set([...SOURCES.map((folder) => join(ROOT, folder)), dirname(workflowsPath)]);
  for (const folder of folders) {
    const names = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith('.ts')).sort();
    for (const name of names) {
      const path = join(folder, name);
      hash.update(`\n${relative(ROOT, path)}\n`).update(await readFile(path));
    }
  }
  return hash.digest('hex').slice(0, BUILD_ID_LENGTH);
}
