/** The shape of the house: layers that import only downward, files short enough to read, nothing switched off. Read from the sources as they are. */
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';

const ROOT = join(import.meta.dirname, '..');

/** From the top down (docs/decisions.md, "The house"). Folders of one line do not import each other. */
const LAYERS = [
  ['cli', 'dashboard'],
  ['workers'],
  ['workflows'],
  ['activities'],
  ['agents'],
  ['rewards'],
  ['learning', 'environments', 'artifacts', 'recipes', 'infra'],
  ['core'],
];
const LONGEST_FILE = 400;

const folders = LAYERS.flat();
const sources = folders.flatMap((folder) => globSync(`${folder}/**/*.ts`, { cwd: ROOT }));
const layerOf = (folder: string) => LAYERS.findIndex((layer) => layer.includes(folder));

interface Import {
  from: string;
  to: string;
  typeOnly: boolean;
}

function importsOf(file: string): Import[] {
  const text = readFileSync(join(ROOT, file), 'utf8');
  const out: Import[] = [];
  for (const match of text.matchAll(/^(?:import|export)\s+(type\s)?[^'"`;]*?from\s+'(\.[^']+)'|import\('(\.[^']+)'\)/gm)) {
    const target = (match[2] ?? match[3]) as string;
    out.push({ from: file, to: relative(ROOT, join(ROOT, dirname(file), target)), typeOnly: match[1] !== undefined });
  }
  return out;
}

const imports = sources.flatMap(importsOf);
const folderOf = (file: string) => file.split('/')[0] as string;

test('every import inside the house is found: the check below cannot pass by seeing nothing', () => {
  assert.ok(sources.length > 30 && imports.length > 100, `${sources.length} files, ${imports.length} imports`);
});

test('imports point down, with no exception', () => {
  const upward = imports.filter(({ from, to }) => {
    const [a, b] = [folderOf(from), folderOf(to)];
    return a !== b && (layerOf(b) === -1 || layerOf(b) <= layerOf(a));
  });
  assert.deepEqual(upward, []);
});

test('workflow code takes only types from below, save from core and the recipe schema with its amendments', () => {
  const values = imports.filter(
    ({ from, to, typeOnly }) =>
      folderOf(from) === 'workflows' &&
      !typeOnly &&
      !['workflows', 'core'].includes(folderOf(to)) &&
      !['recipes/schema.ts', 'recipes/amend.ts'].includes(to),
  );
  assert.deepEqual(values, []);
});

test('no import cycle', () => {
  const next = new Map<string, string[]>();
  for (const { from, to, typeOnly } of imports) if (!typeOnly) next.set(from, [...(next.get(from) ?? []), to]);
  const done = new Set<string>();
  const walk = (file: string, path: string[]): void => {
    assert.ok(!path.includes(file), `cycle: ${[...path.slice(path.indexOf(file)), file].join(' -> ')}`);
    if (done.has(file)) return;
    for (const target of next.get(file) ?? []) walk(target, [...path, file]);
    done.add(file);
  };
  for (const file of next.keys()) walk(file, []);
});

test(`no source file is longer than ${LONGEST_FILE} lines`, () => {
  const long = sources
    .map((file) => ({ file, lines: readFileSync(join(ROOT, file), 'utf8').trimEnd().split('\n').length }))
    .filter(({ lines }) => lines > LONGEST_FILE);
  assert.deepEqual(long, []);
});

test('what people read has no gap and no dead link', () => {
  for (const file of ['README.md', 'FEATURES.md', ...globSync('docs/*.md', { cwd: ROOT })]) {
    const text = readFileSync(join(ROOT, file), 'utf8');
    assert.doesNotMatch(text, /@@/, file);
    for (const [, target] of text.matchAll(/\]\((?!https?:)([^)#]+)/g))
      assert.ok(existsSync(join(ROOT, dirname(file), target as string)), `${file}: ${target}`);
  }
});

test('no test is switched off or focused', () => {
  const off = globSync('test/**/*.ts', { cwd: ROOT }).filter((file) =>
    /\b(?:test|it|describe|suite)\.(?:skip|only|todo)\(|\{\s*(?:skip|only|todo)\s*:/.test(readFileSync(join(ROOT, file), 'utf8')),
  );
  assert.deepEqual(off, []);
});
