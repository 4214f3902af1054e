/** What can stand at the cursor of a command line, from the command table and the commands themselves. */
import { constants } from "node:os";
import { vmStates } from "../../contract/names.ts";
import type { Entry, Flag, Flags, Runnable } from "../command.ts";
import { findCommand } from "../find.ts";
import { shownFlags, takesNext } from "../parse.ts";
import { entries, groups, subgroups } from "../table.ts";
import type { Candidate, LiveNames, NameKind } from "./live-names.ts";

export type Completion = {
  candidates: Candidate[];
  /** Names of files may stand there too. */
  files: boolean;
  /** What is completed goes on: no space after it. */
  open: boolean;
};

const nothing: Completion = { candidates: [], files: false, open: false };
const choices = (values: readonly string[]): Completion => ({
  ...nothing,
  candidates: values.map((value) => ({ value, what: "" })),
});

/** Words that stand for a kind of value in usages and in the names of arguments. */
const kinds: Record<string, NameKind | "files" | "guest files" | readonly string[]> = {
  VM: "vm",
  IMAGE: "image",
  KERNEL: "kernel",
  SNAPSHOT: "snapshot",
  PATH: "files",
  FILE: "files",
  SOURCE: "files",
  DIR: "files",
  PATHS: "guest files",
  SIGNAL: Object.keys(constants.signals).map((name) => name.slice(3)),
  STATE: vmStates,
  LEVEL: ["debug", "info", "warn", "error"],
  SHELL: ["bash", "zsh", "fish"],
};

/** @param name placeholder of a flag or name of an argument: `VM`, `user|none` */
const valuesOf = async (name: string, command: string, live: LiveNames): Promise<Completion> => {
  if (name.includes("|")) return choices(name.split("|"));
  const kind = kinds[name];
  if (kind === undefined) return nothing;
  if (typeof kind !== "string") return choices(kind);
  if (kind === "files") return { ...nothing, files: true };
  if (kind === "guest files") {
    const vms = await live("vm");
    return { candidates: vms.map(({ value, what }) => ({ value: `${value}:`, what })), files: true, open: true };
  }
  // What is to be pulled is not here yet; where one is named to start from, both will do.
  const pulls = kind === "image" || kind === "kernel";
  const pulled = pulls && (command.endsWith(" pull") || command.startsWith("vm "));
  const here = pulls && command.endsWith(" pull") ? [] : await live(kind);
  const more = pulled ? await live(`available ${kind}`) : [];
  return { ...nothing, candidates: [...here, ...more.filter(({ value }) => !here.some((one) => one.value === value))] };
};

const visible = (): Entry[] => entries.filter(({ hidden }) => !hidden);

const firstWords = (): Candidate[] => [
  ...visible().flatMap(({ name, alias, summary }) => [
    ...(alias ? [{ value: alias, what: summary }] : []),
    ...(name.includes(" ") ? [] : [{ value: name, what: summary }]),
  ]),
  ...Object.entries(groups).map(([value, what]) => ({ value, what })),
  { value: "help", what: "help of banger or of a command" },
];

const verbsOf = (noun: string): Candidate[] => {
  const members = visible().filter(({ name }) => name.startsWith(`${noun} `));
  const verbs = members.map(({ name, summary }): Candidate => {
    const verb = name.slice(noun.length + 1).split(" ")[0] ?? "";
    return { value: verb, what: subgroups[`${noun} ${verb}`]?.what ?? summary };
  });
  return verbs.filter(({ value }, at) => verbs.findIndex((other) => other.value === value) === at);
};

const flagsOf = (command: Runnable): Candidate[] =>
  shownFlags(command).map(([name, flag]) => ({ value: `--${name}`, what: flag.help }));

/** The flag whose value the word after `word` is, if it takes one. */
const valueFlag = (flags: Flags, word: string): Flag | undefined => {
  if (!takesNext(flags, word)) return undefined;
  if (word.startsWith("--")) return flags[word.slice(2)];
  return Object.values(flags).find(({ short }) => short === word.at(-1));
};

const inCommand = async (
  { name }: Entry,
  command: Runnable,
  words: readonly string[],
  current: string,
  live: LiveNames,
): Promise<Completion> => {
  const flags: Flags = Object.fromEntries(shownFlags(command));
  const args: string[] = [];
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? "";
    // What follows is the guest's, of which nothing is known here.
    if (word === "--" && command.argv !== "none") return nothing;
    if (word.startsWith("-") && word !== "-") {
      const flag = valueFlag(flags, word);
      if (flag && flag.kind !== "switch") {
        if (at === words.length - 1) return await valuesOf(flag.placeholder, name, live);
        at++;
      }
    } else if (command.argv === "after" && args.length === command.args.length) return nothing;
    else args.push(word);
  }
  const [, inline, begun] = /^--([^=]+)=(.*)$/s.exec(current) ?? [];
  if (inline !== undefined && begun !== undefined) {
    const flag = flags[inline];
    if (!flag || flag.kind === "switch") return nothing;
    const values = await valuesOf(flag.placeholder, name, live);
    return { ...values, candidates: values.candidates.map((one) => ({ ...one, value: `--${inline}=${one.value}` })) };
  }
  if (current.startsWith("-")) return { ...nothing, candidates: flagsOf(command) };
  const argument = command.args[args.length] ?? (command.args.at(-1)?.many ? command.args.at(-1) : undefined);
  if (!argument || argument.hidden) return nothing;
  const values = await valuesOf(argument.name, name, live);
  return { ...values, candidates: values.candidates.filter(({ value }) => !args.includes(value)) };
};

/**
 * @param words before the one at the cursor, without `banger` itself
 * @param current the one at the cursor, up to it
 */
export const complete = async (words: readonly string[], current: string, live: LiveNames): Promise<Completion> => {
  const all = await completeAny(words, current, live);
  return { ...all, candidates: all.candidates.filter(({ value }) => value.startsWith(current)) };
};

const completeAny = async (words: readonly string[], current: string, live: LiveNames): Promise<Completion> => {
  const said = words.filter((word) => !["--json", "-h", "--help", "help"].includes(word));
  if (said.length === 0) {
    if (current.startsWith("-")) return choices(["--help", "--json", "--version"]);
    return { ...nothing, candidates: firstWords() };
  }
  const [noun = ""] = said;
  if (said.length === 1 && Object.hasOwn(groups, noun)) return { ...nothing, candidates: verbsOf(noun) };
  const subgroup = said.join(" ");
  if (Object.hasOwn(subgroups, subgroup)) return { ...nothing, candidates: verbsOf(subgroup) };
  const { entry, rest } = findCommand(words);
  if (!entry || entry.hidden || words[0] === "help") return nothing;
  return await inCommand(entry, (await entry.load()).command, rest, current, live);
};
