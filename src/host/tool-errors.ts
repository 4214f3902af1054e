/** What a program's own messages say about the host. */
import { BangerError } from "../contract/errors.ts";

/** Whether a program said that a disk or a quota is full. */
export const isDiskFull = (text: string): boolean =>
  /no space left on device|don't have enough free space|disk quota exceeded|\bENOSPC\b|\bEDQUOT\b/i.test(text);

/** DISK_FULL when a program's error says so, else the error itself. */
export const nameDiskFull = (error: unknown): unknown => {
  if (!(error instanceof BangerError) || error.code !== "TOOL_FAILED" || !isDiskFull(error.message)) return error;
  return new BangerError("DISK_FULL", "the disk is full", {
    hint: "free some space (`banger vm prune -f`, `banger image list`) and run the command again",
    cause: error,
  });
};
