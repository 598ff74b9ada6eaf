/**
 * The audit's arithmetic: whether what records and manifests state of episodes agrees with the episodes themselves. Pure: it reads the findings of the
 * walk and nothing else, and claims nothing about objects that are damaged or missing, which the walk has reported already.
 */
import { COUNTS, type Account, type EpisodeSet } from './audit-shapes.ts';
import type { Findings, Problem } from './audit-objects.ts';
import { objectKey } from './store.ts';

/** Problems with the counts, policies and panels of everything that was found. `panels` are the digests of the panels that genesis names. */
export function checkClaims(findings: Findings, panels: ReadonlySet<string>): Problem[] {
  const problems: Problem[] = [];
  for (const [digest, set] of findings.sets) checkSet(problems, findings, objectKey(digest), set);
  for (const { key, value } of findings.gathered) {
    const set = findings.sets.get(value.set.sha256);
    if (set) compareCounts(problems, `account of the episodes ${value.set.sha256.slice(0, 12)}`, key, set.account, value.account);
  }
  for (const { key, value } of findings.evaluated) {
    const what = `evaluation ${value.evaluation.sha256.slice(0, 12)}`;
    const digest = typeof value.episodes === 'string' ? value.episodes : value.episodes.sha256;
    const differ = (aspect: string, expected: string, found: string) => {
      if (expected !== found) problems.push({ what: `${aspect} of ${what}`, key, expected, found });
    };
    if (!panels.has(value.panel)) differ('panel', `one of the run's panels (${[...panels].map(short).join(', ')})`, value.panel);
    const evaluation = findings.evaluations.get(value.evaluation.sha256);
    if (evaluation) {
      differ('panel', evaluation.panel, value.panel);
      differ('policy', evaluation.policy, value.policy);
      differ('success', success(evaluation.success), success(value.success));
    }
    const set = findings.sets.get(digest);
    if (!set) continue;
    differ('policy', set.policy, value.policy);
    const plan = findings.plans.get(set.plan.sha256);
    if (plan) differ('panel', plan.panel.sha256, value.panel);
    const { completed, successes } = set.account;
    differ(
      'success',
      success({ value: completed === 0 ? value.success.value : successes / completed, n: completed }),
      success(value.success),
    );
  }
  return problems;
}

function checkSet(problems: Problem[], findings: Findings, key: string, set: EpisodeSet): void {
  const plan = findings.plans.get(set.plan.sha256);
  const planned = plan?.shards.map(([from, to]) => to - from);
  if (planned && planned.length !== set.shards.length) {
    problems.push({ what: 'number of shards', key, expected: `${planned.length}, as planned`, found: String(set.shards.length) });
  }
  const acting = plan?.actor.policy?.sha256;
  if (acting !== undefined && acting !== set.policy)
    problems.push({ what: 'policy of the episodes', key, expected: acting, found: set.policy });

  const total = emptyAccount();
  set.shards.forEach((shard, index) => {
    const what = `shard ${index}`;
    for (const count of COUNTS) total[count] += shard[count];
    checkBalance(problems, what, key, shard);
    const slots = planned?.[index];
    if (slots !== undefined && slots !== shard.dispatched) {
      problems.push({ what: `dispatched of ${what}`, key, expected: `${slots}, as planned`, found: String(shard.dispatched) });
    }
    const episodes = findings.tables.get(shard.episodes.sha256);
    if (!episodes) return;
    if (!episodes.counts) {
      problems.push({
        what: `episodes of ${what}`,
        key: shard.episodes.key,
        expected: 'the columns of an episode table',
        found: 'another table',
      });
      return;
    }
    compareCounts(problems, what, key, episodes.counts, shard);
    if (episodes.duplicate !== null) {
      problems.push({
        what: `episodes of ${what}`,
        key: shard.episodes.key,
        expected: 'each episode once',
        found: `${episodes.duplicate} twice`,
      });
    }
    const other = episodes.policies.find((policy) => policy !== set.policy);
    if (other !== undefined) {
      problems.push({ what: `policy of the episodes of ${what}`, key: shard.episodes.key, expected: set.policy, found: other });
    }
    const turns = findings.tables.get(shard.turns.sha256);
    if (turns && turns.rows !== shard.turnCount) {
      problems.push({ what: `turns of ${what}`, key: shard.turns.key, expected: `${shard.turnCount} rows`, found: `${turns.rows} rows` });
    }
  });
  checkBalance(problems, 'all shards', key, set.account);
  compareCounts(problems, 'all shards', key, total, set.account);
}

function checkBalance(problems: Problem[], what: string, key: string, account: Account): void {
  const { dispatched, completed, failed, abandoned } = account;
  if (dispatched === completed + failed + abandoned) return;
  const found = `${completed} completed + ${failed} failed + ${abandoned} abandoned`;
  problems.push({ what: `account of ${what}`, key, expected: `${dispatched} dispatched`, found });
}

function compareCounts(problems: Problem[], what: string, key: string, counted: Account, stated: Account): void {
  for (const count of COUNTS) {
    if (counted[count] !== stated[count]) {
      problems.push({ what: `${count} of ${what}`, key, expected: `${counted[count]}, as counted`, found: String(stated[count]) });
    }
  }
}

export function emptyAccount(): Account {
  return { dispatched: 0, completed: 0, failed: 0, abandoned: 0, successes: 0, turnCount: 0 };
}

function success({ value, n }: { value: number; n: number }): string {
  return `${value} of ${n}`;
}

function short(digest: string): string {
  return digest.slice(0, 12);
}
