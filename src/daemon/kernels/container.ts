/** A kernel out of a container image: its kernel file and its modules, picked out of the merged layers; the rest is read past. */
import { type FileHandle, link, mkdir, open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { BangerError } from "../../contract/errors.ts";
import type { Progress } from "../../contract/progress.ts";
import { writeWhole } from "../../host/whole.ts";
import { type Layer, mergeLayers } from "../../oci/layers/merge.ts";
import type { RootfsSink } from "../../oci/layers/sink.ts";
import { openFromRegistry, type RegistryAccess } from "../artifacts/registry.ts";
import { stagingTree } from "../artifacts/staging.ts";
import { MOST_UNPACKED } from "./bundle.ts";
import { isKernelName, kernelOfFolder } from "./import.ts";

/** Where kernels and their modules lie in root file systems; the modules' own place is `lib/modules/RELEASE`. */
const MODULES = /^(?:usr\/)?(lib\/modules\/.+)$/;
const KERNEL = /^(?:boot\/)?([^/]+)$/;
/** Of a part of a path: nothing that could be taken for another place. */
const PART = /^(?!\.{1,2}$)[\w.+~,@=-]{1,255}$/;

/** Where a file of an image belongs below the folder of files that are kept; undefined for what is no part of a kernel. */
const placeOf = (path: string): string | undefined => {
  const modules = MODULES.exec(path)?.[1];
  if (modules !== undefined) return modules.split("/").every((part) => PART.test(part)) ? modules : undefined;
  const name = KERNEL.exec(path)?.[1];
  return name !== undefined && PART.test(name) && isKernelName(name) ? path : undefined;
};

/**
 * Fills `folder` with the kernel that an image of a registry holds.
 * @throws KERNEL_CORRUPT when it holds none that banger can boot; IMAGE_…, REGISTRY_…, DISK_FULL
 */
export const installKernelImage = async (
  { name, description }: { name: string; description: string },
  from: string,
  folder: string,
  access: RegistryAccess,
  progress: Progress,
): Promise<void> => {
  const { reference, image: found } = await openFromRegistry(from, access, progress);
  await using image = found;
  await using scratch = await stagingTree("kernel-files");
  const path = await pickKernelFiles(image.layers, scratch.path, progress);
  const source = { type: "oci", reference: reference.name, digest: image.digest ?? "" } as const;
  await kernelOfFolder({ path, called: reference.name, about: { name, description, source } }, folder, progress);
};

/**
 * Writes the kernel's files, and nothing else of the image.
 * @param layers the lowest first
 * @param scratch an empty folder
 * @returns the folder below `scratch` in which they lie as in a root file system
 * @throws KERNEL_CORRUPT when they are larger than any kernel's; as `mergeLayers`
 */
const pickKernelFiles = async (layers: readonly Layer[], scratch: string, progress: Progress): Promise<string> => {
  let attempts = 0;
  let picking: Picking | undefined;
  try {
    const openSink = async () => {
      // Asked for once more when the merge starts anew.
      await picking?.close();
      const folder = join(scratch, String(attempts++));
      await mkdir(folder);
      picking = pickInto(folder);
      return picking.sink;
    };
    await mergeLayers({ layers, openSink, progress });
    return (await picking?.finish()) ?? scratch;
  } finally {
    await picking?.close();
  }
};

type Picking = { sink: RootfsSink; finish(): Promise<string>; close(): Promise<void> };

const pickInto = (folder: string): Picking => {
  const links: { place: string; target: string }[] = [];
  let total = 0;
  let current: FileHandle | undefined;
  const close = async () => {
    await current?.close();
    current = undefined;
  };
  const create = async (place: string): Promise<FileHandle> => {
    const path = join(folder, place);
    await mkdir(dirname(path), { recursive: true });
    current = await open(path, "wx", 0o600);
    return current;
  };
  return {
    sink: {
      directory: () => undefined,
      symlink: () => undefined,
      special: () => undefined,
      link: (path, to) => {
        const [place, target] = [placeOf(path), placeOf(to)];
        if (place !== undefined && target !== undefined) links.push({ place, target });
      },
      file: async (path, _attributes, size) => {
        const place = placeOf(path);
        if (place === undefined) return { write: () => undefined, hole: () => undefined, end: async () => undefined };
        total += size;
        if (total > MOST_UNPACKED)
          throw new BangerError("KERNEL_CORRUPT", `its kernel and modules have over ${MOST_UNPACKED} bytes`);
        const file = await create(place);
        let at = 0;
        return {
          write: async (chunk) => {
            await writeWhole(file, chunk, at);
            at += chunk.length;
          },
          hole: (bytes) => {
            at += bytes;
            return undefined;
          },
          end: async () => {
            await file.truncate(at);
            await close();
          },
        };
      },
    },
    finish: async () => {
      for (const { place, target } of links) {
        await mkdir(dirname(join(folder, place)), { recursive: true });
        await link(join(folder, target), join(folder, place));
      }
      return folder;
    },
    close,
  };
};
