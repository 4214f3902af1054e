/** From the words of a command line to a command. */
import { BangerError, nearest } from "../contract/errors.ts";
import type { Entry } from "./command.ts";
import { entries, groups } from "./table.ts";

export type Globals = { json: boolean; help: boolean; version: boolean };
export type Found = {
  globals: Globals;
  /** The words that were taken for the command: `vm`, `vm run`, `` for none, `--all` for `help --all`. */
  path: string;
  entry: Entry | undefined;
  /** What follows the command. */
  rest: string[];
};

/** Flags that may stand before the command. */
const globalFlags: Record<string, keyof Globals> = {
  "--json": "json",
  "-h": "help",
  "--help": "help",
  "--version": "version",
};

/** @throws USAGE for an unknown command or flag, with the nearest known one */
export const findCommand = (argv: readonly string[]): Found => {
  const globals: Globals = { json: false, help: false, version: false };
  const words = [...argv];
  while (words[0]?.startsWith("-")) {
    const word = words.shift() ?? "";
    const name = globalFlags[word];
    if (!name) throw unknown("flag", word, Object.keys(globalFlags), "banger --help");
    globals[name] = true;
  }
  if (words[0] === "help") {
    words.shift();
    globals.help = true;
  }
  const [noun, verb] = words;
  if (noun === undefined) return { globals, path: "", entry: undefined, rest: [] };
  if (globals.help && noun === "--all") return { globals, path: noun, entry: undefined, rest: [] };
  const single = entries.find((entry) => entry.alias === noun || entry.name === noun);
  if (single) return { globals, path: single.name, entry: single, rest: words.slice(1) };
  if (!Object.hasOwn(groups, noun)) throw unknown("command", noun, topLevel(), "banger --help");
  if (verb === undefined || verb.startsWith("-")) {
    globals.help ||= verb === "-h" || verb === "--help";
    return { globals, path: noun, entry: undefined, rest: words.slice(1) };
  }
  const entry = entries.find(({ name }) => name === `${noun} ${verb}`) ?? aliasIn(noun, verb);
  if (!entry) {
    throw unknown(
      "command",
      `${noun} ${verb}`,
      visible().map(({ name }) => name),
      `banger ${noun} --help`,
    );
  }
  return { globals, path: entry.name, entry, rest: words.slice(2) };
};

/** `vm ps` and `vm rm`: an alias where its noun was written too. */
const aliasIn = (noun: string, verb: string): Entry | undefined =>
  entries.find(({ name, alias }) => alias === verb && name.startsWith(`${noun} `));

const visible = (): Entry[] => entries.filter(({ hidden }) => !hidden);
const topLevel = (): string[] => [
  "help",
  ...Object.keys(groups),
  ...visible().flatMap(({ name, alias }) => [...(alias ? [alias] : []), ...(name.includes(" ") ? [] : [name])]),
];

const unknown = (what: string, word: string, candidates: string[], help: string): BangerError => {
  // A verb without its noun (`prune` for `vm prune`) is nearer than any spelling.
  const whole = what === "command" ? visible().find(({ name }) => name.endsWith(` ${word}`))?.name : undefined;
  const near = whole ?? nearest(word, candidates);
  const shown = near && what === "command" ? `banger ${near}` : near;
  return new BangerError("USAGE", `unknown ${what}: ${word}`, {
    hint: shown ? `did you mean \`${shown}\`?` : `see \`${help}\``,
  });
};
