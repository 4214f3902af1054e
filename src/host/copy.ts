/** Copies of large, sparse files. */
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
