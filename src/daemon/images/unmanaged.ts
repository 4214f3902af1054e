/** Images that are the user's own files: made known as they lie, and copied in when asked for. */
import { chmod, constants, copyFile, open, rm, stat, writeFile } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import type { ImageManifest, RegisterImage } from "../../contract/images.ts";
import type { Progress } from "../../contract/progress.ts";
import { sha256OfFile } from "../../host/digest.ts";
import { syncDirectory, writeFileAtomic } from "../../host/files.ts";
import { imageFiles } from "../../host/paths.ts";
import { corrupt, isExt4 } from "./describe.ts";
import { uuidOf } from "./recipe.ts";

const SUPERBLOCK_UUID = 1024 + 0x68;

/**
 * Fills a staging folder with the manifest of a file that stays where it is.
 * @throws FILE_NOT_FOUND, USAGE
 */
export const fillRegistered = async (
  { name, rootfs, description }: RegisterImage,
  folder: string,
  progress: Progress,
): Promise<void> => {
  if (!isAbsolute(rootfs)) throw new BangerError("USAGE", `${rootfs} is no absolute path`);
  const size = await sizeOf(rootfs);
  if (!(await isExt4(rootfs)))
    throw new BangerError("USAGE", `${rootfs} holds no ext4 file system`, {
      hint: "make one: mkfs.ext4 -d FOLDER FILE SIZE; or import an archive: banger image import FILE",
    });
  progress.report({ stage: "digest" });
  const sha256 = await sha256OfFile(rootfs, progress.signal);
  const manifest: ImageManifest = {
    version: 1,
    name,
    description: description ?? `the file ${rootfs}`,
    rootfs: { size, sha256, uuid: await uuidIn(rootfs, sha256), path: rootfs },
    source: { type: "file", path: rootfs },
    // Whatever it has is started: a user who brings a whole system means it.
    init: "/sbin/init",
    boot: {
      env: { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" },
      user: "root",
      workdir: "/root",
      entrypoint: [],
      command: [],
    },
    packages: [],
    createdAt: Date.now(),
  };
  await writeFile(join(folder, "manifest.json"), `${JSON.stringify(manifest, undefined, 2)}\n`);
};

const sizeOf = async (path: string): Promise<number> => {
  try {
    const found = await stat(path);
    if (!found.isFile()) throw new BangerError("USAGE", `${path} is no file`);
    return found.size;
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    throw new BangerError("FILE_NOT_FOUND", `${path} is not there`);
  }
};

const uuidIn = async (path: string, digest: string): Promise<string> => {
  const file = await open(path, "r");
  try {
    const { buffer } = await file.read(Buffer.alloc(16), 0, 16, SUPERBLOCK_UUID);
    const hex = buffer.toString("hex");
    if (/^0+$/.test(hex)) return uuidOf(digest);
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  } finally {
    await file.close();
  }
};

/**
 * Copies the user's file in. The image is whole at every moment: first the copy is there, then the manifest says so.
 * @throws IMAGE_CORRUPT when the file is not what was registered
 */
export const promote = async (manifest: ImageManifest, progress: Progress): Promise<void> => {
  const { path, ...rootfs } = manifest.rootfs;
  if (path === undefined) return;
  const files = imageFiles(manifest.name);
  progress.report({ stage: "copy" });
  await copyFile(path, files.rootfs, constants.COPYFILE_FICLONE);
  progress.report({ stage: "digest" });
  if ((await sha256OfFile(files.rootfs, progress.signal)) !== rootfs.sha256) {
    await rm(files.rootfs, { force: true });
    throw corrupt(manifest.name, `${path} has changed since it was registered`, undefined, manifest);
  }
  await chmod(files.rootfs, 0o444);
  const file = await open(files.rootfs, "r");
  await file.sync().finally(() => file.close());
  await syncDirectory(files.folder);
  await writeFileAtomic(files.manifest, `${JSON.stringify({ ...manifest, rootfs }, undefined, 2)}\n`, 0o444);
};
