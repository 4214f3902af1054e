import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { daemonLogFile } from "../../host/paths.ts";
import { defineCommand } from "../command.ts";
import { followFlag } from "../flags/follow.ts";
import { oneOf, positiveInteger, text } from "../flags/values.ts";
import { followFile, linesOf } from "../follow-file.ts";
import { interruptible } from "../interrupt.ts";
import { printLine } from "../render/output.ts";

const levels = ["debug", "info", "warn", "error"] as const;

const flags = {
  follow: followFlag,
  lines: {
    kind: "value",
    short: "n",
    placeholder: "N",
    help: "only the last N",
    parse: positiveInteger("number of lines"),
  },
  level: {
    kind: "value",
    placeholder: "LEVEL",
    help: `of this level and above: ${levels.join(", ")}`,
    parse: oneOf("level", levels),
  },
  operation: { kind: "value", placeholder: "ID", help: "only of this operation", parse: text },
} as const;

type Filter = { level: (typeof levels)[number] | undefined; operation: string | undefined };

/** What is no line of ours (a last word of Node.js) passes where nothing is looked for. */
const fits =
  ({ level, operation }: Filter) =>
  (line: string): boolean => {
    if (level === undefined && operation === undefined) return true;
    try {
      const entry = JSON.parse(line) as { level?: unknown; operation?: unknown };
      const loud =
        level === undefined || levels.some((name, at) => name === entry.level && at >= levels.indexOf(level));
      return loud && (operation === undefined || entry.operation === operation);
    } catch {
      // Not JSON: nothing says what it belongs to.
      return false;
    }
  };

/** The older part of the log, then the present one. */
async function* whole(path: string): AsyncGenerator<Buffer | string> {
  try {
    yield* createReadStream(`${path}.1`) as AsyncIterable<Buffer>;
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
  yield* createReadStream(path) as AsyncIterable<Buffer>;
}

const lastOf = async (path: string, filter: Filter, count: number | undefined): Promise<void> => {
  const fit = fits(filter);
  const kept: string[] = [];
  for await (const line of linesOf(whole(path))) {
    if (!fit(line)) continue;
    if (count === undefined) await printLine(line);
    else if (kept.push(line) > count) kept.shift();
  }
  for (const line of kept) await printLine(line);
};

/** With a number of lines, that many of those that are there already. */
const follow = async (path: string, filter: Filter, count: number | undefined): Promise<number> => {
  using interrupt = interruptible();
  const fit = fits(filter);
  await using file = await open(path, "r");
  const { size } = await file.stat();
  let read = 0;
  let kept: string[] | undefined = count === undefined ? undefined : [];
  const release = async () => {
    for (const line of kept?.slice(-(count ?? 0)) ?? []) await printLine(line);
    kept = undefined;
  };
  async function* counted(): AsyncGenerator<Buffer> {
    if (kept && size === 0) kept = undefined;
    for await (const chunk of followFile(path, interrupt.signal)) {
      yield chunk;
      read += chunk.length;
      if (kept && read >= size) await release();
    }
  }
  for await (const line of linesOf(counted())) {
    if (!fit(line)) continue;
    if (kept) kept.push(line);
    else await printLine(line);
  }
  return interrupt.signal.aborted ? 130 : 0;
};

export const command = defineCommand({
  usage: ["[-f] [-n N] [--level LEVEL] [--operation ID]"],
  description:
    "One JSON object a line. Works whether or not the daemon runs. What is written at all is up to `log_level` of the config.",
  args: [],
  argv: "none",
  flags,
  examples: [
    ["banger daemon logs -n 20", "the latest"],
    ["banger daemon logs -f", "and what comes, until Ctrl-C"],
    ["banger daemon logs --level warn", "what went wrong"],
    ["banger daemon logs --operation 3f2a9c01b7de", "one operation, from its first line to its last"],
  ],
  run: async ({ values }) => {
    const path = daemonLogFile();
    const filter = { level: values.level, operation: values.operation };
    try {
      if (values.follow) return { exit: await follow(path, filter, values.lines) };
      await lastOf(path, filter, values.lines);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      throw new BangerError("FILE_NOT_FOUND", "there is no log yet: the daemon has never run", {
        hint: "start it: banger daemon start",
        details: { path },
      });
    }
    return {};
  },
});
