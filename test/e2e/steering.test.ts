/**
 * A run steered while it goes on, as an operator does it with the command line: amended twice with one id and across continue-as-new, asked at the gate,
 * rejected and approved, and then forked. What changed is in the records; who did it, and why, in the attestations.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import { readAttestation, readChain, stagesFolder } from '../../artifacts/run-log.ts';
import type { Steering } from '../../artifacts/record.ts';
import { storeConfigFromEnvironment } from '../../artifacts/store-config.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import { verifyRun } from '../../artifacts/verify.ts';
import type { Decision, IterationBody } from '../../cli/records.ts';
import { endpointEnvironment, runningServers } from '../../infra/servers.ts';
import type { LoopResult, LoopStatus } from '../../workflows/durable-loop.ts';
import { bareEnvironment, cli, newHome, processesWithHome } from '../support/loop.ts';

/** A micro iteration takes some ten seconds on two cores; other tests run beside it. */
const ASK_BOUND_MS = 180_000;
const LOOK_EVERY_MS = 100;

const home = newHome();
let store: ArtifactStore;
let client: Client;

/** The command, which must end with `code`. */
async function ratchet(args: string[], code = 0): Promise<string> {
  const run = cli(home, args);
  const ended = await run.exited;
  assert.equal(ended.code, code, `${args.join(' ')}\n${run.output()}`);
  return run.output();
}

before(async () => {
  await ratchet(['up']);
  const endpoints = await runningServers(home.path, bareEnvironment(home));
  assert.ok(endpoints);
  store = ArtifactStore.connect(storeConfigFromEnvironment(endpointEnvironment(endpoints)));
  client = new Client({ connection: await Connection.connect({ address: endpoints.temporal.address }) });
});
after(async () => {
  store?.close();
  await client?.connection.close();
  await ratchet(['down']);
  const left = processesWithHome(home);
  home.remove();
  assert.deepEqual(left, []);
});

/** Waits until the run asks for approval in that iteration. */
async function asked(runId: string, iteration: number): Promise<NonNullable<LoopStatus['question']>> {
  const deadline = performance.now() + ASK_BOUND_MS;
  for (;;) {
    const { question } = await client.workflow.getHandle(runId).query<LoopStatus>('status');
    if (question?.iteration === iteration) return question;
    assert.ok(performance.now() < deadline, `run ${runId} never asked in iteration ${iteration}`);
    await delay(LOOK_EVERY_MS);
  }
}

/** Every update in the histories of a run's executions, by name: accepted, and any other trace of one. */
async function updatesOf(runId: string): Promise<{ accepted: string[]; others: number }> {
  const accepted: string[] = [];
  let others = 0;
  for await (const execution of client.workflow.list({ query: `WorkflowId = '${runId}'` })) {
    const { events } = await client.workflow.getHandle(runId, execution.runId).fetchHistory();
    for (const event of events ?? []) {
      const { acceptedRequest } = event.workflowExecutionUpdateAcceptedEventAttributes ?? {};
      if (acceptedRequest) accepted.push(acceptedRequest.input?.name ?? '');
      if (event.workflowExecutionUpdateRejectedEventAttributes ?? event.workflowExecutionUpdateAdmittedEventAttributes) others++;
    }
  }
  return { accepted: accepted.sort(), others };
}

/** What Temporal's own dashboard shows of a run: its current details, memo and search attributes. A summary is not carried across continue-as-new. */
async function shown(runId: string): Promise<{ details: string; memo: unknown; attributes: Record<string, unknown> }> {
  const handle = client.workflow.getHandle(runId);
  const { currentDetails } = await handle.query<{ currentDetails: string }>('__temporal_workflow_metadata');
  const { memo, typedSearchAttributes } = await handle.describe();
  const ours = typedSearchAttributes.getAll().filter(({ key }) => key.name.startsWith('Ratchet'));
  return {
    details: currentDetails,
    memo,
    attributes: Object.fromEntries(ours.map(({ key, value }) => [key.name, value])),
  };
}

async function steeringOf(runId: string, records: number): Promise<Steering[]> {
  const all = await Promise.all(Array.from({ length: records }, (_, index) => readAttestation(store, runId, index)));
  return all.flatMap((attestation) => attestation?.steering ?? []);
}

test('amended, rejected, approved: what changed is recorded, who and why is attested', async () => {
  // A gate that takes any candidate, so that a person is asked whatever the seed learns.
  const gate = ['--set', 'gate.approval=person', '--set', 'gate.minGain=-1', '--set', 'iterations=1'];
  await ratchet(['run', 'agentprm-household', '--scale', 'micro', '--id', 'steered', ...gate]);

  const amend = [
    'amend',
    'steered',
    '--set',
    'iterations=2',
    '--set',
    'collect.repeats=1',
    '--as',
    'ada',
    '--reason',
    'one more',
    '--update-id',
    'u1',
  ];
  // While one iteration is the last there is nothing that an amendment could change, unless it adds one.
  await asked('steered', 1);
  assert.match(await ratchet(['amend', 'steered', '--set', 'collect.repeats=1'], 2), /raise iterations/);
  assert.match(await ratchet(['amend', 'steered', '--set', 'seed=5'], 2), /seed.*belongs to the run for good/);
  assert.match(await ratchet(['amend', 'steered', '--set', 'iterations=2', '--set', 'collect.repeats=0'], 2), /collect\.repeats/);
  await ratchet(amend);
  await ratchet(amend);
  assert.deepEqual(await shown('steered'), {
    details: 'iteration 1 of 1: approval',
    memo: { method: 'AgentPRM (arXiv 2502.10325), Algorithm 1 with online DPO', scale: 'micro', seed: 1 },
    attributes: { RatchetRecipe: 'agentprm-household', RatchetPhase: 'approval', RatchetIteration: 1, RatchetBestSuccess: 0 },
  });
  assert.match(await ratchet(['status', 'steered']), /ratchet approve steered/);
  await ratchet(['reject', 'steered', '--as', 'grace', '--reason', 'looks odd']);

  const question = await asked('steered', 2);
  assert.equal(question.iteration, 2);
  await ratchet(['approve', 'steered', '--as', 'grace']);
  const result = (await client.workflow.getHandle('steered').result()) as LoopResult;
  assert.equal(result.iterations, 2);
  assert.match(await ratchet(['approve', 'steered'], 2), /completed/);
  // Three amendments were refused, one was sent twice, and one answer came too late: none of these is in any history.
  assert.deepEqual(await updatesOf('steered'), { accepted: ['amend', 'approve', 'reject'], others: 0 });

  const chain = await readChain(store, 'steered');
  const bodies = chain.map(({ entry }) => entry.body as Record<string, unknown>);
  const decisions = [4, 6].map((index) => bodies[index]?.['decision'] as Decision);
  assert.deepEqual(
    decisions.map(({ promoted, verdict }) => [promoted, verdict]),
    [
      [false, 'rejected'],
      [true, 'approved'],
    ],
  );
  // Once, although it was sent twice.
  assert.deepEqual(bodies[5]?.['amendments'], [
    { path: 'iterations', value: 2 },
    { path: 'collect.repeats', value: 1 },
  ]);
  assert.equal(bodies[3]?.['amendments'], undefined);
  // Micro collects 12 games: two repeats before, one after.
  const dispatched = [4, 6].map((index) => (bodies[index] as unknown as IterationBody).rollouts.account.dispatched);
  assert.deepEqual(dispatched, [24, 12]);
  const steering = await steeringOf('steered', chain.length);
  assert.deepEqual(
    steering.map(({ what, by, reason }) => [what.split(' ')[0], by, reason]),
    [
      ['amend', 'ada', 'one more'],
      ['reject', 'grace', 'looks odd'],
      ['approve', 'grace', null],
    ],
  );
  assert.deepEqual((await verifyRun(store, 'steered')).problems, []);
});

test('a fork goes on from a closed iteration, names its parent, and computes nothing again; stopped at its gate, nobody has rejected anything', async () => {
  await ratchet(['fork', 'steered', '--at-iteration', '1', '--set', 'iterations=2', '--id', 'forked']);
  await asked('forked', 2);
  await ratchet(['stop', 'forked', '--as', 'grace']);
  await client.workflow.getHandle('forked').result();
  const parent = await readChain(store, 'steered');
  const chain = await readChain(store, 'forked');
  assert.deepEqual(
    chain.map(({ entry }) => [entry.kind, entry.iteration]),
    [
      ['genesis', 1],
      ['intent', 2],
      ['outcome', 2],
    ],
  );
  const { decision } = chain[2]!.entry.body as IterationBody;
  assert.deepEqual([decision.promoted, decision.verdict], [false, 'unanswered']);
  const acts = await steeringOf('forked', chain.length);
  assert.deepEqual(
    acts.map(({ what, by }) => [what, by]),
    [['stop', 'grace']],
  );
  const genesis = chain[0]?.entry.body as { parent: unknown; policy: { sha256: string } };
  assert.deepEqual(genesis.parent, parent[4]?.ref);
  const intent = chain[1]?.entry.body as { from: { sha256: string } } | undefined;
  assert.equal(intent?.from.sha256, genesis.policy.sha256);
  const stages: string[] = [];
  for await (const { key } of store.list(stagesFolder('forked')))
    stages.push((await store.readManifest<{ stage: string }>(key))?.stage ?? '');
  assert.ok(stages.includes('updatePolicy') && !stages.includes('warmStart') && !stages.includes('makePanels'), stages.join());
  assert.deepEqual((await verifyRun(store, 'forked')).problems, []);
  assert.match(await ratchet(['history', 'forked']), /iteration 2 of 2 done/);
  assert.match(await ratchet(['fork', 'steered', '--at-iteration', '9'], 2), /closed iteration of steered: 0, 1, 2/);
});
