/** The staging area: half-made kernels and images, each in a folder that names the process that makes it. */
import { randomBytes } from "node:crypto";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../../contract/errors.ts";
import { removeTree } from "../../host/namespace.ts";
import { processStartTime } from "../../host/proc.ts";
import { signalGroup } from "../../host/process.ts";
import { stagingFolder } from "../../host/paths.ts";
import type { Driver } from "../../vmm/driver.ts";

/** `purpose-pid-start time-random` */
const NAME = /^[a-z-]+-(\d+)-(\d+)-[0-9a-f]{8}$/;

/** A new folder in staging; removed with all it holds when disposed, unless it was renamed away. */
export const stagingTree = async (purpose: string): Promise<AsyncDisposable & { path: string }> => {
  const started = await processStartTime(process.pid);
  const path = join(stagingFolder(), `${purpose}-${process.pid}-${started ?? 0}-${randomBytes(4).toString("hex")}`);
  await mkdir(path, { recursive: true, mode: 0o700 });
  return { path, [Symbol.asyncDispose]: () => removeTree(path) };
};

/**
 * Removes what dead processes left in staging, and ends VMs that run there. A folder of a process that lives is left alone.
 * @returns names of the removed folders
 */
export const cleanStaging = async (driver?: Driver): Promise<string[]> => {
  const removed: string[] = [];
  // Of templates that were being made: their VMs have no record.
  const strays = (await driver?.running(stagingFolder())) ?? [];
  for (const name of await namesIn(stagingFolder())) {
    const [, pid, started] = NAME.exec(name) ?? /^[a-z-]+-(\d+)-[0-9a-f]{8}$/.exec(name) ?? [];
    const alive = pid === undefined ? undefined : await processStartTime(Number(pid));
    if (alive !== undefined && (started === undefined || started === alive)) continue;
    const folder = join(stagingFolder(), name);
    for (const { identity, disk } of strays) if (disk.startsWith(`${folder}/`)) signalGroup(identity.pid, "SIGKILL");
    await removeTree(folder);
    removed.push(name);
  }
  return removed;
};

const namesIn = async (folder: string): Promise<string[]> => {
  try {
    return await readdir(folder);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
};
