/** Makes an installed kernel's folder out of a kernel file and a folder of modules, wherever they came from. */
import { createHash } from "node:crypto";
import { chmod, cp, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { basename, join, relative } from "node:path";
import { promisify } from "node:util";
import { gunzip, zstdDecompress } from "node:zlib";
import { BangerError } from "../../contract/errors.ts";
import type { KernelManifest } from "../../contract/kernels.ts";
import { type Progress, throwIfAborted } from "../../contract/progress.ts";
import { sha256OfFile } from "../../host/digest.ts";
import { runTool } from "../../host/process.ts";
import { resolveBootModules } from "./boot-modules.ts";
import { extractVmlinux, isBzImage } from "./bzimage.ts";
import { inspectElf, isElf } from "./elf.ts";
import { lackingOptions, releaseOf } from "./kernel-facts.ts";
import { makeModulesDisk } from "./modules-disk.ts";
import { decompressXz } from "./xz.ts";

/** A module is small; a damaged one must not fill the memory. */
const MAX_MODULE = 64 * 1024 * 1024;

export type Assembly = {
  /** Content of a bzImage or of an ELF kernel. */
  kernel: Buffer;
  /** What it is called in messages. */
  from: string;
  /**
   * A folder of modules (`…/lib/modules/RELEASE`) that may be changed, in a tree where depmod finds it below `lib/modules`;
   * undefined for a kernel that needs none.
   */
  modules: { tree: string } | undefined;
  about: Pick<KernelManifest, "name" | "description" | "source"> & { package?: KernelManifest["package"] };
  /** Staging folder that becomes the kernel's. */
  folder: string;
  progress: Progress;
};

const STAGE = "kernel";

/**
 * Fills `folder` with a kernel.
 * @throws KERNEL_CORRUPT for what is no kernel, or none that banger can boot; DISK_FULL, TOOL_MISSING, TOOL_FAILED
 */
export const assembleKernel = async ({ kernel, from, modules, about, folder, progress }: Assembly): Promise<void> => {
  const { signal, report } = progress;
  report({ stage: STAGE, message: "unpack" });
  const vmlinux = await elfOf(kernel, from);
  const { pvh } = inspectElf(vmlinux);
  if (!pvh)
    throw unusable(from, "it has no entry point for a direct boot", "build it with CONFIG_PVH=y, or choose another");
  const release = releaseOf(vmlinux);
  if (release === undefined) throw unusable(from, "it does not tell its release");
  await writeFile(join(folder, "vmlinux"), vmlinux);
  if (isBzImage(kernel)) await writeFile(join(folder, "bzImage"), kernel);
  throwIfAborted(signal);

  report({ stage: STAGE, message: "modules" });
  const tree = modules?.tree ?? join(folder, "tree");
  const modulesFolder = join(tree, "lib/modules", release);
  if (modules === undefined) {
    const lacking = await lackingOptions(vmlinux);
    if (lacking.length > 0)
      throw unusable(
        from,
        `it needs modules: ${lacking.join(", ")} is not built in`,
        "name its folder of modules: --modules DIR",
      );
    await mkdir(modulesFolder, { recursive: true });
  }
  await runTool({ argv: ["depmod", "-b", tree, release], signal });
  const target = join(folder, "boot-modules");
  const bootModules =
    modules === undefined ? await noBootModules(target) : await copyBootModules(modulesFolder, target);
  await makeModulesDisk(modulesFolder, join(folder, "modules.ext4"), release, signal);
  await rm(tree, { recursive: true });

  const files = await fileRecords(folder);
  const manifest: KernelManifest = {
    version: 1,
    name: about.name,
    description: about.description,
    release,
    package: about.package,
    source: about.source,
    pvh,
    bootModules,
    files,
    digest: kernelDigest(files),
    createdAt: Date.now(),
  };
  await writeFile(join(folder, "manifest.json"), `${JSON.stringify(manifest, undefined, 2)}\n`);
};

/** One half of the initramfs key. */
export const kernelDigest = (files: KernelManifest["files"]): string =>
  createHash("sha256").update(JSON.stringify(files)).digest("hex");

const elfOf = async (kernel: Buffer, from: string): Promise<Buffer> => {
  if (isElf(kernel)) return kernel;
  if (isBzImage(kernel)) return await extractVmlinux(kernel);
  throw unusable(
    from,
    "it is no kernel: neither a bzImage nor an ELF file",
    "name a vmlinuz, bzImage or vmlinux of x86-64",
  );
};

const unusable = (from: string, why: string, hint?: string): BangerError =>
  new BangerError("KERNEL_CORRUPT", `${from} cannot be used: ${why}`, { hint });

/** Copies a folder of modules to where depmod may work on it. */
export const copyModules = async (modules: string, release: string, tree: string): Promise<void> => {
  const target = join(tree, "lib/modules", release);
  await mkdir(target, { recursive: true });
  // Links to the sources of a build are of no use in a guest.
  const filter = (path: string) => !["build", "source"].includes(relative(modules, path));
  await cp(modules, target, { recursive: true, filter });
};

const noBootModules = async (target: string): Promise<string[]> => {
  await mkdir(target);
  await writeFile(join(target, "order"), "");
  return [];
};

/**
 * Puts the boot modules, decompressed, and their `order` into `target`.
 * @returns file names in load order
 */
const copyBootModules = async (modules: string, target: string): Promise<string[]> => {
  const text = (name: string) => readFile(join(modules, name), "utf8");
  const paths = resolveBootModules(await text("modules.dep"), await text("modules.builtin"));
  await mkdir(target);
  const names: string[] = [];
  for (const path of paths) {
    const name = basename(path).replace(/\.(?:xz|zst|gz)$/, "");
    await writeFile(join(target, name), await decompressModule(path, await readFile(join(modules, path))));
    names.push(name);
  }
  await writeFile(join(target, "order"), names.map((name) => `${name}\n`).join(""));
  return names;
};

const decompressModule = async (path: string, data: Buffer): Promise<Buffer> => {
  if (path.endsWith(".xz")) return await decompressXz(data, MAX_MODULE);
  if (path.endsWith(".zst")) return await promisify(zstdDecompress)(data, { maxOutputLength: MAX_MODULE });
  if (path.endsWith(".gz")) return await promisify(gunzip)(data, { maxOutputLength: MAX_MODULE });
  return data;
};

const fileRecords = async (folder: string): Promise<KernelManifest["files"]> => {
  const records: KernelManifest["files"] = [];
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  for (const path of paths.sort()) {
    await chmod(path, 0o444);
    records.push({ path: relative(folder, path), size: (await stat(path)).size, sha256: await sha256OfFile(path) });
  }
  return records;
};
