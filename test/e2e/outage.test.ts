/** A store that goes away in the middle of a run, for longer than a call is patient: the run waits, says for what, and goes on when it is back. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { headOf, readChain } from '../../artifacts/run-log.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import { verifyRun } from '../../artifacts/verify.ts';
import { cli, MICRO, newHome, planStrikes, waitFor } from '../support/loop.ts';
import { startS3 } from '../support/s3.ts';

/** How long the run may take to say that it waits: the patience of a call (20 s) and a heartbeat, with room for a busy machine. */
const SAY_BOUND_MS = 90_000;

const home = newHome();
after(() => home.remove());

test('an outage of the store makes the run wait and say so; it completes when the store is back', async () => {
  const s3 = await startS3();
  const where = {
    AWS_ENDPOINT_URL_S3: s3.config.endpoint as string,
    AWS_ACCESS_KEY_ID: s3.config.credentials?.accessKeyId as string,
    AWS_SECRET_ACCESS_KEY: s3.config.credentials?.secretAccessKey as string,
    AWS_REGION: s3.config.region,
    RATCHET_BUCKET: 'outage',
  };
  try {
    const plan = planStrikes(home, [{ target: 'all', moment: { at: 'progress', stage: 'warmStart', done: 10 } }]);
    const run = cli(home, MICRO, { ...plan.env, ...where });
    await waitFor(() => plan.struck(0), 'training under way', run);
    await s3.kill();
    const before = run.output().length;
    await waitFor(
      () => run.output().slice(before).includes(where.AWS_ENDPOINT_URL_S3),
      'the run names the store that it waits for',
      run,
      SAY_BOUND_MS,
    );
    await s3.restart();
    assert.equal((await run.exited).code, 0, run.output());
    const store = ArtifactStore.connect({ ...s3.config, bucket: 'outage' });
    const report = await verifyRun(store, 'run');
    assert.deepEqual(report.problems, []);
    assert.equal(headOf(await readChain(store, 'run'))?.index, 6, 'genesis, and intent and outcome of the warm start and two iterations');
    store.close();
  } finally {
    await s3.stop();
  }
});
