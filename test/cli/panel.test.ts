/** `ratchet panel make` and `show`, on a real store. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { digestJson } from '../../core/digest.ts';
import { worldNamed } from '../../environments/registry.ts';
import { belfries } from '../environments/small-games.ts';
import { ratchet } from './cli.ts';

const home = mkdtempSync(join(tmpdir(), 'ratchet-test-panel-'));
after(() => rmSync(home, { recursive: true, force: true }));
const env = { RATCHET_CACHE: join(home, 'cache'), RATCHET_PREFIX: 'test-cli-panel' };

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
