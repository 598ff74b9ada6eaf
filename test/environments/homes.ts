/** Opens homes built by hand, for tests. */
import { HouseholdEnvironment } from '../../environments/household/engine/environment.ts';
import { loadGame } from '../../environments/household/engine/game.ts';
import { gameFileOf } from '../../environments/household/game-writer.ts';
import type { Home } from '../../environments/household/generator.ts';

export const openHome = (id: string, home: Home): HouseholdEnvironment =>
  new HouseholdEnvironment(loadGame(gameFileOf(home), { id }), { turnCap: 30 });
