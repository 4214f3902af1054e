/** What /proc says of processes. */
import { readdir, readFile } from "node:fs/promises";
import { errnoOf } from "../contract/errors.ts";

/**
 * When a process started, in clock ticks since boot (field 22 of /proc/PID/stat); undefined when there is none.
 * With the pid it names a process for good: pids are reused.
 */
export const processStartTime = async (pid: number): Promise<string | undefined> => {
  try {
    const text = await readFile(`/proc/${pid}/stat`, "utf8");
    // The second field is the program's name in parentheses, and may hold anything.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    // A zombie is gone but for its parent's wait.
    return fields[0] === "Z" ? undefined : fields[19];
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ESRCH") return undefined;
    throw error;
  }
};

/** Processes with `text` in their command line. Reads all of /proc: for rare occasions. */
export const processesNaming = async (text: string): Promise<number[]> => {
  const found: number[] = [];
  for (const entry of await readdir("/proc")) {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) continue;
    try {
      if ((await readFile(`/proc/${entry}/cmdline`, "utf8")).includes(text)) found.push(Number(entry));
    } catch (error) {
      // It has ended meanwhile, or is hidden from us and so not ours.
      if (!["ENOENT", "ESRCH", "EACCES", "EPERM"].includes(errnoOf(error) ?? "")) throw error;
    }
  }
  return found;
};
