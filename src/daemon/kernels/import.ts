/** Kernels of the user's own: a file, a folder or a bundle. */
import { open, readdir, readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { BundleSource } from "../../contract/bundles.ts";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import type { ImportKernel } from "../../contract/kernels.ts";
import type { Progress } from "../../contract/progress.ts";
import { exists } from "../../host/files.ts";
import { unpackBundle } from "../artifacts/bundle.ts";
import { assembleKernel, copyModules } from "./assemble.ts";
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
  if (!found.isDirectory() && path.endsWith(".tar.zst")) return await importBundle(path, folder, about, progress);
  const image = found.isDirectory() ? await kernelIn(path) : path;
  if ((await stat(image)).size > MOST_KERNEL) throw notKernel(image, "it is larger than any kernel");
  const kernel = await readFile(image);
  const modules = await modulesOf(request, found.isDirectory(), kernel);
  const tree = join(folder, "tree");
  if (modules !== undefined) await copyModules(modules.path, modules.release, tree);
  await assembleKernel({
    kernel,
    from: image,
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

const kernelIn = async (folder: string): Promise<string> => {
  const names = await readdir(folder);
  for (const pattern of KERNEL_NAMES) {
    const [found, another] = names.filter((name) => pattern.test(name)).sort();
    if (found === undefined) continue;
    if (another !== undefined)
      throw notKernel(folder, `it holds several kernels, ${found} and ${another}`, "name the one that you mean");
    return join(folder, found);
  }
  throw notKernel(folder, "it holds no file vmlinux, bzImage or vmlinuz");
};

/** Folder of the kernel's modules: the one that was named, else one beside the kernel. */
const modulesOf = async (
  { path, modules }: ImportKernel,
  isFolder: boolean,
  kernel: Buffer,
): Promise<{ path: string; release: string } | undefined> => {
  if (modules === undefined && !isFolder) return undefined;
  const vmlinux = isElf(kernel) ? kernel : isBzImage(kernel) ? await extractVmlinux(kernel) : undefined;
  const release = vmlinux === undefined ? undefined : releaseOf(vmlinux);
  // Said better by whoever looks at the kernel next.
  if (release === undefined) return undefined;
  if (modules === undefined) {
    for (const below of [`lib/modules/${release}`, `modules/${release}`, "modules"])
      if (await exists(join(path, below, "modules.builtin"))) return { path: join(path, below), release };
    return undefined;
  }
  for (const candidate of [modules, join(modules, release), join(modules, "lib/modules", release)])
    if (await exists(join(candidate, "modules.builtin"))) return { path: candidate, release };
  throw new BangerError("KERNEL_CORRUPT", `${modules} holds no modules of the kernel ${release}`, {
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
