/** A folder for what is made while a repository is read. Not in memory: a history may be large. */
import { randomBytes } from "node:crypto";
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { workspaceStagingFolder } from "../../host/paths.ts";
import { processStartTime } from "../../host/proc.ts";

export const workspaceStaging = async (): Promise<AsyncDisposable & { path: string }> => {
  const folder = workspaceStagingFolder();
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await removeAbandoned(folder);
  const start = await processStartTime(process.pid);
  const path = join(folder, `${process.pid}-${start}-${randomBytes(4).toString("hex")}`);
  await mkdir(path, { mode: 0o700 });
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
};

/** Of processes that were killed. */
const removeAbandoned = async (folder: string): Promise<void> => {
  for (const name of await readdir(folder)) {
    const [, pid, start] = /^(\d+)-(\d+)-[0-9a-f]{8}$/.exec(name) ?? [];
    if (pid !== undefined && (await processStartTime(Number(pid))) !== start)
      await rm(join(folder, name), { recursive: true, force: true });
  }
};
