/** Copies of large, sparse files. */
import { open, rename, rm } from "node:fs/promises";
import { errnoOf } from "../contract/errors.ts";
import { allEnded, type Progress } from "../contract/progress.ts";
import { agentBinary } from "./paths.ts";
import { runTool } from "./process.ts";
import { nameDiskFull } from "./tool-errors.ts";
import { readWhole, writeWhole } from "./whole.ts";

/**
 * Copies a file, holes as holes, and without copying at all where the file system can share blocks (reflink): GNU cp knows both.
 * @throws DISK_FULL, TOOL_FAILED
 */
export const copySparse = async (from: string, to: string, progress: Progress): Promise<void> => {
  try {
    await runTool({
      argv: ["cp", "--reflink=auto", "--sparse=auto", "--no-target-directory", "--", from, to],
      signal: progress.signal,
    });
  } catch (error) {
    throw nameDiskFull(error);
  }
};

/** Where a file has data: offset and length of each range, in bytes. */
export type DataRanges = [offset: number, length: number][];

/** More ranges, or more bytes in them, are left to `copySparse`, which may be able to share them. */
const MOST_RANGES = 256;
const MOST_BYTES = 8 * 2 ** 20;

/**
 * What `copyRanges` needs of a file that nobody changes any more.
 * @returns undefined where there is too much of it
 */
export const dataRanges = async (path: string): Promise<DataRanges | undefined> => {
  const { stdout } = await runTool({ argv: [agentBinary(), "--data-ranges", String(MOST_RANGES), path] });
  const ranges = [...stdout.matchAll(/^(\d+) (\d+)$/gm)].map(([, offset, length]): [number, number] => [
    Number(offset),
    Number(length),
  ]);
  const bytes = ranges.reduce((sum, [, length]) => sum + length, 0);
  return bytes > 0 && bytes <= MOST_BYTES ? ranges : undefined;
};

/**
 * As `copySparse`, for little data in a large file: without another program, whose start takes longer than the copy.
 * @param size of the file in bytes
 */
export const copyRanges = async (from: string, to: string, size: number, ranges: DataRanges): Promise<void> => {
  await using source = await open(from, "r");
  await using target = await open(to, "w", 0o600);
  await allEnded([
    target.truncate(size),
    ...ranges.map(async ([offset, length]) => {
      const bytes = await readWhole(source, length, offset);
      if (bytes.length < length) throw new Error(`${from} ends before ${offset + length}`);
      await writeWhole(target, bytes, offset);
    }),
  ]);
};

/**
 * Moves a file, in place of one that is there; to another file system as a copy.
 * @throws DISK_FULL, TOOL_FAILED
 */
export const moveSparse = async (from: string, to: string, progress: Progress): Promise<void> => {
  try {
    await rename(from, to);
  } catch (error) {
    if (errnoOf(error) !== "EXDEV") throw error;
    await copySparse(from, to, progress);
    await rm(from);
  }
};
