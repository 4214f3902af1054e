/** File operations that must be whole or not at all. */
import type { Stats } from "node:fs";
import { mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { dirname, join } from "node:path";
import { errnoOf } from "../contract/errors.ts";
import { stagingFolder } from "./paths.ts";
import { processStartTime } from "./proc.ts";

/** Writes a file so that readers see the old one or the new one, also after a power cut. */
export const writeFileAtomic = (path: string, data: string | Uint8Array, mode = 0o600): Promise<void> =>
  writeAndRename(path, data, mode, true);

/** As `writeFileAtomic` without the wait for the disk, which can be long: for what is made anew where a power cut has taken it. */
export const writeFileWhole = (path: string, data: string | Uint8Array, mode = 0o600): Promise<void> =>
  writeAndRename(path, data, mode, false);

const writeAndRename = async (path: string, data: string | Uint8Array, mode: number, flush: boolean): Promise<void> => {
  await mkdir(dirname(path), { recursive: true });
  const staging = `${path}.${process.pid}-${randomBytes(6).toString("hex")}.tmp`;
  try {
    const file = await open(staging, "wx", mode);
    try {
      await file.writeFile(data);
      if (flush) await file.sync();
    } finally {
      await file.close();
    }
    await rename(staging, path);
  } catch (error) {
    await rm(staging, { force: true });
    throw error;
  }
};

/**
 * Replaces a file of the user's by one rename, with the owner and mode of what stood there.
 * @param as the file as it was read; where it has changed since, nothing is written
 * @returns false when it has changed
 */
export const replaceFile = async (path: string, data: Uint8Array, as: Stats): Promise<boolean> => {
  const staging = `${path}.${randomBytes(6).toString("hex")}.tmp`;
  try {
    const file = await open(staging, "wx", 0o600);
    try {
      await file.writeFile(data);
      // Not by the mode of `open`, which the umask narrows.
      await file.chmod(as.mode & 0o7777);
      if (process.getuid?.() === 0 || as.gid !== process.getgid?.()) await file.chown(as.uid, as.gid);
      await file.sync();
    } finally {
      await file.close();
    }
    const now = await stat(path);
    if (now.ino !== as.ino || now.mtimeMs !== as.mtimeMs || now.size !== as.size) return false;
    await rename(staging, path);
    return true;
  } finally {
    await rm(staging, { force: true });
  }
};

/** As `writeFileAtomic` names what it is writing: with the process that does. */
const STAGING = /\.(\d+)-[0-9a-f]{12}\.tmp$/;

/** Removes from a folder what processes that are gone were writing. A folder that is not there is no error. */
export const removeHalfWritten = async (folder: string): Promise<void> => {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return;
    throw error;
  }
  for (const name of names) {
    const pid = STAGING.exec(name)?.[1];
    if (pid !== undefined && (await processStartTime(Number(pid))) === undefined)
      await rm(join(folder, name), { force: true });
  }
};

/** The file's text, or undefined when there is no such file. */
export const readFileIfThere = async (path: string): Promise<string | undefined> => {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
};

export const exists = async (path: string): Promise<boolean> => {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return false;
    throw error;
  }
};

/** Bytes a file really occupies (sparse files count what they hold). */
export const bytesOnDisk = async (path: string): Promise<number> => (await stat(path)).blocks * 512;

const stagingPath = (purpose: string): string =>
  join(stagingFolder(), `${purpose}-${process.pid}-${randomBytes(4).toString("hex")}`);

/** A new folder in banger's staging area; removed with all it holds when disposed, unless it was renamed away. */
export const stagingDirectory = async (purpose: string): Promise<AsyncDisposable & { path: string }> => {
  const path = stagingPath(purpose);
  await mkdir(path, { recursive: true, mode: 0o700 });
  return {
    path,
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
};

/** Removes a folder at once, with all it holds: nobody who still writes there finds it half gone, or keeps it from being removed. */
export const removeWhole = async (path: string): Promise<void> => {
  await mkdir(stagingFolder(), { recursive: true, mode: 0o700 });
  // Takes no room, of which there may be none left.
  const leaving = stagingPath("removed");
  try {
    await rename(path, leaving);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
  await rm(leaving, { recursive: true, force: true });
};

/** Flushes a folder's entries, so that a rename in it survives a power cut. */
export const syncDirectory = async (path: string): Promise<void> => {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
};
