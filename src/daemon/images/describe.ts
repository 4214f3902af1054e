/** What installed images look like from outside, and whether they still are what was installed. */
import { open } from "node:fs/promises";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import type { ImageInfo, ImageManifest } from "../../contract/images.ts";
import { bytesOnDisk } from "../../host/files.ts";
import { imageFiles } from "../../host/paths.ts";

/** Banger's own copy, or the user's file. */
export const rootfsOf = ({ name, rootfs }: ImageManifest): string => rootfs.path ?? imageFiles(name).rootfs;

/** Offset of ext4's magic number: the superblock at 1024, and 56 into it. */
const MAGIC_OFFSET = 1024 + 56;
const EXT4_MAGIC = 0xef53;

/** Whether a file begins as an ext4 file system does. */
export const isExt4 = async (path: string): Promise<boolean> => {
  const file = await open(path, "r");
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(2), 0, 2, MAGIC_OFFSET);
    return bytesRead === 2 && buffer.readUInt16LE(0) === EXT4_MAGIC;
  } finally {
    await file.close();
  }
};

/** @throws IMAGE_CORRUPT */
export const checkShape = async (manifest: ImageManifest): Promise<void> => {
  const { name, rootfs } = manifest;
  const damaged = (why: string) => corrupt(name, why, undefined, manifest);
  try {
    const file = await open(rootfsOf(manifest), "r");
    const { size } = await file.stat().finally(() => file.close());
    if (size !== rootfs.size) throw damaged(`it has ${size} bytes in place of ${rootfs.size}`);
    if (!(await isExt4(rootfsOf(manifest)))) throw damaged("it holds no ext4 file system");
  } catch (error) {
    throw errnoOf(error) === "ENOENT" ? damaged("its root file system is missing") : error;
  }
};

export const corrupt = (name: string, why: string, cause?: unknown, manifest?: ImageManifest): BangerError => {
  const anew = {
    file: `banger image register ${name} ${manifest?.rootfs.path ?? "FILE"}`,
    import: `banger image import ${manifest?.source.type === "import" ? manifest.source.from : "FILE"} --name ${name}`,
    pull: `banger image pull ${name}`,
  };
  const { type = "oci" } = manifest?.source ?? {};
  const how = type === "file" || type === "import" ? anew[type] : anew.pull;
  return new BangerError("IMAGE_CORRUPT", `the image ${name} is damaged: ${why}`, {
    hint: `get it anew: banger image delete ${name} && ${how}`,
    details: { name },
    cause,
  });
};

/** A damaged image is listed too, so that it can be deleted; and one may be deleted just now. */
const diskUsed = async (path: string): Promise<number> => {
  try {
    return await bytesOnDisk(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return 0;
    throw error;
  }
};

export const infoOf = async (manifest: ImageManifest): Promise<ImageInfo> => {
  const { name, description, rootfs, init, boot, source, layers, packages, createdAt } = manifest;
  const path = rootfsOf(manifest);
  return {
    name,
    description,
    digest: rootfs.sha256,
    size: rootfs.size,
    diskUsed: await diskUsed(path),
    init,
    boot,
    source,
    layers: layers ?? [],
    managed: rootfs.path === undefined,
    packages: packages.length,
    createdAt,
  };
};
