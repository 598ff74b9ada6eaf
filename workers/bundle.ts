/**
 * The workflow bundle, built when its sources have changed and read from the cache otherwise, so that a worker starts in a second. The cache is named by
 * the digest of the sources and can be deleted at any time.
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

/** Where workflow code may come from: the workflows themselves, and the two folders whose values they may use. */
const SOURCES = ['workflows', 'core', 'recipes'];

export interface WorkflowBundle {
  codePath: string;
  /** Digest of everything that the bundle is made from; equal on every machine with the same sources. */
  digest: string;
}

/** `workflowsPath`: the module that exports every workflow. `directory`: where bundles are kept. */
export async function workflowBundle(workflowsPath: string, directory: string, logger: Logger): Promise<WorkflowBundle> {
  const digest = await sourceDigest(workflowsPath);
  const codePath = join(directory, `workflows-${digest}.js`);
  if (!existsSync(codePath)) {
    const { code } = await bundleWorkflowCode({ workflowsPath, logger });
    await mkdir(directory, { recursive: true });
    const draft = join(directory, `.${randomUUID()}.js`);
    await writeFile(draft, code);
    await rename(draft, codePath);
  }
  return { codePath, digest };
}

async function sourceDigest(workflowsPath: string): Promise<string> {
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
  return hash.digest('hex');
}
