/** Learning rates over a training, as a factor on their peak. A function of the step alone, so that a training goes on after any stop as if it had not been. */
import { badInput } from '../core/errors.ts';

export interface Schedule {
  /** What the factor does after the warm-up: stays at 1, or falls to `floor` at `steps`, along a line or half a cosine (SGDR, arXiv 1608.03983 Eq. 5, without restarts). */
  shape: 'constant' | 'linear' | 'cosine';
  /** Optimizer steps of the training. */
  steps: number;
  /** Steps of linear warm-up: the factor is 1/warmUp at step 0 and 1 at step warmUp - 1. */
  warmUp: number;
  /** In [0, 1]. Not for `constant`. */
  floor: number;
}

/** The factor in [0, 1] at a step (from 0; beyond `steps` as at `steps`). BadInput for a schedule that makes no sense. */
export function rateFactor({ shape, steps, warmUp, floor }: Schedule, step: number): number {
  for (const [name, value] of Object.entries({ steps, warmUp, step }))
    if (!Number.isInteger(value) || value < 0) throw badInput(`schedule: ${name}`, value, 'a whole number of at least 0');
  if (!(floor >= 0 && floor <= 1)) throw badInput('schedule: floor', floor, 'in [0, 1]');
  if (step < warmUp) return (step + 1) / warmUp;
  const progress = Math.min(1, (step - warmUp) / Math.max(1, steps - warmUp));
  if (shape === 'constant') return 1;
  if (shape === 'linear') return floor + (1 - floor) * (1 - progress);
  if (shape === 'cosine') return floor + (1 - floor) * 0.5 * (1 + Math.cos(Math.PI * progress));
  throw badInput('schedule: shape', shape, "'constant', 'linear' or 'cosine'");
}
