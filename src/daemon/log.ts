/** The daemon's log: one JSON object a line, bounded by size. */
import { AsyncLocalStorage } from "node:async_hooks";
import { createWriteStream, type WriteStream } from "node:fs";
import { mkdir, open, rename, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { errnoOf } from "../contract/errors.ts";

export type Fields = Record<string, unknown>;
export type Log = Record<"debug" | "info" | "warn" | "error", (message: string, fields?: Fields) => void> & {
  close(): Promise<void>;
};

const levels = ["debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof levels)[number];

/** What is written within a scope carries its fields: the id of the operation that it is part of. */
export const logScope = new AsyncLocalStorage<{ operation: string }>();

/** A log over this many bytes becomes `.1` at the next start or when it is reached. */
const MAX_BYTES = 8 * 1024 * 1024;

const describe = (value: unknown): unknown => {
  if (!(value instanceof Error)) return value;
  const code = "code" in value ? { code: value.code } : {};
  return {
    ...code,
    message: value.message,
    stack: value.stack,
    ...(value.cause ? { cause: describe(value.cause) } : {}),
  };
};

const sizeOf = async (path: string): Promise<number> => {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return 0;
    throw error;
  }
};

/**
 * @param level of the least that is written; asked for each line
 * @param maxBytes of the file before it is put aside as `.1`
 */
export const openLog = async (path: string, level: () => LogLevel, maxBytes = MAX_BYTES): Promise<Log> => {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  // There from now on, for those who follow it.
  await (await open(path, "a", 0o600)).close();
  let written = await sizeOf(path);
  const openStream = (): WriteStream => {
    const stream = createWriteStream(path, { flags: "a", mode: 0o600 });
    // A log that cannot be written (full disk) must not end the daemon.
    stream.on("error", () => stream.destroy());
    return stream;
  };
  let stream = openStream();
  let rotating = false;
  const rotate = async () => {
    rotating = true;
    try {
      await rename(path, `${path}.1`);
      stream.end();
      stream = openStream();
      written = 0;
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") written = 0;
    } finally {
      rotating = false;
    }
  };
  const write =
    (name: LogLevel) =>
    (message: string, fields: Fields = {}) => {
      if (levels.indexOf(name) < levels.indexOf(level())) return;
      const described = Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, describe(value)]));
      const scope = logScope.getStore();
      const line = `${JSON.stringify({ time: new Date().toISOString(), level: name, message, ...scope, ...described })}\n`;
      // There may be room again.
      if (stream.destroyed) stream = openStream();
      stream.write(line);
      written += line.length;
      if (written > maxBytes && !rotating) void rotate();
    };
  return {
    debug: write("debug"),
    info: write("info"),
    warn: write("warn"),
    error: write("error"),
    close: () => new Promise((resolve) => stream.end(() => resolve())),
  };
};
