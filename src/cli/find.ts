/** From the words of a command line to a command. */
import { BangerError, nearest } from "../contract/errors.ts";
import type { Entry } from "./command.ts";
import { asTyped } from "./parse.ts";
import { entries, groups, subgroups } from "./table.ts";

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
    if (word === "--") throw commandMissing();
    const name = globalFlags[word];
    if (!name) throw unknown("flag", word, Object.keys(globalFlags), "banger --help");
    globals[name] = true;
  }
  if (words[0] === "help") {
    words.shift();
    globals.help = true;
    if (words[0] === "help") words.shift();
  }
  const [noun, verb] = words;
  if (noun === undefined) return { globals, path: "", entry: undefined, rest: [] };
  if (globals.help && noun === "--all") return { globals, path: noun, entry: undefined, rest: [] };
  const single = entries.find((entry) => entry.alias === noun || entry.name === noun);
  if (single) return { globals, path: single.name, entry: single, rest: words.slice(1) };
  if (!Object.hasOwn(groups, noun)) throw unknown("command", noun, topLevel(), "banger --help");
  if (verb === undefined || verb.startsWith("-")) {
    if (verb === "--") throw commandMissing();
    if (verb !== undefined && !["-h", "--help", "--json"].includes(verb))
      throw unknown("flag", verb, Object.keys(globalFlags), `banger ${noun} --help`);
    globals.help = true;
    return { globals, path: noun, entry: undefined, rest: words.slice(1) };
  }
  const subgroup = `${noun} ${verb}`;
  if (Object.hasOwn(subgroups, subgroup)) {
    const [, , word] = words;
    if (word === undefined || word.startsWith("-")) {
      globals.help = true;
      return { globals, path: subgroup, entry: undefined, rest: words.slice(2) };
    }
    const found = entries.find(({ name }) => name === `${subgroup} ${word}`);
    if (!found) throw unknownVerb(subgroup, word);
    return { globals, path: found.name, entry: found, rest: words.slice(3) };
  }
  const entry = entries.find(({ name }) => name === `${noun} ${verb}`) ?? aliasIn(noun, verb);
  if (!entry) throw unknownVerb(noun, verb);
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

/** A verb of the same noun, where one is near; a verb of another noun else. */
const unknownVerb = (noun: string, verb: string): BangerError => {
  const verbs = visible().flatMap(({ name }) => (name.startsWith(`${noun} `) ? [name.slice(noun.length + 1)] : []));
  const near = nearest(verb, verbs);
  const elsewhere = visible().find(({ name }) => verb !== "" && name.endsWith(` ${verb}`))?.name;
  const meant = near === undefined ? elsewhere : `${noun} ${near}`;
  return new BangerError("USAGE", `unknown command: ${noun} ${asTyped(verb)}`, {
    hint: meant ? `did you mean \`banger ${meant}\`?` : `see \`banger ${noun} --help\``,
  });
};

const commandMissing = (): BangerError =>
  new BangerError("USAGE", "the command is missing before `--`", {
    hint: "what follows `--` is for a program in a VM: banger vm run --rm -- uname -a",
  });

const unknown = (what: string, word: string, candidates: string[], help: string): BangerError => {
  // A verb without its noun (`prune` for `vm prune`) is nearer than any spelling.
  const whole =
    what === "command" ? visible().find(({ name }) => word !== "" && name.endsWith(` ${word}`))?.name : undefined;
  const near = whole ?? nearest(word, candidates);
  const shown = near && what === "command" ? `banger ${near}` : near;
  return new BangerError("USAGE", `unknown ${what}: ${asTyped(word)}`, {
    hint: shown ? `did you mean \`${shown}\`?` : `see \`${help}\``,
  });
};
