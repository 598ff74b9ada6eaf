/**
 * What the modules of workflow code hold: no state of their own that outlives a run or is shared by two, and no look at the machine. The bundle shows that
 * no Node module gets in (test/workers/bundle.test.ts); histories show that the same is decided again (test/workers/versions.test.ts).
 */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import ts from 'typescript';

const FOLDER = join(import.meta.dirname, '..', '..', 'workflows');
/** What tells of the machine, the time of day aside, which Temporal replaces with that of the history. */
const MACHINE = ['process', 'globalThis', 'global', 'require', 'fetch', 'navigator', 'performance', 'crypto', 'Worker', 'WeakRef'];
/** Methods that change what they are called on. */
const CHANGES = /^(push|pop|shift|unshift|splice|sort|reverse|fill|set|add|delete|clear|assign)$/;

/** What is wrong with a module of workflow code, each as `<line>: <what>`. */
function faults(text: string): string[] {
  const source = ts.createSourceFile('module.ts', text, ts.ScriptTarget.Latest, true);
  const found: string[] = [];
  const report = (node: ts.Node, what: string) => found.push(`${source.getLineAndCharacterOfPosition(node.getStart()).line + 1}: ${what}`);
  const held = new Set<string>();
  for (const statement of source.statements) {
    if (!ts.isVariableStatement(statement)) continue;
    if (!(statement.declarationList.flags & ts.NodeFlags.Const)) report(statement, 'a variable of the module');
    for (const { name } of statement.declarationList.declarations) if (ts.isIdentifier(name)) held.add(name.text);
  }
  /** The name that a chain of properties and elements begins with. */
  const rootOf = (node: ts.Expression): string | null =>
    ts.isPropertyAccessExpression(node) || ts.isElementAccessExpression(node)
      ? rootOf(node.expression)
      : ts.isIdentifier(node)
        ? node.text
        : null;
  const changed = (node: ts.Expression) => {
    if (held.has(rootOf(node) ?? '')) report(node, `changes ${rootOf(node)} of the module`);
  };
  const visit = (node: ts.Node): void => {
    if (
      ts.isBinaryExpression(node) &&
      node.operatorToken.kind >= ts.SyntaxKind.FirstAssignment &&
      node.operatorToken.kind <= ts.SyntaxKind.LastAssignment
    )
      changed(node.left);
    if (
      (ts.isPrefixUnaryExpression(node) || ts.isPostfixUnaryExpression(node)) &&
      [ts.SyntaxKind.PlusPlusToken, ts.SyntaxKind.MinusMinusToken].includes(node.operator)
    )
      changed(node.operand as ts.Expression);
    if (ts.isDeleteExpression(node)) changed(node.expression);
    if (ts.isCallExpression(node) && ts.isPropertyAccessExpression(node.expression) && CHANGES.test(node.expression.name.text)) {
      const on = node.expression.expression;
      changed(ts.isIdentifier(on) && on.text === 'Object' && node.arguments[0] ? node.arguments[0] : on);
    }
    const isName = ts.isPropertyAccessExpression(node.parent ?? node) && (node.parent as ts.PropertyAccessExpression).name === node;
    if (ts.isIdentifier(node) && MACHINE.includes(node.text) && !isName) report(node, `looks at the machine: ${node.text}`);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

test('no module of workflow code holds state or looks at the machine', () => {
  const files = globSync('*.ts', { cwd: FOLDER });
  assert.ok(files.length >= 6, files.join());
  for (const file of files) assert.deepEqual(faults(readFileSync(join(FOLDER, file), 'utf8')), [], file);
});

test('the search finds what it is there for', () => {
  const wrong: [string, RegExp][] = [
    ['let runs = 0;', /1: a variable/],
    ['var runs = 0;', /1: a variable/],
    ['const seen = new Set();\nexport function f(x) { seen.add(x); }', /2: changes seen/],
    ['const last = {};\nexport function f(x) { last.value = x; }', /2: changes last/],
    ['const all = [[]];\nfunction f() { all[0].push(1); }', /2: changes all/],
    ['const count = { n: 0 };\nfunction f() { count.n++; }', /2: changes count/],
    ['const a = {};\nfunction f() { Object.assign(a, { b: 1 }); delete a.b; }', /2: changes a/],
    ["export const home = () => process.env['HOME'];", /1: looks at the machine: process/],
  ];
  for (const [text, told] of wrong) assert.match(faults(text).join('\n'), told, text);
  assert.deepEqual(faults('const BOUND = 3;\nexport function f(xs) { const ys = []; ys.push(BOUND); xs.process = 1; return ys; }'), []);
});
