/** Puts what was extracted where it belongs, without following anything the guest sent. */
import { lstat, mkdtemp, opendir, rename, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { BangerError, errnoOf } from "../../contract/errors.ts";

/** A folder for half-done copies beside their target, so that a rename finishes them. */
export const stagingBeside = async (folder: string): Promise<AsyncDisposable & { path: string }> => {
  try {
    const path = await mkdtemp(join(folder, ".banger-cp-"));
    return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
  } catch (error) {
    if (!["ENOENT", "ENOTDIR", "EACCES", "EPERM", "EROFS"].includes(errnoOf(error) ?? "")) throw error;
    throw new BangerError("FILE_REFUSED", `cannot write in ${folder}`, {
      hint: "the folder must be there and yours to write",
      cause: error,
    });
  }
};

/**
 * @throws FILE_REFUSED for device nodes, which tar makes when it runs as root: a guest must not hand out the host's devices
 */
export const refuseDevices = async (folder: string): Promise<void> => {
  for await (const entry of await opendir(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await refuseDevices(path);
    else if (entry.isBlockDevice() || entry.isCharacterDevice()) {
      throw new BangerError("FILE_REFUSED", `the guest sent a device node: ${entry.name}`, {
        hint: "copy the other files one by one, or pack them in the guest",
      });
    }
  }
};

const lstatIfThere = async (path: string) => {
  try {
    return await lstat(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
};

/**
 * Moves `from` to `to`, and into it where both are folders, as `cp -r` does. A link at the target is replaced, never followed.
 * @throws FILE_REFUSED where a folder would take a file's place or the other way round
 */
export const publish = async (from: string, to: string): Promise<void> => {
  const [source, target] = [await lstat(from), await lstatIfThere(to)];
  if (!target || (!source.isDirectory() && !target.isDirectory())) {
    await rename(from, to);
    return;
  }
  if (!source.isDirectory() || !target.isDirectory()) {
    const [what, place] = source.isDirectory() ? ["folder", "it is no folder here"] : ["file", "it is a folder here"];
    throw new BangerError("FILE_REFUSED", `cannot put a ${what} at ${to}: ${place}`, {
      hint: "give another target, or move it out of the way",
    });
  }
  for await (const entry of await opendir(from)) await publish(join(from, entry.name), join(to, entry.name));
  await rmdir(from);
};
