/** Task panels on a real store: made, shown, served, and named by a recipe. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { runStage } from '../../activities/run-stage.ts';
import type { Panels } from '../../activities/stages/panels.ts';
import { stages } from '../../activities/stages/registry.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import { storeConfigFromEnvironment } from '../../artifacts/store-config.ts';
import { digestJson } from '../../core/digest.ts';
import type { TaskPanel } from '../../core/nouns.ts';
import { worldNamed } from '../../environments/registry.ts';
import { loadRecipe } from '../../recipes/load.ts';
import { OpenEnvClient } from '../environments/serve/client.ts';
import { belfries } from '../environments/small-games.ts';
import { ENTRY, ratchet } from './cli.ts';

const home = mkdtempSync(join(tmpdir(), 'ratchet-test-panel-'));
after(() => rmSync(home, { recursive: true, force: true }));
const env = { RATCHET_CACHE: join(home, 'cache'), RATCHET_PREFIX: 'test-cli-panel' };
const store = ArtifactStore.connect(storeConfigFromEnvironment({ ...process.env, ...env }));
after(() => store.close());

test('a panel of a folder: equal wherever the folder lies, a smaller one begins a larger one, and the store gives it back', async () => {
  const counts = { train: 3, valid_unseen: 9 };
  const [here, there] = [belfries(join(home, 'here'), counts), belfries(join(home, 'there', 'deeper'), counts)];
  const make = (folder: string, tasks: number, seed: number) =>
    ratchet(['panel', 'make', folder, '--split', 'valid_unseen', '--tasks', String(tasks), '--seed', String(seed), '--json'], { env });
  const made = await Promise.all([make(here, 6, 1), make(there, 6, 1), make(here, 4, 1), make(here, 6, 2)]);
  const panels = made.map(({ code, out, err }) => {
    assert.equal(code, 0, err);
    return JSON.parse(out) as { ref: { sha256: string }; panel: { role: string; turnCap: number; seed: number; tasks: { id: string }[] } };
  });
  const [first, moved, smaller, other] = panels;
  assert.ok(first && moved && smaller && other);
  assert.equal(first.ref.sha256, digestJson(first.panel));
  assert.equal(moved.ref.sha256, first.ref.sha256);
  assert.deepEqual([first.panel.role, first.panel.turnCap, first.panel.seed], ['unseen', 50, 1]);
  assert.equal(new Set(first.panel.tasks.map(({ id }) => id)).size, 6);
  assert.ok(first.panel.tasks.every(({ id }) => id.startsWith('valid_unseen/')));
  assert.deepEqual(smaller.panel.tasks, first.panel.tasks.slice(0, 4));
  assert.notDeepEqual(other.panel.tasks, first.panel.tasks);

  const [shown, many, unknown] = await Promise.all([
    ratchet(['panel', 'show', first.ref.sha256, '--json'], { env }),
    make(here, 10, 1),
    ratchet(['panel', 'show', '0'.repeat(64)], { env }),
  ]);
  assert.deepEqual(JSON.parse(shown.out), first.panel);
  assert.deepEqual([many.code, unknown.code], [2, 2]);
  assert.match(many.err, /split valid_unseen has 9 games/);
});

test('a panel of generated games is that of a run with the same seed', async () => {
  const { code, out, err } = await ratchet(['panel', 'make', 'generated', '--split', 'seen', '--tasks', '3', '--seed', '2'], { env });
  assert.equal(code, 0, err);
  const world = worldNamed('household');
  // activities/stages/panels.ts: the lists of seeds are 100,000 tasks apart.
  const tasks = world.tasks('seen', 200_000, 3);
  const turnCap = Math.max(...tasks.map(({ id }) => world.turnCapOf(id)));
  assert.ok(out.startsWith(`panel ${digestJson({ role: 'seen', environment: 'household', turnCap, tasks })}\n`), out);
});

/** Starts `ratchet env serve --panel` and plays with it while it runs. */
async function withServed<T>(sha256: string, work: (client: OpenEnvClient) => Promise<T>): Promise<T> {
  const child = spawn(process.execPath, [ENTRY, 'env', 'serve', '--port', '0', '--panel', sha256], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  });
  const exited = once(child, 'exit');
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      const url = /^listening on (\S+)/.exec(line)?.[1];
      if (url !== undefined) return await work(await OpenEnvClient.connect(url));
    }
    throw new Error('it ended before it listened');
  } finally {
    child.kill('SIGKILL');
    await exited;
  }
}

test('a served panel has its games and no others, in its order, whether they are files or generated', async () => {
  const folder = belfries(join(home, 'served'), { valid_seen: 5 });
  const world = worldNamed('household');
  for (const args of [
    [folder, '--split', 'valid_seen', '--tasks', '3'],
    ['generated', '--split', 'seen', '--tasks', '3'],
  ]) {
    const { out, err } = await ratchet(['panel', 'make', ...args, '--json'], { env });
    assert.equal(err, '');
    const { ref, panel } = JSON.parse(out) as { ref: { sha256: string }; panel: TaskPanel };
    // The store has the games by now: the folder may go.
    rmSync(folder, { recursive: true, force: true });
    await withServed(ref.sha256, async (client) => {
      for (const [index, { id, sha256 }] of panel.tasks.entries()) {
        const { data } = await client.reset();
        assert.deepEqual(data.observation?.['task'], { id, split: 'seen', index, sha256 });
        const text = String(data.observation?.['text']);
        if (args[0] === 'generated') assert.equal(text, world.open(id).observation);
        else assert.match(text, /^-= A belfry =-/);
      }
      assert.match(JSON.stringify(await client.reset({ split: 'seen', index: 3 })), /split seen has tasks 0 to 2/);
      assert.match(JSON.stringify(await client.reset({ split: 'train' })), /The splits are seen/);
    });
  }
  const both = await ratchet(['env', 'serve', '--panel', '0'.repeat(64), '--games', home], { env });
  const unknown = await ratchet(['env', 'serve', '--panel', '0'.repeat(64)], { env });
  assert.deepEqual([both.code, unknown.code], [2, 2]);
  assert.match(both.err, /--panel: .* not together with --games/);
  assert.match(unknown.err, /--panel: .* the store has no such object/);
});

test('a recipe may name stored panels; one for something else, or with games that the run learns from, is refused', async () => {
  const world = worldNamed('household');
  const storedOf = async (role: TaskPanel['role'], tasks: TaskPanel['tasks']) =>
    (await store.putJson({ role, environment: 'household', turnCap: 30, tasks })).sha256;
  const make = (...overrides: string[]) => {
    const { seed, environment, panels } = loadRecipe('agentprm-household', { scale: 'micro', seed: 3, overrides });
    const deps = { stages, store, scope: randomUUID(), iteration: 0, fingerprint: 'test/1', checkpointIntervalMs: 0, warn: () => {} };
    return runStage<Panels>('makePanels', { seed, environment, panels }, deps);
  };
  const mine = await storedOf('unseen', world.tasks('unseen', 7, 5));
  const [usual, named] = [await make(), await make(`panels.unseen=${mine}`)];
  assert.deepEqual([named.unseen.ref.sha256, named.unseen.tasks], [mine, 5]);
  assert.deepEqual({ ...named, unseen: usual.unseen }, usual, 'the other panels are those of the seed');

  await assert.rejects(make(`panels.seen=${mine}`), {
    type: 'BadInput',
    message: /panels\.seen: .* a panel of seen tasks of household is needed; this one has unseen tasks of household/,
  });
  const learned = world.tasks('train', 300_000 + 4, 1);
  await assert.rejects(make(`panels.unseen=${await storedOf('unseen', learned)}`), {
    type: 'BadInput',
    message: new RegExp(`panels\\.unseen: "${learned[0]?.id}" .* also in the train panel`),
  });
  for (const count of ['many', '0', mine.slice(1)])
    assert.throws(() => loadRecipe('agentprm-household', { scale: 'micro', overrides: [`panels.unseen=${count}`] }), {
      type: 'BadInput',
      message: /panels\.unseen/,
    });
  assert.throws(() => loadRecipe('agentprm-household', { scale: 'micro', overrides: [`panels.train=${mine}`] }), /panels\.train/);
  // Before anything starts.
  const run = await ratchet(['run', 'agentprm-household', '--scale', 'micro', '--set', `panels.unseen=${'f'.repeat(64)}`], { env });
  assert.equal(run.code, 2, run.err);
  assert.match(run.err, /panels\.unseen: .* the store has no such object/);
});
