/**
 * Installed kernels and images. The truth about what is installed is the folder with its manifest: no table in the
 * database repeats it, so that a crash cannot make the two disagree. A folder appears by one rename, complete and
 * flushed, is never changed, and disappears by one rename.
 */
import { chmod, mkdir, open, readdir, readFile, rename, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { exists, syncDirectory } from "../../host/files.ts";
import { stagingTree } from "./staging.ts";

/**
 * Makes files read-only, flushes them and the folder, and moves the folder to `target` in one step.
 * @param mode of the files
 */
export const publish = async (staged: string, target: string, mode = 0o444): Promise<void> => {
  await settle(staged, mode);
  await mkdir(dirname(target), { recursive: true, mode: 0o700 });
  // Only what has no manifest can be in the way: someone has damaged it by hand.
  if (await exists(target)) await unpublish(target);
  await rename(staged, target);
  await syncDirectory(dirname(target));
};

const settle = async (folder: string, mode: number): Promise<void> => {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      await settle(path, mode);
      continue;
    }
    await chmod(path, mode);
    const file = await open(path, "r");
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  }
  await syncDirectory(folder);
};

/** Takes an installed folder out of sight at once, then removes it. One that is not there is no error. */
export const unpublish = async (folder: string): Promise<void> => {
  await using staging = await stagingTree("delete");
  try {
    await rename(folder, join(staging.path, "gone"));
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
};

/** Names of installed folders. */
export const installedNames = async (folder: string): Promise<string[]> => {
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    return entries
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name)
      .sort();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
};

export type ManifestReader<T> = {
  /**
   * The manifest; a file that has not changed is not read again.
   * @returns undefined when there is no such file
   * @throws the error that `damaged` gives, when it cannot be understood
   */
  read(path: string): Promise<T | undefined>;
  /** The manifest, or undefined where there is none that can be understood. */
  readIfSound(path: string): Promise<T | undefined>;
};

/**
 * @param parse gives the manifest or throws
 * @param damaged the error for a manifest that cannot be parsed
 */
export const manifestReader = <T>(
  parse: (data: unknown) => T,
  damaged: (path: string, cause: unknown) => BangerError,
): ManifestReader<T> => {
  const known = new Map<string, { key: string; manifest: T }>();
  const read = async (path: string): Promise<T | undefined> => {
    try {
      const { ino, mtimeMs, size } = await stat(path);
      const key = `${ino} ${mtimeMs} ${size}`;
      const entry = known.get(path);
      if (entry?.key === key) return entry.manifest;
      const manifest = parse(JSON.parse(await readFile(path, "utf8")));
      known.set(path, { key, manifest });
      return manifest;
    } catch (error) {
      known.delete(path);
      if (errnoOf(error) === "ENOENT") return undefined;
      throw errnoOf(error) === undefined ? damaged(path, error) : error;
    }
  };
  const readIfSound = async (path: string): Promise<T | undefined> => {
    try {
      return await read(path);
    } catch (error) {
      if (error instanceof BangerError) return undefined;
      throw error;
    }
  };
  return { read, readIfSound };
};
