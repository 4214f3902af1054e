/** A VM's console on disk, bounded: two files of at most 4 MiB, the older one with `.1` behind its name, each with its times beside it. */
import { type FileHandle, open, readFile, rename, stat, watch } from "node:fs/promises";
import { basename } from "node:path";
import type { Readable, Writable } from "node:stream";
import { stripVTControlCharacters } from "node:util";
import { errnoOf } from "../../contract/errors.ts";
import { vmFiles } from "../../host/paths.ts";
import type { Log } from "../log.ts";
import { type ConsoleTimes, consoleTimes, MAX_TIMES, offsetSince } from "./console-times.ts";

const MAX_BYTES = 4 * 1024 * 1024;

type Paths = { console: string; consoleTimes: string };
type OpenLog = { file: FileHandle; timesFile: FileHandle; times: ConsoleTimes; size: number };

const openLog = async ({ console: path, consoleTimes: timesPath }: Paths): Promise<OpenLog> => {
  const file = await open(path, "a", 0o600);
  const timesFile = await open(timesPath, "a", 0o600);
  const times = consoleTimes(timesFile, (await timesFile.stat()).size);
  return { file, timesFile, times, size: (await file.stat()).size };
};

const closeLog = async (opened: OpenLog): Promise<void> => {
  await opened.file.close();
  await opened.timesFile.close();
};

/** Copies `console` to the files at `paths` until it ends. A full disk ends the log, not the VM. */
export const keepConsole = (console: Readable, paths: Paths, log: Log): void => {
  const path = paths.console;
  let opened: OpenLog | undefined;
  let broken = false;
  const append = async (chunk: Buffer) => {
    opened ??= await openLog(paths);
    await opened.times.mark(opened.size);
    await opened.file.appendFile(chunk);
    opened.size += chunk.length;
    if (opened.size < MAX_BYTES && opened.times.size() < MAX_TIMES) return;
    const full = opened;
    opened = undefined;
    await closeLog(full);
    await rename(paths.consoleTimes, `${paths.consoleTimes}.1`);
    await rename(path, `${path}.1`);
  };
  const copy = async () => {
    try {
      // The stream is read on even when nothing can be written, or the guest's console would stand still.
      for await (const chunk of console) {
        if (broken) continue;
        try {
          await append(chunk as Buffer);
        } catch (error) {
          broken = true;
          log.warn("console log stopped", { path, error });
        }
      }
    } catch (error) {
      log.debug("console ended", { path, error });
    } finally {
      if (opened)
        await closeLog(opened).catch((error: unknown) => log.debug("console log not closed", { path, error }));
    }
  };
  void copy();
};

/** A line of a console in an error message is cut at so many characters: the guest decides how long it is. */
const LINE = 400;

/** Where the cause of a failed boot stands; what follows it is the trace. */
const CAUSE = /Kernel panic|banger-agent: fatal/;

/**
 * What a console log says of the end: from the cause on when it names one, else its last lines. Control characters are taken out: the
 * guest wrote them.
 */
export const consoleTail = async (path: string, lines: number): Promise<string[]> => {
  try {
    const text = (await readFile(path)).subarray(-16384).toString("utf8");
    const readable = stripVTControlCharacters(text).replaceAll(/[^\P{C}\n]/gu, "");
    const all = readable
      .split("\n")
      .map((line) => line.trimEnd().slice(0, LINE))
      .filter(Boolean);
    const cause = all.findLastIndex((line) => CAUSE.test(line));
    return cause < 0 ? all.slice(-lines) : all.slice(cause, cause + lines);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
};

/**
 * Writes a VM's console log to `output`, the older part first.
 * @param options `follow` goes on with what is added until `gone` is aborted; `since`: only what was written from then on, in ms since 1970
 */
export const followConsole = async (
  id: string,
  { follow, since }: { follow: boolean; since?: number | undefined },
  output: Writable,
  gone: AbortSignal,
): Promise<void> => {
  const { console: path, consoleTimes: times, folder } = vmFiles(id);
  const begin = async (suffix: string) =>
    since === undefined ? 0 : await offsetSince(`${path}${suffix}`, `${times}${suffix}`, since);
  const from = await begin(".1");
  const older = from === Number.POSITIVE_INFINITY ? Buffer.alloc(0) : await readIfThere(`${path}.1`, from);
  if (older.length) await put(output, older);
  // What is all older is passed over; what comes then is new.
  const start = await begin("");
  let at = start === Number.POSITIVE_INFINITY ? await sizeOf(path) : start;
  const copyNew = async () => {
    const added = await readIfThere(path, at);
    at += added.length;
    if (added.length) await put(output, added);
    return added.length;
  };
  await copyNew();
  if (!follow) return;
  try {
    for await (const { eventType, filename } of watch(folder, { signal: gone })) {
      if (filename !== basename(path)) continue;
      // A new file has taken its place: the old one was full.
      if (eventType === "rename") at = 0;
      await copyNew();
    }
  } catch (error) {
    if (!gone.aborted) throw error;
  }
};

const sizeOf = async (path: string): Promise<number> => {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return 0;
    throw error;
  }
};

const readIfThere = async (path: string, from: number): Promise<Buffer> => {
  try {
    await using file = await open(path, "r");
    const { size } = await file.stat();
    if (size <= from) return Buffer.alloc(0);
    const { bytesRead, buffer } = await file.read(Buffer.alloc(size - from), 0, size - from, from);
    return buffer.subarray(0, bytesRead);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return Buffer.alloc(0);
    throw error;
  }
};

const put = (output: Writable, chunk: Buffer): Promise<void> =>
  new Promise((resolve, reject) => output.write(chunk, (error) => (error ? reject(error) : resolve())));
