import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RatchetError } from '../../core/errors.ts';
import { digestJson } from '../../core/digest.ts';
import { amendRecipe } from '../../recipes/amend.ts';
import { listRecipes, loadRecipe, resolveRecipe } from '../../recipes/load.ts';

const load = (overrides: string[], scale = 'tiny') => loadRecipe('agentprm-household', { scale, overrides });

function refusal(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    assert.ok(error instanceof RatchetError && error.type === 'BadInput', `a typed refusal, not ${String(error)}`);
    return error.message;
  }
  throw new assert.AssertionError({ message: 'nothing was refused' });
}

test('every recipe that comes with Ratchet is valid at every scale it defines', () => {
  for (const { name, scales } of listRecipes()) {
    assert.deepEqual(scales, ['micro', 'tiny', 'small', 'full']);
    for (const scale of scales) assert.equal(loadRecipe(name, { scale }).scale, scale);
  }
});

test('a resolved recipe resolves to itself: what is hashed has every default filled in', () => {
  const recipe = load([]);
  assert.equal(digestJson(resolveRecipe(JSON.parse(JSON.stringify(recipe)))), digestJson(recipe));
});

test('LoRA: a recipe that does not ask for it resolves to the same bytes as before there was any; one that does holds what was asked', () => {
  const update = load([]).update;
  assert.ok(!('lora' in update));
  const asked = load(['update.lora={rank: 4, alpha: 8, targets: [q_proj, v_proj]}']).update;
  assert.deepEqual(asked, { ...update, lora: { rank: 4, alpha: 8, targets: ['q_proj', 'v_proj'] } });
  assert.deepEqual(load(['update.lora.rank=4', 'update.lora.alpha=8']).update, { ...update, lora: { rank: 4, alpha: 8 } });
  assert.match(
    refusal(() => load(['update.lora={rank: 97, alpha: 8}'])),
    /update\.lora\.rank: 97 is not valid; must be at most policy\.width \(96\)/,
  );
  assert.match(
    refusal(() => load(['update.lora={rank: 4, alpha: 8, targets: [lm_head]}'])),
    /update\.lora\.targets\.0: "lm_head" is not valid; .*q_proj/,
  );
});

test('each kind of bad input names the field, the value and what would be valid', () => {
  assert.match(
    refusal(() => loadRecipe('agentprm-houshold', { scale: 'tiny' })),
    /"agentprm-houshold".*did you mean agentprm-household\?/,
  );
  assert.match(
    refusal(() => loadRecipe('./nowhere.yaml', { scale: 'tiny' })),
    /no such file/,
  );
  assert.match(
    refusal(() => load([], 'huge')),
    /scale: "huge".*micro, tiny, small, full/,
  );
  assert.match(
    refusal(() => load(['colect.tasks=3'])),
    /colect: there is no such field; did you mean collect\?/,
  );
  assert.match(
    refusal(() => load(['collect.taks=3'])),
    /collect\.taks: there is no such field; did you mean collect\.tasks\?/,
  );
  assert.match(
    refusal(() => load(['update.margn=0.1'])),
    /update\.margn: there is no such field; did you mean update\.margin\?/,
  );
  assert.match(
    refusal(() => load(['update.margin=2'])),
    /update\.margin: 2 is not valid; a number from 0 to 1$/,
  );
  assert.match(
    refusal(() => load(['collect.tasks=many'])),
    /collect\.tasks: "many" is not valid; a whole number from 1 to 1000000$/,
  );
  assert.match(
    refusal(() => load(['policy.heads=5'])),
    /policy\.heads: 5 is not valid; must divide policy\.width \(96\)/,
  );
  assert.match(
    refusal(() => load(['nonsense'])),
    /--set: "nonsense" is not valid/,
  );
});

test('whatever is put in a field, what would be valid is said in our own words', () => {
  const wrong: [string, RegExp][] = [
    ['collect.temperature=hot', /collect\.temperature: "hot" is not valid; a number above 0 and up to 10$/],
    ['gate.approval=maybe', /gate\.approval: "maybe" is not valid; one of none, person$/],
    ['gate.strategies=[]', /gate\.strategies: \[\] is not valid; a list of at least 1$/],
    ['gate.strategies=[{kind: greedi}]', /gate\.strategies\.0\.kind: "greedi" is not valid; "greedy", or "sample", or "best-of-n"$/],
    ['update.kind=dpo', /update\.kind: "dpo" is not valid; "online-dpo", or one of rejection-sft, more-demonstrations$/],
    ['policy=5', /policy: 5 is not valid; a mapping with the fields layers, width, heads, feedForward, context, initial$/],
    ['name=Big Name', /name: "Big Name" is not valid; use lower-case letters, digits and hyphens$/],
    ['method=', /method: null is not valid; a text that is not empty$/],
    ['iterations=1.5', /iterations: 1\.5 is not valid; a whole number from 0 to 1000$/],
  ];
  for (const [override, message] of wrong)
    assert.match(
      refusal(() => load([override])),
      message,
    );
  // The library's own wording ends nowhere: every leaf is given a value of a wrong type, and one that is far out of range.
  const leaves = (value: unknown, path: string): string[] =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.entries(value).flatMap(([key, inner]) => leaves(inner, path ? `${path}.${key}` : key))
      : [path];
  const whole = load([]);
  for (const path of leaves(whole, ''))
    // maxKl is the one number without an upper bound.
    for (const value of [[[1]], { a: 1 }, ...(path === 'update.maxKl' ? [] : [1e99])]) {
      const fields = structuredClone(whole) as unknown as Record<string, unknown>;
      const keys = path.split('.');
      const parent = keys.slice(0, -1).reduce((at, key) => at[key] as Record<string, unknown>, fields);
      parent[keys.at(-1) as string] = value;
      const message = refusal(() => resolveRecipe(fields));
      assert.ok(message.includes(keys[0] as string), message);
      assert.doesNotMatch(message, /Invalid|expected|received|Too |>=|<=|undefined/, `${path}=${JSON.stringify(value)}`);
    }
});

test('a scale lays its budgets over the recipe, overrides go on top, and the seed is a field like any other', () => {
  const recipe = loadRecipe('agentprm-household', {
    scale: 'micro',
    seed: 7,
    overrides: ['collect.tasks=9', 'gate.strategies=[{kind: greedy}]'],
  });
  assert.equal(recipe.seed, 7);
  assert.equal(recipe.collect.tasks, 9);
  assert.equal(recipe.collect.repeats, 2);
  assert.equal(recipe.policy.width, 32);
  assert.deepEqual(recipe.gate.strategies, [{ kind: 'greedy' }]);
});

test('an amendment changes budgets and hyper-parameters, and nothing that the history rests on', () => {
  const recipe = loadRecipe('agentprm-household', { scale: 'micro' });
  const amended = amendRecipe(recipe, [
    { path: 'collect.tasks', value: 6 },
    { path: 'update.learningRate', value: 1e-5 },
  ]);
  assert.deepEqual(amended, { ...recipe, collect: { ...recipe.collect, tasks: 6 }, update: { ...recipe.update, learningRate: 1e-5 } });
  for (const path of ['seed', 'environment.name', 'panels.unseen', 'warmStart.steps', 'scale'])
    assert.throws(() => amendRecipe(recipe, [{ path, value: 1 }]), { type: 'BadInput', message: /belongs to the run for good/ }, path);
  assert.throws(() => amendRecipe(recipe, [{ path: 'collect.tasks', value: -1 }]), { type: 'BadInput', message: /collect\.tasks/ });
  assert.throws(() => amendRecipe(recipe, [{ path: 'collect.tusks', value: 1 }]), { type: 'BadInput', message: /tusks/ });
  // The whole recipe must still hold together: the training panel is fixed, so there are only so many games to collect.
  assert.throws(() => amendRecipe(recipe, [{ path: 'iterations', value: 900 }]), { type: 'BadInput', message: /panels\.train/ });
  assert.deepEqual(recipe, loadRecipe('agentprm-household', { scale: 'micro' }), 'the recipe itself is not changed');
});
