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
    // A zombie is gone but for its parent's wait, once the last of its threads has let go of its files and their locks.
    return fields[0] === "Z" && Number(fields[17]) <= 1 ? undefined : fields[19];
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ESRCH") return undefined;
    throw error;
  }
};

/** Its state letter (`R`, `S`, `T` where it has been stopped by a signal, …); undefined when there is no such process. */
export const processState = async (pid: number): Promise<string | undefined> => {
  try {
    const text = await readFile(`/proc/${pid}/stat`, "utf8");
    return text.slice(text.lastIndexOf(")") + 2)[0];
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ESRCH") return undefined;
    throw error;
  }
};

/** The boot of this host, as the kernel names it: what belongs to another boot is gone. */
export const hostBootId = async (): Promise<string> =>
  (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();

/** Clock ticks of /proc/PID/stat in a second, on every Linux that Node runs on. */
const TICKS = 100;

export type ProcessUse = {
  /** CPU time since its start, in ms. */
  cpuTime: number;
  /** Bytes. Shared pages counted whole. */
  rss: number;
  /** Bytes. Shared pages counted by its share; undefined where the kernel does not tell. */
  pss: number | undefined;
};

/** What a process uses; undefined when there is none. */
export const processUse = async (pid: number): Promise<ProcessUse | undefined> => {
  const read = async (file: string): Promise<string | undefined> => {
    try {
      return await readFile(`/proc/${pid}/${file}`, "utf8");
    } catch (error) {
      if (["ENOENT", "ESRCH", "EACCES", "EPERM"].includes(errnoOf(error) ?? "")) return undefined;
      throw error;
    }
  };
  const [stat, status, rollup] = await Promise.all(["stat", "status", "smaps_rollup"].map(read));
  if (stat === undefined || status === undefined) return undefined;
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const kilobytes = (text: string | undefined, name: string): number | undefined => {
    const match = new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text ?? "");
    return match ? Number(match[1]) * 1024 : undefined;
  };
  return {
    cpuTime: ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS,
    rss: kilobytes(status, "VmRSS") ?? 0,
    pss: kilobytes(rollup, "Pss"),
  };
};

/** Processes with `text` in their command line. Reads all of /proc: for rare occasions. */
export const processesNaming = async (text: string): Promise<{ pid: number; argv: string[] }[]> => {
  const found: { pid: number; argv: string[] }[] = [];
  for (const entry of await readdir("/proc")) {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) continue;
    try {
      const command = await readFile(`/proc/${entry}/cmdline`, "utf8");
      if (command.includes(text)) found.push({ pid: Number(entry), argv: command.split("\0") });
    } catch (error) {
      // It has ended meanwhile, or is hidden from us and so not ours.
      if (!["ENOENT", "ESRCH", "EACCES", "EPERM"].includes(errnoOf(error) ?? "")) throw error;
    }
  }
  return found;
};
