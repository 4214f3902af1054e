/** A kernel out of a bundle: the files that an installed kernel has, and its manifest, which names each with its digest. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { BundleSource } from "../../contract/bundles.ts";
import { type KernelManifest, kernelManifestSchema } from "../../contract/kernels.ts";
import type { Progress } from "../../contract/progress.ts";
import {
  fetchBundle,
  invalid,
  MANIFEST,
  type PackedBundle,
  packBundle,
  readBundleManifest,
  type Unpacked,
} from "../artifacts/bundle.ts";
import type { DownloadOptions } from "../artifacts/download.ts";
import { kernelDigest } from "./assemble.ts";
import { inspectElf } from "./elf.ts";

/** No kernel with its modules is near this, in bytes. */
export const MOST_UNPACKED = 8 * 1024 ** 3;

/** Whether an installed kernel may have a file of that name. */
export const isKernelFile = (name: string): boolean =>
  ["vmlinux", "bzImage", "modules.ext4", MANIFEST, "boot-modules/order"].includes(name) ||
  /^boot-modules\/[A-Za-z0-9_-]{1,60}\.ko$/.test(name);

type About = Pick<KernelManifest, "name" | "description" | "source">;

/**
 * Fills `folder` with the kernel of a bundle.
 * @throws DOWNLOAD_FAILED, BUNDLE_INVALID, KERNEL_CORRUPT, DISK_FULL, the signal's error
 */
export const installKernelBundle = async (
  entry: { name: string; description: string },
  source: BundleSource,
  folder: string,
  progress: Progress,
  options?: DownloadOptions,
): Promise<void> => {
  const files = await fetchBundle(source, { folder, isExpected: isKernelFile }, progress, options);
  const { url, sha256 } = source;
  await finishBundle(folder, url, files, { ...entry, source: { type: "bundle", url, sha256 } });
};

/** Compares what was unpacked with the manifest, which then says where this kernel came from. */
export const finishBundle = async (
  folder: string,
  url: string,
  files: ReadonlyMap<string, Unpacked>,
  { name, description, source }: About,
): Promise<void> => {
  const manifest = await readBundleManifest(url, folder, files, (data) => kernelManifestSchema.parse(data));
  for (const needed of ["vmlinux", "modules.ext4", "boot-modules/order"])
    if (!files.has(needed)) throw invalid(url, `it lacks ${needed}`);
  const described = new Map(manifest.files.map((record) => [record.path, record]));
  for (const [path, { size, sha256 }] of files) {
    if (path === MANIFEST) continue;
    const record = described.get(path);
    if (record?.size !== size || record.sha256 !== sha256)
      throw invalid(url, `its ${path} is not what its manifest describes`);
  }
  const missing = manifest.files.find(({ path }) => !files.has(path));
  if (missing !== undefined) throw invalid(url, `it lacks ${missing.path}`);
  if (manifest.digest !== kernelDigest(manifest.files)) throw invalid(url, "its manifest contradicts itself");
  inspectElf(await readFile(join(folder, "vmlinux")));
  const installed: KernelManifest = { ...manifest, name, description, source };
  await writeFile(join(folder, MANIFEST), `${JSON.stringify(installed, undefined, 2)}\n`);
};

/**
 * Packs an installed kernel.
 * @param installed its folder
 * @param folder where the bundle goes
 */
export const packKernel = async (
  installed: string,
  manifest: KernelManifest,
  folder: string,
  progress: Progress,
): Promise<PackedBundle> =>
  await packBundle(
    [MANIFEST, ...manifest.files.map(({ path }) => path)].map((name) => ({ name, path: join(installed, name) })),
    folder,
    manifest.name,
    progress,
  );
