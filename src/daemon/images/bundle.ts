/** An image out of a bundle: exactly `rootfs.ext4` and `manifest.json`. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { BundleSource } from "../../contract/bundles.ts";
import { type ImageManifest, imageManifestSchema, isContainer } from "../../contract/images.ts";
import type { Progress } from "../../contract/progress.ts";
import { fetchBundle, invalid, type PackedBundle, packBundle, type Unpacked } from "../artifacts/bundle.ts";
import type { DownloadOptions } from "../artifacts/download.ts";

const ROOTFS = "rootfs.ext4";
const MANIFEST = "manifest.json";
/** No manifest is near this. */
const MOST_MANIFEST = 8 * 1024 * 1024;

/**
 * Fills `folder` with the image of a bundle.
 * @param entry what the catalog calls it, which counts more than what the bundle says
 * @throws DOWNLOAD_FAILED, BUNDLE_INVALID, DISK_FULL, the signal's error
 */
export const installImageBundle = async (
  entry: { name: string; description: string },
  source: BundleSource,
  folder: string,
  progress: Progress,
  options?: DownloadOptions,
): Promise<void> => {
  const isExpected = (name: string) => name === ROOTFS || name === MANIFEST;
  const files = await fetchBundle(source, { folder, isExpected }, progress, options);
  const rootfs = files.get(ROOTFS);
  if (rootfs === undefined || !files.has(MANIFEST)) throw invalid(source.url, `it lacks ${rootfs ? MANIFEST : ROOTFS}`);
  const manifest = await readManifest(source.url, join(folder, MANIFEST), files.get(MANIFEST));
  if (manifest.rootfs.sha256 !== rootfs.sha256 || manifest.rootfs.size !== rootfs.size)
    throw invalid(source.url, "its root file system is not the one that its manifest describes");
  const { name, description } = entry;
  const { url, sha256 } = source;
  const installed: ImageManifest = {
    ...manifest,
    name,
    description,
    source: { type: "bundle", url, sha256, container: isContainer(manifest.source) },
  };
  await writeFile(join(folder, MANIFEST), `${JSON.stringify(installed, undefined, 2)}\n`);
};

const readManifest = async (url: string, path: string, file: Unpacked | undefined): Promise<ImageManifest> => {
  if (file === undefined || file.size > MOST_MANIFEST) throw invalid(url, `its manifest has ${file?.size} bytes`);
  try {
    return imageManifestSchema.parse(JSON.parse(await readFile(path, "utf8")));
  } catch (error) {
    throw invalid(url, "its manifest cannot be read", error);
  }
};

/** A catalog's entry for a bundle that lies where it was made. */
export const entryOf = (
  { name, description }: { name: string; description: string },
  { path, sha256, size, unpacked }: PackedBundle,
): { name: string; description: string; sources: BundleSource[] } => ({
  name,
  description,
  sources: [{ type: "bundle", url: pathToFileURL(path).href, sha256, size, unpacked }],
});

/**
 * Packs an image.
 * @param rootfs its root file system, wherever it lies
 * @param folder where the bundle goes
 * @param staging a folder of the staging area, for the manifest
 */
export const packImage = async (
  manifest: ImageManifest,
  rootfs: string,
  folder: string,
  staging: string,
  progress: Progress,
): Promise<PackedBundle> => {
  const { path: _, ...described } = manifest.rootfs;
  const portable: ImageManifest = { ...manifest, rootfs: described };
  const path = join(staging, MANIFEST);
  await writeFile(path, `${JSON.stringify(portable, undefined, 2)}\n`);
  const files = [
    { name: MANIFEST, path },
    { name: ROOTFS, path: rootfs },
  ];
  // A reference of a registry is no file name.
  return await packBundle(files, folder, manifest.name.replace(/[^A-Za-z0-9._-]+/g, "-"), progress);
};
