/** The folder of the sockets: ours alone, or not used. */
import { lstat as lstatWithCallback } from "node:fs";
import { promisify } from "node:util";
import { BangerError, errnoOf } from "../contract/errors.ts";
import { roots } from "./paths.ts";

/** Every command comes by here, and loading node:fs/promises would cost it 3 ms: that is done only where there is something to change. */
const lstat = promisify(lstatWithCallback);

const refuse = (path: string, why: string): BangerError =>
  new BangerError("FILE_REFUSED", `the runtime folder ${path} ${why}`, {
    hint: `look at it with \`ls -ld ${path}\` and remove it if it is not yours, or set XDG_RUNTIME_DIR to a folder that only you can write`,
    details: { path },
  });

const lstatIfThere = async (path: string) => {
  try {
    return await lstat(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
};

const create = async (path: string): Promise<void> => {
  const { mkdir } = process.getBuiltinModule("node:fs/promises");
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    // A peer that makes the same folder at the same time is fine; what stands there is checked below.
    if (errnoOf(error) === "EEXIST") return;
    // Another user's XDG_RUNTIME_DIR, as `su` hands it on, or one that was never made.
    if (!["EACCES", "EPERM", "EROFS", "ENOENT"].includes(errnoOf(error) ?? "")) throw error;
    throw refuse(path, "cannot be made");
  }
};

/**
 * Makes sure that the folder for sockets is there and that nobody else can have put anything in it. Whoever owns it could stand in for
 * the daemon, so the client checks it before each connection too.
 * @returns its path
 * @throws FILE_REFUSED when it is a link, no folder, or of another user
 */
export const ensureRuntimeRoot = async (): Promise<string> => {
  const path = roots().runtime;
  let found = await lstatIfThere(path);
  if (!found) {
    await create(path);
    found = await lstat(path);
  }
  if (found.isSymbolicLink()) throw refuse(path, "is a symbolic link");
  if (!found.isDirectory()) throw refuse(path, "is not a folder");
  const uid = process.getuid?.();
  if (found.uid !== uid) throw refuse(path, `belongs to user ${found.uid}, not to you (${uid})`);
  if ((found.mode & 0o777) !== 0o700) {
    // Ours, but open: something may have been put there while it was. A fresh folder cannot be open, `create` made it 0700.
    if ((found.mode & 0o022) !== 0) throw refuse(path, "can be written by others");
    await process.getBuiltinModule("node:fs/promises").chmod(path, 0o700);
  }
  return path;
};
