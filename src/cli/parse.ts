/** Parses what follows the command's name. */
import { parseArgs } from "node:util";
import { BangerError, nearest } from "../contract/errors.ts";
import { quoted } from "../contract/names.ts";
import type { Command, Flag, Flags, Invocation, Runnable, ValuesOf } from "./command.ts";

export type Parsed<F extends Flags = Flags> = Invocation<F> & { help: boolean };

type Parsable = Pick<Runnable, "args" | "argv" | "flags">;

const globalFlags: Flags = {
  json: { kind: "switch", help: "print data as JSON" },
  help: { kind: "switch", short: "h", help: "print this help" },
};

/**
 * @param name of the command, for hints: `vm run`
 * @throws USAGE
 */
export const parseCommand = (name: string, command: Parsable, words: readonly string[]): Parsed => {
  const flags = { ...command.flags, ...globalFlags };
  const cut = command.argv === "none" ? undefined : guestArgvStart(command, flags, words);
  const head = cut === undefined ? words : words.slice(0, cut);
  const tail = cut === undefined ? undefined : words.slice(words[cut] === "--" ? cut + 1 : cut);
  const { tokens } = parseArgs({
    args: [...head],
    strict: false,
    allowPositionals: true,
    tokens: true,
    options: Object.fromEntries(
      Object.entries(flags).map(([key, flag]) => [
        key,
        { type: flag.kind === "switch" ? "boolean" : "string", ...(flag.short ? { short: flag.short } : {}) } as const,
      ]),
    ),
  });
  const values = emptyValues(flags);
  const args: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") args.push(token.value);
    if (token.kind === "option") takeOption(name, flags, values, token);
  }
  const help = values.help === true;
  if (!help) checkArguments(name, command, args);
  return { values: values as ValuesOf<Flags>, args, argv: tail, json: values.json === true, help };
};

const emptyValues = (flags: Flags): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(flags).map(([key, { kind }]) => [key, kind === "switch" ? false : kind === "list" ? [] : undefined]),
  );

/** Index of the first word that belongs to the guest (its `--` included); undefined when there is none. */
const guestArgvStart = (command: Parsable, flags: Flags, words: readonly string[]): number | undefined => {
  let named = 0;
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? "";
    if (word === "--") return at;
    if (!word.startsWith("-") || word === "-") {
      if (command.argv === "after" && named === command.args.length) return at;
      named++;
    } else if (takesNext(flags, word)) at++;
  }
  return undefined;
};

/** Whether the flag or the group of short flags in `word` takes the word after it. */
export const takesNext = (flags: Flags, word: string): boolean => {
  if (word.startsWith("--")) {
    const flag = flags[word.slice(2)];
    return flag !== undefined && flag.kind !== "switch";
  }
  for (let at = 1; at < word.length; at++) {
    const flag = Object.values(flags).find(({ short }) => short === word[at]);
    if (flag && flag.kind !== "switch") return at === word.length - 1;
  }
  return false;
};

type OptionToken = { name: string; rawName: string; value?: string | undefined; inlineValue?: boolean | undefined };

const takeOption = (name: string, flags: Flags, values: Record<string, unknown>, token: OptionToken): void => {
  const flag = Object.hasOwn(flags, token.name) ? flags[token.name] : undefined;
  const shown = token.rawName;
  if (!flag) throw unknownFlag(name, flags, shown);
  if (flag.kind === "switch") {
    if (token.value !== undefined) throw usage(name, `${shown} takes no value`);
    values[token.name] = true;
    return;
  }
  // `-5` is a number that the flag may refuse; `-x` is the next flag.
  if (token.value === undefined || (!token.inlineValue && /^-[^\d]/.test(token.value))) {
    throw usage(name, `${shown} needs a value: ${shown} ${flag.placeholder}`);
  }
  if (token.value === "") throw usage(name, `the value of ${shown} is empty: ${shown} ${flag.placeholder}`);
  const value = flag.parse(token.value);
  if (flag.kind === "list") (values[token.name] as unknown[]).push(value);
  else values[token.name] = value;
};

const unknownFlag = (name: string, flags: Flags, shown: string): BangerError => {
  const near = nearest(shown.replace(/^-+/, ""), Object.keys(flags));
  return new BangerError("USAGE", `unknown flag for \`banger ${name}\`: ${asTyped(shown)}`, {
    hint: near ? `did you mean \`--${near}\`?` : `see \`banger ${name} --help\``,
  });
};

/** A word as it was typed, in quotes where it would not be seen or would be mistaken otherwise. */
export const asTyped = (word: string): string =>
  word.length <= 80 && /^[^\s\p{Cc}]+$/u.test(word) ? word : quoted(word);

const checkArguments = (name: string, command: Parsable, args: string[]): void => {
  const missing = command.args[args.length];
  if (missing && !missing.optional) throw usage(name, `${missing.name} is missing: ${missing.help}`);
  const extra = args[command.args.length];
  const many = command.args.at(-1)?.many === true;
  if (extra !== undefined && !many)
    throw usage(
      name,
      command.args.length === 0 ? `unexpected argument: ${asTyped(extra)}` : `one argument too many: ${asTyped(extra)}`,
    );
  const empty = args.indexOf("");
  if (empty >= 0) {
    const argument = command.args[Math.min(empty, command.args.length - 1)];
    if (!argument?.hidden) throw usage(name, `${argument?.name ?? "an argument"} is empty`);
  }
};

export const usage = (name: string, message: string, hint = `see \`banger ${name} --help\``): BangerError =>
  new BangerError("USAGE", message, { hint });

/** The global flags every command has, for the help. */
export const shownFlags = (command: Pick<Command, "flags">): [string, Flag][] =>
  Object.entries({ ...command.flags, ...globalFlags });
