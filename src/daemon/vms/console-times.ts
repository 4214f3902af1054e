/**
 * When a console's bytes were written: beside the log a file of 12-byte records, each a time (6 bytes, ms since 1970) and the offset (6 bytes)
 * from which on the log was written then or later. Big-endian.
 */
import type { FileHandle } from "node:fs/promises";
import { readFile, stat } from "node:fs/promises";
import { errnoOf } from "../../contract/errors.ts";

const RECORD = 12;
/** Between two records, in ms: what was written in between counts as written with the first. */
const STEP = 1000;
/** A console that says little and often must not fill the disk with times, in bytes. */
export const MAX_TIMES = 1024 * 1024;

export type ConsoleTimes = {
  /** Bytes are about to be written at `offset`. */
  mark(offset: number): Promise<void>;
  /** Of the file, in bytes. */
  size(): number;
};

/** @param file opened for appending, of `size` bytes */
export const consoleTimes = (file: FileHandle, size: number, now = Date.now): ConsoleTimes => {
  // A record cut off by a full disk would shift all that follow.
  let written = size;
  let last = Number.NEGATIVE_INFINITY;
  return {
    mark: async (offset) => {
      const time = now();
      // A clock that was set back starts anew.
      if (time >= last && time - last < STEP) return;
      last = time;
      const record = Buffer.alloc(RECORD);
      record.writeUIntBE(time, 0, 6);
      record.writeUIntBE(offset, 6, 6);
      await file.appendFile(record);
      written += RECORD;
    },
    size: () => written,
  };
};

/**
 * Where what was written since `since` begins in a console log.
 * @param since in ms since 1970
 * @returns an offset; Infinity when all of it is older
 */
export const offsetSince = async (log: string, times: string, since: number): Promise<number> => {
  const records = await readIfThere(times);
  for (let at = 0; at + RECORD <= records.length; at += RECORD) {
    if (records.readUIntBE(at, 6) > since - STEP) return records.readUIntBE(at + 6, 6);
  }
  if (records.length > 0) return Number.POSITIVE_INFINITY;
  // A log without times is taken or left as a whole.
  try {
    return (await stat(log)).mtimeMs >= since ? 0 : Number.POSITIVE_INFINITY;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return 0;
    throw error;
  }
};

const readIfThere = async (path: string): Promise<Buffer> => {
  try {
    return await readFile(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return Buffer.alloc(0);
    throw error;
  }
};
