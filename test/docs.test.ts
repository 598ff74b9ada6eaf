/** The pages for operators: every command in them exists with its options, here and in Temporal's own program, and every alert has its section in the runbook. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Command } from 'commander';
import { parse } from 'yaml';
import { program } from '../cli/main.ts';
import { findProgram } from '../infra/resolve.ts';
import { TEMPORAL } from '../infra/programs.ts';

const ROOT = join(import.meta.dirname, '..');
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');
const PAGES = ['README.md', ...globSync('docs/*.md', { cwd: ROOT })];

/** The words of every command in the code blocks of a page, comments left out, by the program that it begins with. */
function commandsOf(page: string, name: string): string[][] {
  const blocks = [...read(page).matchAll(/^```\w*\n(.*?)^```/gms)].map(([, text]) => text as string);
  const begins = new RegExp(`^(?:\\$ |[A-Z]+=\\$\\()?${name} (.*?)\\)?$`);
  return blocks.flatMap((text) =>
    text.split('\n').flatMap((line) => {
      const [, rest] = begins.exec(line.replace(/\s+#.*$/, '').trim()) ?? [];
      return rest === undefined ? [] : [[...rest.matchAll(/"[^"]*"|\S+/g)].map(([word]) => word)];
    }),
  );
}

const optionsOf = (words: readonly string[]) => words.filter((word) => word.startsWith('--')).map((word) => word.split('=')[0] as string);

test('every ratchet command in the pages exists, with its options', () => {
  let seen = 0;
  for (const page of PAGES) {
    for (const words of commandsOf(page, 'npx ratchet')) {
      if (words[0] === '--help') continue;
      let command: Command = program();
      for (const word of words) {
        const next: Command | undefined = command.commands.find((each) => each.name() === word);
        if (!next) break;
        command = next;
      }
      assert.ok(command.name() !== 'ratchet' && command.commands.length === 0, `${page}: ratchet ${words.join(' ')}`);
      const known = command.options.map(({ long }) => long);
      for (const option of optionsOf(words)) assert.ok(known.includes(option), `${page}: ratchet ${words.join(' ')}: ${option}`);
      const given = words.filter((word) => !word.startsWith('-')).length;
      assert.ok(given >= command.registeredArguments.filter(({ required }) => required).length, `${page}: ratchet ${words.join(' ')}`);
      seen++;
    }
  }
  assert.ok(seen > 20, `${seen} commands`);
});

test("every command of Temporal's in the pages is one that its program knows, with its options", async () => {
  const found = await findProgram(TEMPORAL, process.env);
  assert.ok(found);
  const help = new Map<string, string>();
  let seen = 0;
  for (const page of PAGES) {
    for (const words of commandsOf(page, 'temporal')) {
      const at = words.findIndex((word) => word.startsWith('-'));
      const name = words.slice(0, at).join(' ');
      const text = help.get(name) ?? execFileSync(found.path, [...words.slice(0, at), '--help'], { encoding: 'utf8' });
      help.set(name, text);
      // A command that is not there answers with the help of the one above it.
      assert.match(text, new RegExp(`^  temporal ${name} \\[flags\\]`, 'm'), `${page}: temporal ${words.join(' ')}`);
      for (const option of optionsOf(words))
        assert.match(text, new RegExp(`${option}\\b`), `${page}: temporal ${words.join(' ')}: ${option}`);
      seen++;
    }
  }
  assert.ok(seen > 10, `${seen} commands`);
});

test('every alert has a section in the runbook', () => {
  const anchors = [...read('docs/runbook.md').matchAll(/^## (.*)$/gm)].map(([, title]) =>
    (title as string)
      .toLowerCase()
      .replace(/[^a-z0-9 -]/g, '')
      .replaceAll(' ', '-'),
  );
  const { groups } = parse(read('infra/monitoring/alerts.yaml')) as {
    groups: { rules: { alert: string; annotations: { runbook: string } }[] }[];
  };
  const rules = groups.flatMap((group) => group.rules);
  assert.ok(rules.length >= 8);
  for (const { alert, annotations } of rules) {
    const [page, anchor] = annotations.runbook.split('#');
    assert.equal(page, 'docs/runbook.md');
    assert.ok(anchors.includes(anchor as string), `${alert}: ${annotations.runbook}`);
  }
});
