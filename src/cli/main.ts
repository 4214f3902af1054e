/** The command line: find the command, parse, run, print, exit. */
import type { Outcome } from "./command.ts";
import { findCommand } from "./find.ts";
import { parseCommand } from "./parse.ts";
import { printError } from "./render/errors.ts";
import { printOutcome } from "./render/outcome.ts";
import { isBrokenPipe, PIPE_STATUS } from "./render/output.ts";

const dispatch = async (argv: readonly string[], mode: { json: boolean }): Promise<number> => {
  if (argv[0] === "complete") {
    const { answerShell } = await import("./completion/words.ts");
    return await printOutcome(await answerShell(argv.slice(1)), false);
  }
  const { globals, path, entry, rest } = findCommand(argv);
  if (globals.version)
    return await printOutcome(await (await import("./version.ts")).command.run(noInput), globals.json);
  if (!entry) {
    const { allHelp, groupHelp, rootHelp } = await import("./help.ts");
    const text = path === "" ? rootHelp() : path === "--all" ? await allHelp() : groupHelp(path);
    return await printOutcome({ text }, false);
  }
  const { command } = await entry.load();
  // With `help` before it or `--help` in it nothing is run, and nothing need be complete.
  const parsed = globals.help ? undefined : parseCommand(entry.name, command, rest);
  if (!parsed || parsed.help) {
    const { commandHelp } = await import("./help.ts");
    return await printOutcome({ text: commandHelp(entry, command) }, false);
  }
  const json = globals.json || parsed.json;
  mode.json = json;
  const run = command.run as (input: typeof parsed) => Promise<Outcome>;
  return await printOutcome(await run({ ...parsed, json }), json);
};

const noInput = { values: {}, args: [], argv: undefined, json: false };

/** `--json` decides how errors look even where parsing failed; what follows `--` is not ours. */
const wantsJson = (argv: readonly string[]): boolean => {
  const dashes = argv.indexOf("--");
  return argv.slice(0, dashes < 0 ? undefined : dashes).includes("--json");
};

const main = async (): Promise<number> => {
  const argv = process.argv.slice(2);
  const mode = { json: wantsJson(argv) };
  try {
    return await dispatch(argv, mode);
  } catch (error) {
    return isBrokenPipe(error) ? PIPE_STATUS : await printError(error, mode.json);
  }
};

main().then((status) => {
  // Not by running out of work: an open stdin would keep the process, and nothing is left to wait for.
  process.exit(status);
});
