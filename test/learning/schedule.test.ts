/** Learning-rate schedules: values by hand from their definitions, and the laws that hold for all of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { rateFactor } from '../../learning/schedule.ts';
import type { Schedule } from '../../learning/schedule.ts';

const factors = (schedule: Schedule, steps: number[]) => steps.map((step) => Number(rateFactor(schedule, step).toFixed(12)));

test('warm-up, then constant, a line, or half a cosine (arXiv 1608.03983 Eq. 5) down to the floor, by hand', () => {
  const common = { steps: 12, warmUp: 4, floor: 0.2 };
  const steps = [0, 1, 3, 4, 6, 8, 12, 20];
  assert.deepEqual(factors({ ...common, shape: 'constant' }, steps), [0.25, 0.5, 1, 1, 1, 1, 1, 1]);
  assert.deepEqual(factors({ ...common, shape: 'linear' }, steps), [0.25, 0.5, 1, 1, 0.8, 0.6, 0.2, 0.2]);
  // A quarter of the way 0.2 + 0.8 (1 + cos 45°) / 2, half-way 0.2 + 0.8 / 2.
  const quarter = Number((0.2 + 0.4 * (1 + Math.SQRT1_2)).toFixed(12));
  assert.deepEqual(factors({ ...common, shape: 'cosine' }, steps), [0.25, 0.5, 1, 1, quarter, 0.6, 0.2, 0.2]);
});

test('every schedule rises through the warm-up, never rises after it, and stays between floor and 1', () => {
  const schedules = fc.record<Schedule>({
    shape: fc.constantFrom('constant', 'linear', 'cosine'),
    steps: fc.nat(50),
    warmUp: fc.nat(60),
    floor: fc.double({ min: 0, max: 1, noNaN: true }),
  });
  fc.assert(
    fc.property(schedules, fc.nat(100), (schedule, step) => {
      const [now, next] = [rateFactor(schedule, step), rateFactor(schedule, step + 1)];
      if (step + 1 < schedule.warmUp) assert.ok(next > now);
      else if (step >= schedule.warmUp) assert.ok(next <= now && now >= schedule.floor);
      assert.ok(now >= 0 && now <= 1);
    }),
  );
});

test('a schedule that makes no sense is refused by field', () => {
  const good: Schedule = { shape: 'linear', steps: 10, warmUp: 2, floor: 0 };
  assert.throws(() => rateFactor({ ...good, floor: 1.5 }, 5), { type: 'BadInput', message: /schedule: floor: 1.5 .*\[0, 1\]/ });
  assert.throws(() => rateFactor({ ...good, warmUp: -1 }, 5), { type: 'BadInput', message: /schedule: warmUp/ });
  assert.throws(() => rateFactor({ ...good, shape: 'square' as 'linear' }, 5), { type: 'BadInput', message: /schedule: shape/ });
  assert.throws(() => rateFactor(good, 0.5), { type: 'BadInput', message: /schedule: step/ });
});
