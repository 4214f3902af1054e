/** A file that grows and is put aside when it is full, as a stream of what is written to it. */
import { watch } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { errnoOf } from "../contract/errors.ts";

const CHUNK = 64 * 1024;

/** @throws ENOENT when it is not there at first */
async function* rest(file: FileHandle): AsyncGenerator<Buffer> {
  for (;;) {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(CHUNK), 0, CHUNK, null);
    if (bytesRead === 0) return;
    yield buffer.subarray(0, bytesRead);
  }
}

/** The file that now has this name is another one. */
const replaced = async (path: string, file: FileHandle): Promise<boolean> => {
  try {
    return (await stat(path)).ino !== (await file.stat()).ino;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
};

/**
 * All of the file, then what is added to it and to those that take its place, until `signal` is aborted.
 * @throws ENOENT when it is not there at first
 */
export async function* followFile(path: string, signal: AbortSignal): AsyncGenerator<Buffer> {
  let changed = Promise.withResolvers<void>();
  const wake = () => changed.resolve();
  let file = await open(path, "r");
  // The folder, since the file's own watch would end with the file.
  const watcher = watch(dirname(path), wake);
  signal.addEventListener("abort", wake, { once: true });
  try {
    while (!signal.aborted) {
      changed = Promise.withResolvers<void>();
      yield* rest(file);
      if (await replaced(path, file)) {
        const next = await open(path, "r");
        // What was written to the old one until it was put aside.
        yield* rest(file);
        await file.close();
        file = next;
      } else await changed.promise;
    }
  } finally {
    watcher.close();
    signal.removeEventListener("abort", wake);
    await file.close();
  }
}

/** Text as lines; what comes without a line break at the end is one too. */
export async function* linesOf(source: AsyncIterable<Buffer | string>): AsyncGenerator<string> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of source) {
    const lines = (rest + (typeof chunk === "string" ? chunk : decoder.decode(chunk, { stream: true }))).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
  if (rest !== "") yield rest;
}
