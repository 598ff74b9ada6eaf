/** Every command, in the order of the help. A command is added by adding its file and one line here. */
import type { Command } from 'commander';
import { compareCommand } from './compare.ts';
import { doctorCommand } from './doctor.ts';
import { downCommand } from './down.ts';
import { envCommand } from './env.ts';
import { episodesCommand } from './episodes.ts';
import { exportCommand } from './export.ts';
import { forkCommand } from './fork.ts';
import { gamesCommand } from './games.ts';
import { gcCommand } from './gc.ts';
import { historyCommand } from './history.ts';
import { keysCommand } from './keys.ts';
import { lsCommand } from './ls.ts';
import { modelCommand } from './model.ts';
import { panelCommand } from './panel.ts';
import { pinCommands } from './pin.ts';
import { playCommand } from './play.ts';
import { recipesCommand } from './recipes.ts';
import { replayCommand } from './replay.ts';
import { reportCommand } from './report.ts';
import { restoreCommand } from './restore.ts';
import { runCommand } from './run.ts';
import { serveCommand } from './serve.ts';
import { showCommand } from './show.ts';
import { startCommand } from './start.ts';
import { statusCommand } from './status.ts';
import { steeringCommands } from './steer.ts';
import { tokenizerCommand } from './tokenizer.ts';
import { upCommand } from './up.ts';
import { verifyCommand } from './verify.ts';
import { watchCommand } from './watch.ts';
import { workerCommand } from './worker.ts';

export function allCommands(): Command[] {
  return [
    startCommand(),
    upCommand(),
    downCommand(),
    doctorCommand(),
    workerCommand(),
    recipesCommand(),
    runCommand(),
    lsCommand(),
    statusCommand(),
    watchCommand(),
    ...steeringCommands(),
    forkCommand(),
    restoreCommand(),
    historyCommand(),
    showCommand(),
    episodesCommand(),
    compareCommand(),
    verifyCommand(),
    reportCommand(),
    replayCommand(),
    exportCommand(),
    keysCommand(),
    gcCommand(),
    ...pinCommands(),
    serveCommand(),
    tokenizerCommand(),
    modelCommand(),
    playCommand(),
    gamesCommand(),
    panelCommand(),
    envCommand(),
  ];
}
