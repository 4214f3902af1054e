/** An image out of a bundle: exactly `rootfs.ext4` and `manifest.json`. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { BundleSource } from "../../contract/bundles.ts";
import { type ImageManifest, imageManifestSchema, isContainer } from "../../contract/images.ts";
import type { Progress } from "../../contract/progress.ts";
import {
  fetchBundle,
  invalid,
  MANIFEST,
  type PackedBundle,
  packBundle,
  readBundleManifest,
} from "../artifacts/bundle.ts";
import type { DownloadOptions } from "../artifacts/download.ts";

const ROOTFS = "rootfs.ext4";

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
  if (rootfs === undefined) throw invalid(source.url, `it lacks ${ROOTFS}`);
  const manifest = await readBundleManifest(source.url, folder, files, (data) => imageManifestSchema.parse(data));
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
