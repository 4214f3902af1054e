/**
 * Writes docs/reference.md from what the program itself knows: the command table, the commands, the settings, the errors.
 *
 *   node scripts/reference.ts
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Entry, Runnable } from "../src/cli/command.ts";
import { flagHelp, flagName } from "../src/cli/help.ts";
import { shownFlags } from "../src/cli/parse.ts";
import { entries, groupExamples, groups } from "../src/cli/table.ts";
import { configReference } from "../src/contract/config-reference.ts";
import { errorTable } from "../src/contract/errors.ts";

/** What would end a cell of a table or begin a tag. */
const cell = (text: string): string => text.replaceAll("|", "\\|").replaceAll("<", "&lt;").replaceAll("\n", "<br>");
const row = (...cells: string[]): string => `| ${cells.join(" | ")} |`;
const table = (headings: string[], rows: string[][]): string =>
  [row(...headings), row(...headings.map(() => "---")), ...rows.map((cells) => row(...cells))].join("\n");

const examplesBlock = (examples: readonly (readonly [string, string])[]): string => {
  const width = Math.min(60, Math.max(...examples.map(([command]) => command.length)));
  return `\`\`\`console\n${examples.map(([command, what]) => `$ ${command.padEnd(width)}  # ${what}`).join("\n")}\n\`\`\``;
};

const section = ({ name, alias, summary }: Entry, command: Runnable): string => {
  const usages = command.usage.map((usage) => `banger ${name} ${usage}`.trimEnd());
  const args = command.args.filter(({ hidden }) => !hidden);
  const parts = [
    `### banger ${name}`,
    `${summary[0]?.toUpperCase()}${summary.slice(1)}.${alias ? ` Short: \`banger ${alias}\`.` : ""}`,
    `\`\`\`\n${usages.join("\n")}\n\`\`\``,
    examplesBlock(command.examples),
  ];
  if (command.description) parts.push(command.description.replaceAll("\n", " ").replaceAll("<", "&lt;"));
  if (args.length > 0)
    parts.push(
      table(
        ["argument", "is"],
        args.map(({ name: shown, help }) => [`\`${shown}\``, cell(help)]),
      ),
    );
  const flags = shownFlags({ flags: command.flags }).filter(([flag]) => flag !== "json" && flag !== "help");
  if (flags.length > 0)
    parts.push(
      table(
        ["flag", "does"],
        flags.map(([flag, about]) => [`\`${cell(flagName(flag, about))}\``, cell(flagHelp(about))]),
      ),
    );
  return parts.join("\n\n");
};

const settings = (): string =>
  table(
    ["key", "is", "where it is not set", "example"],
    configReference.map(({ key, what, fallback, example }) => [
      `\`${key}\``,
      cell(what),
      cell(fallback),
      example
        .split("\n")
        .map((line) => `\`${cell(line)}\``)
        .join("<br>"),
    ]),
  );

const errors = (): string =>
  table(
    ["code", "exit status", "HTTP status"],
    Object.entries(errorTable).map(([code, { exit, http }]) => [`\`${code}\``, String(exit), String(http)]),
  );

export const referencePage = async (): Promise<string> => {
  const shown = entries.filter(({ hidden }) => !hidden);
  const loaded = await Promise.all(
    shown.map(async (entry) => ({ entry, text: section(entry, (await entry.load()).command) })),
  );
  const of = (keep: (name: string) => boolean) =>
    loaded.filter(({ entry }) => keep(entry.name)).map(({ text }) => text);
  const grouped = Object.entries(groups).flatMap(([noun, what]) => [
    `## banger ${noun}: ${what}`,
    examplesBlock(groupExamples[noun] ?? []),
    ...of((name) => name.startsWith(`${noun} `)),
  ]);
  return `${[
    "# Reference",
    "Written by `make reference` from the program's own tables; a test holds it to them. `banger help COMMAND` prints the same of one command.",
    "Every command takes `--json` (data as JSON on stdout, an error as one JSON object on stderr) and `-h`. Data goes to stdout, everything\nsaid to a person to stderr. Colours only on a terminal, and never with `NO_COLOR`.",
    "**Exit status**: 0; 1 for a failure; 2 for wrong usage; 130 after Ctrl-C. `vm run`, `vm exec`, `vm shell` and `vm ssh` exit with the status of\nthe guest's command, or 128 and the number of the signal that ended it.",
    "A VM is named by its name, its id, or the beginning of one of them. Sizes: `512M`, `4G`, `4GiB`, in powers of 1024. Times: `30s`, `15m`, `2h`.",
    ...grouped,
    "## Other commands",
    ...of((name) => !name.includes(" ")),
    "## Settings",
    "In the file that `banger config path` prints, TOML. A key with a dot stands in the table of that name. A change counts from the next command on.",
    settings(),
    "## Errors",
    "`code` of an error with `--json`, in the API and in the SDK.",
    errors(),
  ].join("\n\n")}\n`;
};

export const referenceFile = join(import.meta.dirname, "..", "docs", "reference.md");

if (process.argv[1] === import.meta.filename) await writeFile(referenceFile, await referencePage());
