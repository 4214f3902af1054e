/** Makes an installed kernel out of a Debian kernel package. */
import { mkdir, readdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { BangerError } from "../../contract/errors.ts";
import type { KernelCatalogEntry, KernelSource } from "../../contract/kernels.ts";
import type { Progress } from "../../contract/progress.ts";
import { openArchive } from "../../debian/archive.ts";
import { exists } from "../../host/files.ts";
import { runTool } from "../../host/process.ts";
import { assembleKernel } from "./assemble.ts";

export type KernelBuild = {
  entry: KernelCatalogEntry;
  source: Extract<KernelSource, { type: "debian-package" }>;
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

  report({ stage: "kernel", message: "unpack" });
  const tree = join(folder, "tree");
  await mkdir(tree);
  await runTool({ argv: ["dpkg-deb", "-x", deb, tree], signal });
  const boot = (await readdir(join(tree, "boot"))).find((name) => name.startsWith("vmlinuz-"));
  if (!boot) throw new BangerError("KERNEL_CORRUPT", `${planned.file} has no kernel in /boot`);
  // Debian moved modules from /lib to /usr/lib after bookworm; depmod wants them below lib.
  if (await exists(join(tree, "usr/lib/modules"))) {
    await mkdir(join(tree, "lib"), { recursive: true });
    await rename(join(tree, "usr/lib/modules"), join(tree, "lib/modules"));
  }
  const { name, version, sha256 } = planned;
  await assembleKernel({
    kernel: await readFile(join(tree, "boot", boot)),
    from: planned.file,
    modules: { tree },
    about: { name: entry.name, description: entry.description, source, package: { name, version, sha256 } },
    folder,
    progress,
  });
};
