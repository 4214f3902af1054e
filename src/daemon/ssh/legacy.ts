/** Takes away the ssh_config that an earlier layout left, and nothing else: users keep keys in that folder. */
import { lstat, realpath, rmdir, unlink } from "node:fs/promises";
import { basename, dirname, join, sep } from "node:path";
import { legacySsh } from "../../host/paths.ts";

/** The path with every link in it resolved, as far as it exists. */
const resolved = async (path: string): Promise<string> => {
  try {
    return await realpath(path);
  } catch {
    // Not there, or not to be looked into: what can be resolved is the way to it.
    const parent = dirname(path);
    return parent === path ? path : join(await resolved(parent), basename(path));
  }
};

const isBelow = (path: string, folder: string): boolean => path === folder || path.startsWith(folder + sep);

/** Errors are no concern here: not there, not ours to change, not empty, each of them means that it stays. */
const attempt = async (step: () => Promise<void>): Promise<boolean> => {
  try {
    await step();
    return true;
  } catch {
    // Said above.
    return false;
  }
};

/**
 * Removes the legacy ssh_config, then its folder if that is empty. Left alone when the user's key lies there, when the folder is a
 * link (what it leads to is somebody else's) and when the file is none.
 * @param keyPath `ssh_key_path`, absolute
 * @returns what was removed
 */
export const cleanLegacySsh = async (keyPath: string, { folder, config } = legacySsh()): Promise<string[]> => {
  const removed: string[] = [];
  if (!(await attempt(async () => refuseUnless((await lstat(folder)).isDirectory())))) return removed;
  if (isBelow(keyPath, folder) || isBelow(await resolved(keyPath), await resolved(folder))) return removed;
  const unlinked = await attempt(async () => {
    refuseUnless((await lstat(config)).isFile());
    await unlink(config);
  });
  if (unlinked) removed.push(config);
  // Only ever succeeds on an empty folder.
  if (await attempt(() => rmdir(folder))) removed.push(folder);
  return removed;
};

const refuseUnless = (holds: boolean): void => {
  if (!holds) throw new Error("not what an earlier banger made");
};
