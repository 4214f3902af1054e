/** Kernels of the user's own: a file, a folder or a bundle. */
import { open, readdir, readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { BundleSource } from "../../contract/bundles.ts";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import type { ImportKernel } from "../../contract/kernels.ts";
import type { Progress } from "../../contract/progress.ts";
import { exists } from "../../host/files.ts";
import { unpackBundle } from "../artifacts/bundle.ts";
import { type Assembly, assembleKernel, copyModules } from "./assemble.ts";
import { finishBundle, isKernelFile, MOST_UNPACKED } from "./bundle.ts";
import { extractVmlinux, isBzImage } from "./bzimage.ts";
import { isElf } from "./elf.ts";
import { releaseOf } from "./kernel-facts.ts";

/** No kernel file is near this. */
const MOST_KERNEL = 1024 * 1024 * 1024;

/**
 * Fills `folder` with a kernel of the user's.
 * @throws FILE_NOT_FOUND, KERNEL_CORRUPT, BUNDLE_INVALID, DISK_FULL, TOOL_MISSING
 */
export const importKernel = async (request: ImportKernel, folder: string, progress: Progress): Promise<void> => {
  const { name, path } = request;
  const found = await statOf(path);
  const about = {
    name,
    description: request.description ?? `imported from ${basename(path)}`,
    source: { type: "import", from: path } as const,
  };
  if (found.isDirectory())
    return await kernelOfFolder({ path, called: path, modules: request.modules, about }, folder, progress);
  if (path.endsWith(".tar.zst")) return await importBundle(path, folder, about, progress);
  await kernelOfFile({ path, called: path, modules: request.modules, about }, folder, progress);
};

type Found = {
  path: string;
  /** In messages. */
  called: string;
  /** Folder of modules that was named. */
  modules?: string | undefined;
  about: Assembly["about"];
};

/** Fills `folder` with the one kernel that a folder holds, and the modules beside it. */
export const kernelOfFolder = async (found: Found, folder: string, progress: Progress): Promise<void> => {
  const name = await kernelIn(found.path, found.called);
  const file = { ...found, path: join(found.path, name), called: join(found.called, name) };
  await kernelOfFile(file, folder, progress, found.path);
};

/** @param beside a folder in which modules may lie that were not named */
const kernelOfFile = async (
  { path, called, modules: named, about }: Found,
  folder: string,
  progress: Progress,
  beside?: string,
): Promise<void> => {
  if ((await stat(path)).size > MOST_KERNEL) throw notKernel(called, "it is larger than any kernel");
  const kernel = await readFile(path);
  const modules = await modulesOf(named, beside, kernel);
  const tree = join(folder, "tree");
  if (modules !== undefined) await copyModules(modules.path, modules.release, tree);
  await assembleKernel({
    kernel,
    from: called,
    modules: modules === undefined ? undefined : { tree },
    about,
    folder,
    progress,
  });
};

const statOf = async (path: string) => {
  try {
    return await stat(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT" && errnoOf(error) !== "ENOTDIR") throw error;
    throw new BangerError("FILE_NOT_FOUND", `there is no file ${path}`, {
      hint: "name a kernel (vmlinuz, bzImage or vmlinux), a folder that holds one, or a bundle",
      cause: error,
    });
  }
};

/** What kernels are called, the better ones first: an ELF kernel needs no unpacking. */
const KERNEL_NAMES = [/^vmlinux$/, /^vmlinux-/, /^bzImage$/, /^vmlinuz$/, /^vmlinuz-/];

/** Whether a file is called as a kernel is. */
export const isKernelName = (name: string): boolean => KERNEL_NAMES.some((pattern) => pattern.test(name));

/** The kernel in a folder, or in the `boot` of a root file system, as a path below it. */
const kernelIn = async (folder: string, called: string): Promise<string> => {
  for (const below of ["", "boot"]) {
    const names = await filesIn(join(folder, below));
    for (const pattern of KERNEL_NAMES) {
      const [found, another] = names.filter((name) => pattern.test(name)).sort();
      if (found === undefined) continue;
      if (another !== undefined)
        throw notKernel(called, `it holds several kernels, ${found} and ${another}`, "name the one that you mean");
      return join(below, found);
    }
  }
  throw notKernel(called, "it holds no file vmlinux, bzImage or vmlinuz, nor does a folder boot in it");
};

/** Names of what is no folder; none where there is no such folder. */
const filesIn = async (folder: string): Promise<string[]> => {
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    return entries.filter((entry) => !entry.isDirectory()).map((entry) => entry.name);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return [];
    throw error;
  }
};

/** Folder of the kernel's modules: the one that was named, else one in `beside`. */
const modulesOf = async (
  named: string | undefined,
  beside: string | undefined,
  kernel: Buffer,
): Promise<{ path: string; release: string } | undefined> => {
  if (named === undefined && beside === undefined) return undefined;
  const vmlinux = isElf(kernel) ? kernel : isBzImage(kernel) ? await extractVmlinux(kernel) : undefined;
  const release = vmlinux === undefined ? undefined : releaseOf(vmlinux);
  // Said better by whoever looks at the kernel next.
  if (release === undefined) return undefined;
  const below = [`lib/modules/${release}`, `usr/lib/modules/${release}`, `modules/${release}`, "modules"];
  const candidates =
    named === undefined
      ? below.map((path) => join(beside ?? "", path))
      : [named, join(named, release), join(named, "lib/modules", release)];
  for (const path of candidates) if (await exists(join(path, "modules.builtin"))) return { path, release };
  if (named === undefined) return undefined;
  throw new BangerError("KERNEL_CORRUPT", `${named} holds no modules of the kernel ${release}`, {
    hint: `name the folder .../lib/modules/${release}, the one with modules.builtin in it`,
  });
};

const importBundle = async (
  path: string,
  folder: string,
  about: { name: string; description: string; source: { type: "import"; from: string } },
  progress: Progress,
): Promise<void> => {
  const file = await open(path, "r");
  try {
    // The user's own file: there is nothing to compare its digest with, and its name may be any.
    const source: Pick<BundleSource, "unpacked" | "url"> = { url: path, unpacked: MOST_UNPACKED };
    const files = await unpackBundle(file, source, { folder, isExpected: isKernelFile }, progress);
    await finishBundle(folder, path, files, about);
  } finally {
    await file.close();
  }
};

const notKernel = (path: string, why: string, hint?: string): BangerError =>
  new BangerError("KERNEL_CORRUPT", `${path} cannot be used: ${why}`, { hint });
