/** What the compute children of the limits' worker import. */
import { createStageRunner } from '../../activities/stage-runner.ts';
import { stages } from './stages.ts';

export const createJobRunner = () => createStageRunner(stages);
