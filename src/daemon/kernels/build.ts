/** Makes an installed kernel out of a Debian kernel package. */
import { createHash } from "node:crypto";
import { chmod, mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, join, relative } from "node:path";
import { promisify } from "node:util";
import { gunzip, zstdDecompress } from "node:zlib";
import { BangerError } from "../../contract/errors.ts";
import type { KernelCatalogEntry, KernelManifest, KernelSource } from "../../contract/kernels.ts";
import { type Progress, throwIfAborted } from "../../contract/progress.ts";
import { openArchive } from "../../debian/archive.ts";
import { sha256OfFile } from "../../host/digest.ts";
import { exists } from "../../host/files.ts";
import { runTool } from "../../host/process.ts";
import { resolveBootModules } from "./boot-modules.ts";
import { decompressXz, extractVmlinux } from "./bzimage.ts";
import { inspectElf } from "./elf.ts";
import { makeModulesDisk } from "./modules-disk.ts";

/** A module is small; a damaged one must not fill the memory. */
const MAX_MODULE = 64 * 1024 * 1024;

export type KernelBuild = {
  entry: KernelCatalogEntry;
  source: KernelSource;
  /** `debian_mirror` of the config. */
  debianMirror: string | undefined;
  /** Staging folder that becomes the kernel's. */
  folder: string;
  progress: Progress;
};

/**
 * Fills `folder` with a kernel.
 * @throws MIRROR_UNREACHABLE, MIRROR_UNTRUSTED, DISK_FULL, KERNEL_CORRUPT, TOOL_MISSING, TOOL_FAILED
 */
export const buildDebianKernel = async ({
  entry,
  source,
  debianMirror,
  folder,
  progress,
}: KernelBuild): Promise<void> => {
  const { signal, report } = progress;
  const archive = await openArchive({ mirror: debianMirror, suite: source.suite }, signal);
  await archive.update(progress);
  const real = (await archive.dependsOn(source.package, progress)).find((name) => /^linux-image-\d/.test(name));
  const [planned] = await archive.plan([real ?? source.package], false, progress);
  if (!planned) throw new BangerError("KERNEL_BUILD_FAILED", `${archive.mirror} has no package ${source.package}`);
  const [deb = ""] = await archive.download([planned], progress);

  const stage = "kernel";
  report({ stage, message: "unpack" });
  const tree = join(folder, "tree");
  await mkdir(tree);
  await runTool({ argv: ["dpkg-deb", "-x", deb, tree], signal });
  const boot = (await readdir(join(tree, "boot"))).find((name) => name.startsWith("vmlinuz-"));
  if (!boot) throw new BangerError("KERNEL_CORRUPT", `${planned.file} has no kernel in /boot`);
  const release = boot.slice("vmlinuz-".length);
  const vmlinux = await extractVmlinux(await readFile(join(tree, "boot", boot)));
  const { pvh } = inspectElf(vmlinux);
  await writeFile(join(folder, "vmlinux"), vmlinux);
  await rename(join(tree, "boot", boot), join(folder, "bzImage"));
  throwIfAborted(signal);

  report({ stage, message: "modules" });
  const modules = await modulesFolder(tree, release);
  await runTool({ argv: ["depmod", "-b", tree, release], signal });
  const bootModules = await copyBootModules(modules, join(folder, "boot-modules"));
  await makeModulesDisk(modules, join(folder, "modules.ext4"), signal);
  await rm(tree, { recursive: true });

  const files = await fileRecords(folder);
  const manifest: KernelManifest = {
    version: 1,
    name: entry.name,
    description: entry.description,
    release,
    package: { name: planned.name, version: planned.version, sha256: planned.sha256 },
    source,
    pvh,
    bootModules,
    files,
    digest: createHash("sha256").update(JSON.stringify(files)).digest("hex"),
    createdAt: Date.now(),
  };
  await writeFile(join(folder, "manifest.json"), `${JSON.stringify(manifest, undefined, 2)}\n`);
};

/** Debian moved modules from /lib to /usr/lib after bookworm; depmod wants them below lib. */
const modulesFolder = async (tree: string, release: string): Promise<string> => {
  const merged = join(tree, "usr/lib/modules", release);
  const folder = join(tree, "lib/modules", release);
  if (await exists(merged)) {
    await mkdir(join(tree, "lib/modules"), { recursive: true });
    await rename(merged, folder);
  }
  return folder;
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
