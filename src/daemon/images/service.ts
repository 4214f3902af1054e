/** Images: front door. What is installed is what `images/` in the state folder holds (artifacts/published.ts). */
import { open } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { BangerError, errnoOf, nearest } from "../../contract/errors.ts";
import {
  type Available,
  type ImageBoot,
  type ImageCatalogEntry,
  type ImageInfo,
  type ImageManifest,
  imageCatalogSchema,
  imageManifestSchema,
} from "../../contract/images.ts";
import { isName } from "../../contract/names.ts";
import type { Progress } from "../../contract/progress.ts";
import { sha256OfFile } from "../../host/digest.ts";
import { bytesOnDisk, exists } from "../../host/files.ts";
import { catalogFile, imageFiles, imagesFolder } from "../../host/paths.ts";
import { nameDiskFull } from "../../host/tool-errors.ts";
import { installedNames, manifestReader, publish, readCatalog, unpublish } from "../artifacts/published.ts";
import { singleFlight } from "../artifacts/single-flight.ts";
import { stagingTree } from "../artifacts/staging.ts";
import { buildDebianImage } from "./build.ts";

export type ImageServiceOptions = {
  /** `debian_mirror` of the config. */
  debianMirror?: string | undefined;
  /** Default: the catalog shipped with the program. */
  catalog?: string | undefined;
  /** Default: the recipes shipped with the program. */
  recipes?: string | undefined;
};

/** What a VM is booted with. */
export type BootImage = {
  name: string;
  /** sha256 of the root file system, in hex. */
  digest: string;
  /** Read-only ext4. */
  rootfs: string;
  /** Path of the image's init, null when it has none. */
  init: string | null;
  boot: ImageBoot;
};

export type ImageService = {
  list(): Promise<ImageInfo[]>;
  /** What the catalog offers. */
  available(): Promise<Available[]>;
  /** @throws IMAGE_NOT_FOUND */
  show(name: string): Promise<ImageInfo>;
  /** Builds or fetches an image of the catalog; one that is installed is left as it is. */
  pull(name: string, progress: Progress): Promise<ImageInfo>;
  /** The image for a boot, pulled first when it has to be. One stat when it is there. */
  ensure(name: string, progress: Progress): Promise<BootImage>;
  /**
   * Cheap check before a boot: size and magic number.
   * @throws IMAGE_CORRUPT, IMAGE_NOT_FOUND
   */
  verify(name: string): Promise<void>;
  /**
   * Reads all of the root file system and compares its digest.
   * @throws IMAGE_CORRUPT, IMAGE_NOT_FOUND
   */
  verifyDigest(name: string, progress: Progress): Promise<void>;
  /**
   * @param usedBy names of VMs that use it
   * @throws IMAGE_IN_USE, IMAGE_NOT_FOUND
   */
  delete(name: string, usedBy: readonly string[]): Promise<void>;
};

export const imageService = (options: ImageServiceOptions = {}): ImageService => {
  const flights = singleFlight<ImageManifest>();
  const manifests = manifestReader(
    (data) => imageManifestSchema.parse(data),
    (path, cause) => corrupt(basename(dirname(path)), "its manifest cannot be read", cause),
  );
  // What is no name is no image: as a path it could lead anywhere.
  const manifestOf = async (name: string) =>
    isName(name) ? await manifests.read(imageFiles(name).manifest) : undefined;
  const catalog = () =>
    readCatalog(options.catalog ?? catalogFile("images"), (data) => imageCatalogSchema.parse(data).images);

  const notFound = async (name: string, command: string): Promise<BangerError> => {
    const offered = (await catalog()).map((entry) => entry.name);
    const near = nearest(name, [...(await installedNames(imagesFolder())), ...offered]);
    return new BangerError("IMAGE_NOT_FOUND", `there is no image ${JSON.stringify(name)}`, {
      hint: near ? `did you mean ${near}? see \`${command}\`` : `see \`${command}\``,
      details: { name, near },
    });
  };

  const needManifest = async (name: string): Promise<ImageManifest> => {
    const manifest = await manifestOf(name);
    if (!manifest) throw await notFound(name, "banger image list");
    return manifest;
  };

  const install = (name: string, progress: Progress): Promise<ImageManifest> =>
    flights.run(name, progress, async (shared) => {
      const there = await manifestOf(name);
      if (there) return there;
      const entry = (await catalog()).find((candidate) => candidate.name === name);
      if (!entry) throw await notFound(name, "banger image list --available");
      await buildFromSources(entry, options, shared);
      const made = await manifestOf(name);
      if (!made) throw new BangerError("INTERNAL", `the image ${name} vanished while it was installed`);
      return made;
    });

  const ensure = async (name: string, progress: Progress): Promise<ImageManifest> =>
    (await manifestOf(name)) ?? (await install(name, progress));

  return {
    list: async () => {
      const names = await installedNames(imagesFolder());
      // A damaged one must not hide the others; it is named by whatever uses it.
      const found = await Promise.all(names.map((name) => manifests.readIfSound(imageFiles(name).manifest)));
      return await Promise.all(found.filter((manifest) => manifest !== undefined).map(infoOf));
    },
    available: async () => {
      const entries = await catalog();
      return await Promise.all(
        entries.map(async ({ name, description }) => ({
          name,
          description,
          installed: await exists(imageFiles(name).manifest),
        })),
      );
    },
    show: async (name) => infoOf(await needManifest(name)),
    pull: async (name, progress) => infoOf(await ensure(name, progress)),
    ensure: async (name, progress) => {
      const { rootfs, init, boot } = await ensure(name, progress);
      return { name, digest: rootfs.sha256, rootfs: imageFiles(name).rootfs, init, boot };
    },
    verify: async (name) => checkShape(await needManifest(name)),
    verifyDigest: async (name, progress) => {
      const manifest = await needManifest(name);
      await checkShape(manifest);
      progress.report({ stage: "digest" });
      const digest = await sha256OfFile(imageFiles(name).rootfs, progress.signal);
      if (digest !== manifest.rootfs.sha256) throw corrupt(name, "its content is not what was installed");
    },
    delete: async (name, usedBy) => {
      if (!isName(name) || !(await exists(imageFiles(name).folder))) throw await notFound(name, "banger image list");
      if (usedBy.length > 0) {
        throw new BangerError("IMAGE_IN_USE", `the image ${name} is used by ${usedBy.join(", ")}`, {
          hint: `delete them first: banger vm delete ${usedBy.join(" ")}`,
          details: { name, usedBy },
        });
      }
      await unpublish(imageFiles(name).folder);
    },
  };
};

/** Offset of ext4's magic number: the superblock at 1024, and 56 into it. */
const MAGIC_OFFSET = 1024 + 56;
const EXT4_MAGIC = 0xef53;

const checkShape = async ({ name, rootfs }: ImageManifest): Promise<void> => {
  try {
    const file = await open(imageFiles(name).rootfs, "r");
    try {
      const { size } = await file.stat();
      if (size !== rootfs.size) throw corrupt(name, `it has ${size} bytes in place of ${rootfs.size}`);
      const { buffer, bytesRead } = await file.read(Buffer.alloc(2), 0, 2, MAGIC_OFFSET);
      if (bytesRead !== 2 || buffer.readUInt16LE(0) !== EXT4_MAGIC) throw corrupt(name, "it holds no ext4 file system");
    } finally {
      await file.close();
    }
  } catch (error) {
    throw errnoOf(error) === "ENOENT" ? corrupt(name, "its root file system is missing") : error;
  }
};

const corrupt = (name: string, why: string, cause?: unknown): BangerError =>
  new BangerError("IMAGE_CORRUPT", `the image ${name} is damaged: ${why}`, {
    hint: `get it anew: banger image delete ${name} && banger image pull ${name}`,
    details: { name },
    cause,
  });

const infoOf = async ({
  name,
  description,
  rootfs,
  init,
  boot,
  packages,
  createdAt,
}: ImageManifest): Promise<ImageInfo> => {
  const path = imageFiles(name).rootfs;
  return {
    name,
    description,
    digest: rootfs.sha256,
    size: rootfs.size,
    // A damaged image is listed too, so that it can be deleted.
    diskUsed: (await exists(path)) ? await bytesOnDisk(path) : 0,
    init,
    boot,
    packages: packages.length,
    createdAt,
  };
};

/** Tries an entry's sources in order; the last one's error stands for all. */
const buildFromSources = async (
  entry: ImageCatalogEntry,
  { debianMirror, recipes }: ImageServiceOptions,
  progress: Progress,
): Promise<void> => {
  let failure: unknown;
  for (const source of entry.sources) {
    if (progress.signal.aborted) break;
    try {
      await using staging = await stagingTree("image");
      await buildDebianImage({ entry, source, debianMirror, recipes, folder: staging.path, progress });
      await publish(staging.path, imageFiles(entry.name).folder);
      return;
    } catch (error) {
      failure = nameDiskFull(error);
    }
  }
  throw failure;
};
