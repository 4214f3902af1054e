/** Help as text, made from the table and the commands themselves. */
import type { Entry, Flag, Runnable } from "./command.ts";
import { shownFlags } from "./parse.ts";
import { entries, groupExamples, groups, subgroups } from "./table.ts";

const columns = (rows: readonly (readonly [string, string])[]): string => {
  const width = Math.min(52, Math.max(0, ...rows.map(([left]) => left.length)));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`.trimEnd()).join("\n");
};

const section = (title: string, body: string): string => `${title}:\n${body}`;

const visible = (): Entry[] => entries.filter(({ hidden }) => !hidden);

/** `banger --help` */
export const rootHelp = (): string => {
  const daily = ["vm run", "vm exec", "vm shell", "vm list", "vm cp", "vm stop", "vm delete"];
  const shortNames = visible().filter(({ name }) => daily.includes(name));
  const single = visible().filter(({ name }) => !name.includes(" "));
  return [
    "banger: Linux microVMs for developers and their agents",
    section(
      "Start here",
      columns([
        ["banger vm run", "a shell in a new VM"],
        ["banger vm run --rm -- uname -a", "one command in a VM that is gone afterwards"],
        ["banger doctor", "is everything there that banger needs?"],
      ]),
    ),
    section(
      "Every day",
      columns(shortNames.map(({ name, alias, summary }) => [`banger ${alias ?? name}`, `${summary} (\`${name}\`)`])),
    ),
    section(
      "All commands",
      columns([
        ...Object.entries(groups).map(([noun, what]) => [`banger ${noun} …`, what] as const),
        ["banger help [--all | COMMAND]", "this help, the help of everything, or of one command"],
        ...single.map(({ name, summary }) => [`banger ${name}`, summary] as const),
      ]),
    ),
    "`--json` prints data as JSON, and `-h` after any command prints its help.",
  ].join("\n\n");
};

/** `banger vm --help` */
export const groupHelp = (noun: string): string => {
  const members = visible().filter(({ name }) => name.startsWith(`${noun} `));
  return [
    `banger ${noun}: ${groups[noun] ?? subgroups[noun]?.what}`,
    section("Examples", columns(groupExamples[noun] ?? subgroups[noun]?.examples ?? [])),
    section("Commands", columns(members.map(({ name, summary }) => [`banger ${name}`, summary]))),
    `See \`banger ${noun} COMMAND --help\`.`,
  ].join("\n\n");
};

export const flagName = (name: string, flag: Flag): string =>
  `${flag.short ? `-${flag.short}, ` : ""}--${name}${flag.kind === "switch" ? "" : ` ${flag.placeholder}`}`;

export const flagHelp = (flag: Flag): string => `${flag.help}${flag.kind === "list" ? " (may be given again)" : ""}`;

/** `banger vm run --help` */
export const commandHelp = (entry: Entry, command: Runnable): string => {
  const also = entry.alias ? `\n(short: \`banger ${entry.alias}\`)` : "";
  const parts = [
    `banger ${entry.name}: ${entry.summary}${also}`,
    section("Usage", command.usage.map((usage) => `  banger ${entry.name} ${usage}`.trimEnd()).join("\n")),
    section("Examples", columns(command.examples)),
  ];
  if (command.description) parts.push(command.description);
  const args = command.args.filter(({ hidden }) => !hidden);
  if (args.length > 0) parts.push(section("Arguments", columns(args.map(({ name, help }) => [name, help]))));
  parts.push(
    section("Flags", columns(shownFlags(command).map(([name, flag]) => [flagName(name, flag), flagHelp(flag)]))),
  );
  return parts.join("\n\n");
};

/** The help of everything, one after the other, for the reference documentation. */
export const allHelp = async (): Promise<string> => {
  const commands = await Promise.all(visible().map(async (entry) => commandHelp(entry, (await entry.load()).command)));
  return [rootHelp(), ...Object.keys(groups).map(groupHelp), ...commands].join("\n\n---\n\n");
};
