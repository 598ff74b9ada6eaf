/**
 * The `ratchet` command: reads the command line and hands over to one file per command in `cli/commands/`. The one place where a failure ends the
 * program: exit code 0 done, 1 the work failed, 2 bad input, 3 something needed is unavailable.
 */
import { Command, CommanderError } from 'commander';
import { readFileSync } from 'node:fs';
import { allCommands } from './commands/all.ts';
import { explain } from './failures.ts';
import { note } from './output.ts';

/** Exit code of commander's refusals: a wrong command, option or argument. */
const BAD_INPUT = 2;

export function program(): Command {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string };
  const ratchet = new Command('ratchet')
    .description('Durable, auditable improvement loops for agents.')
    .version(version)
    .showSuggestionAfterError()
    .helpCommand('help [command]', 'what a command does and takes')
    .addHelpText('after', '\nExit codes: 0 done, 1 failed, 2 bad input, 3 something needed is unavailable.\nStart here: npm start');
  for (const command of allCommands()) ratchet.addCommand(command);
  // Every command throws instead of ending the program, so that open connections are closed and the exit code is decided here.
  for (const command of withSubcommands(ratchet)) {
    command.exitOverride().configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'ratchet: ')) });
    command.allowExcessArguments(false);
  }
  return ratchet;
}

const withSubcommands = (command: Command): Command[] => [command, ...command.commands.flatMap(withSubcommands)];

export async function main(args: string[]): Promise<void> {
  let closed = false;
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    if (closed) return;
    closed = true;
    // `ratchet history x | head` closes the pipe early; that is no failure. What keeps servers up ends in order.
    process.exitCode = 0;
    if (process.listenerCount('SIGTERM') > 0) process.kill(process.pid, 'SIGTERM');
    else process.exit(0);
  });
  // The launcher was killed, and with it the terminal's owner: end as if asked to.
  if (process.env['RATCHET_HANDED_OVER']) {
    process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'));
    process.channel?.unref();
  }
  try {
    const ratchet = program();
    if (args.length === 0) ratchet.outputHelp();
    else await ratchet.parseAsync(args, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? 0 : BAD_INPUT;
      return;
    }
    const { message, exitCode } = explain(error);
    note(`ratchet: ${message}`);
    if (process.env['RATCHET_DEBUG']) console.error(error);
    process.exitCode = exitCode;
  }
}
