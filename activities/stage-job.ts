/** The module that a worker's compute children import: the stages of Ratchet. */
import type { JobRunner } from '../learning/compute/protocol.ts';
import { createStageRunner } from './stage-runner.ts';
import { stages } from './stages/registry.ts';

export function createJobRunner(): JobRunner {
  return createStageRunner(stages);
}
