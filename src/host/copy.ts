/** Copies of large, sparse files. */
import { rename, rm } from "node:fs/promises";
import { errnoOf } from "../contract/errors.ts";
import type { Progress } from "../contract/progress.ts";
import { runTool } from "./process.ts";
import { nameDiskFull } from "./tool-errors.ts";

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
