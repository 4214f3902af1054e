/** Kernels: front door. What is installed is what `kernels/` in the state folder holds (artifacts/published.ts). */
import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Available } from "../../contract/images.ts";
import { BangerError, errnoOf, nearest } from "../../contract/errors.ts";
import {
  type ImportKernel,
  type KernelCatalogEntry,
  type KernelInfo,
  type KernelManifest,
  kernelManifestSchema,
  type KernelSource,
  type PullKernel,
} from "../../contract/kernels.ts";
import { checkName, isName, quoted } from "../../contract/names.ts";
import type { Progress } from "../../contract/progress.ts";
import { bytesOnDisk, exists } from "../../host/files.ts";
import { catalogFile, kernelFiles, kernelsFolder } from "../../host/paths.ts";
import { type BlobCache, blobCache } from "../../oci/blob-cache.ts";
import { checkReference, type Reference } from "../../oci/reference.ts";
import type { RegistryOptions } from "../../oci/registry/client.ts";
import { fromFirstSource, readCatalogs } from "../artifacts/catalog.ts";
import { installedNames, manifestReader, publish, unpublish } from "../artifacts/published.ts";
import { digestInRegistry, type RegistryAccess } from "../artifacts/registry.ts";
import { singleFlight } from "../artifacts/single-flight.ts";
import { stagingTree } from "../artifacts/staging.ts";
import { entryOf, type PackedBundle } from "../artifacts/bundle.ts";
import { buildDebianKernel } from "./build.ts";
import { installKernelBundle, packKernel } from "./bundle.ts";
import { installKernelImage } from "./container.ts";
import { importKernel } from "./import.ts";
import { ensureInitramfs } from "./initramfs.ts";

export type KernelServiceOptions = {
  /** `debian_mirror` of the config. */
  debianMirror?: string | undefined;
  /** Default: the catalog shipped with the program. */
  catalog?: string | undefined;
  /** `catalogs` of the config: files of the user's own. */
  catalogs?: readonly string[] | undefined;
  /** How registries are reached; read at each pull. */
  registry?: RegistryOptions | undefined;
};

/** What a VM is booted with. */
export type BootKernel = {
  name: string;
  digest: string;
  release: string;
  /** ELF kernel. */
  vmlinux: string;
  bzImage: string;
  /** Disk of modules, read-only. */
  modules: string;
};

export type KernelService = {
  list(): Promise<KernelInfo[]>;
  /** What the catalog offers. */
  available(): Promise<Available[]>;
  /** @throws KERNEL_NOT_FOUND */
  show(name: string): Promise<KernelInfo>;
  /**
   * Fetches and installs a kernel of the catalog, or of an image; one that is installed is left as it is.
   * @throws KERNEL_EXISTS when the name is another kernel's
   */
  pull(request: PullKernel, progress: Progress): Promise<KernelInfo>;
  /**
   * Installs a kernel of the user's own.
   * @throws KERNEL_EXISTS, KERNEL_CORRUPT, BUNDLE_INVALID, FILE_NOT_FOUND
   */
  import(request: ImportKernel, progress: Progress): Promise<KernelInfo>;
  /**
   * Packs an installed kernel into a bundle.
   * @param folder where the bundle goes
   * @throws KERNEL_NOT_FOUND, KERNEL_CORRUPT
   */
  export(name: string, folder: string, progress: Progress): Promise<PackedBundle & { entry: KernelCatalogEntry }>;
  /** The kernel for a boot, pulled first when it has to be. One stat when it is there. */
  ensure(name: string, progress: Progress, dockerConfig?: string): Promise<BootKernel>;
  /**
   * Cheap check before a boot: all files have their sizes.
   * @throws KERNEL_CORRUPT, KERNEL_NOT_FOUND
   */
  verify(name: string): Promise<void>;
  /** The initramfs for a kernel and an agent: see initramfs.ts. */
  initramfs(kernel: { name: string; digest: string }, agent: string): Promise<{ path: string; key: string }>;
  /**
   * @param usedBy names of VMs that use it
   * @throws KERNEL_IN_USE, KERNEL_NOT_FOUND
   */
  delete(name: string, usedBy: readonly string[]): Promise<void>;
};

export const kernelService = (options: KernelServiceOptions = {}, cache: BlobCache = blobCache()): KernelService => {
  const flights = singleFlight<KernelManifest>();
  const manifests = manifestReader(
    (data) => kernelManifestSchema.parse(data),
    (path, cause) => corrupt(basename(dirname(path)), "its manifest cannot be read", cause),
  );
  // What is no name is no kernel: as a path it could lead anywhere.
  const manifestOf = async (name: string) =>
    isName(name) ? await manifests.read(kernelFiles(name).manifest) : undefined;
  const catalog = async () =>
    (await readCatalogs([options.catalog ?? catalogFile("kernels"), ...(options.catalogs ?? [])])).kernels;

  const notFound = async (name: string, command: string): Promise<BangerError> => {
    const offered = (await catalog()).map((entry) => entry.name);
    const near = nearest(name, [...(await installedNames(kernelsFolder())), ...offered]);
    return new BangerError("KERNEL_NOT_FOUND", `there is no kernel ${quoted(name)}`, {
      hint: near ? `did you mean ${near}? see \`${command}\`` : `see \`${command}\``,
      details: { name, near },
    });
  };

  const needManifest = async (name: string): Promise<KernelManifest> => {
    const manifest = await manifestOf(name);
    if (!manifest) throw await notFound(name, "banger kernel list");
    return manifest;
  };

  const accessFor = (dockerConfig: string | undefined): RegistryAccess => ({
    options: options.registry,
    cache,
    dockerConfig,
  });
  const fill = async (
    entry: KernelCatalogEntry,
    source: KernelSource,
    folder: string,
    access: RegistryAccess,
    progress: Progress,
  ): Promise<void> => {
    if (source.type === "bundle") return await installKernelBundle(entry, source, folder, progress);
    if (source.type === "oci") return await installKernelImage(entry, source.reference, folder, access, progress);
    await buildDebianKernel({ entry, source, debianMirror: options.debianMirror, folder, progress });
  };

  /** Installs a kernel that is not there yet from the first of its sources that will do. */
  const install = (
    name: string,
    progress: Progress,
    access: RegistryAccess,
    entryFor: () => Promise<KernelCatalogEntry>,
  ): Promise<KernelManifest> =>
    flights.run(name, progress, async (shared) => {
      const there = await manifestOf(name);
      if (there) return there;
      const entry = await entryFor();
      await fromFirstSource(entry.sources, shared, async (source) => {
        await using staging = await stagingTree("kernel");
        await fill(entry, source, staging.path, access, shared);
        await publish(staging.path, kernelFiles(name).folder);
      });
      const made = await manifestOf(name);
      if (!made) throw new BangerError("INTERNAL", `the kernel ${name} vanished while it was installed`);
      return made;
    });

  const entryOfCatalog = async (name: string): Promise<KernelCatalogEntry> => {
    const entry = (await catalog()).find((candidate) => candidate.name === name);
    if (!entry) throw await notFound(name, "banger kernel list --available");
    return entry;
  };

  const pullFromRegistry = async (
    name: string,
    { name: reference }: Reference,
    access: RegistryAccess,
    progress: Progress,
  ): Promise<KernelManifest> => {
    const there = await manifestOf(name);
    if (there) await checkSameImage(there, reference, access, progress);
    const description = `${reference} of its registry`;
    const made = await install(name, progress, access, async () => ({
      name,
      description,
      sources: [{ type: "oci", reference }],
    }));
    if (made.source.type !== "oci" || made.source.reference !== reference) throw taken(name);
    return made;
  };

  const importOne = (request: ImportKernel, progress: Progress): Promise<KernelManifest> =>
    flights.run(request.name, progress, async (shared) => {
      const { name } = request;
      if (await exists(kernelFiles(name).manifest)) throw taken(name);
      await using staging = await stagingTree("kernel");
      await importKernel(request, staging.path, shared);
      await publish(staging.path, kernelFiles(name).folder);
      return await needManifest(name);
    });

  const ensure = async (name: string, progress: Progress, dockerConfig?: string): Promise<KernelManifest> =>
    (await manifestOf(name)) ?? (await install(name, progress, accessFor(dockerConfig), () => entryOfCatalog(name)));

  return {
    list: async () => {
      const names = await installedNames(kernelsFolder());
      // A damaged one must not hide the others; it is named by whatever uses it.
      const found = await Promise.all(names.map((name) => manifests.readIfSound(kernelFiles(name).manifest)));
      return await Promise.all(found.filter((manifest) => manifest !== undefined).map(infoOf));
    },
    available: async () => {
      const entries = await catalog();
      return await Promise.all(
        entries.map(async ({ name, description }) => ({
          name,
          description,
          installed: await exists(kernelFiles(name).manifest),
        })),
      );
    },
    show: async (name) => infoOf(await needManifest(name)),
    pull: async ({ name, reference, dockerConfig }, progress) => {
      if (reference === undefined) return await infoOf(await ensure(name, progress, dockerConfig));
      checkName(name, "kernel name");
      return await infoOf(await pullFromRegistry(name, checkReference(reference), accessFor(dockerConfig), progress));
    },
    import: async (request, progress) => infoOf(await importOne(request, progress)),
    export: async (name, folder, progress) => {
      const manifest = await needManifest(name);
      await checkSizes(manifest);
      const packed = await packKernel(kernelFiles(name).folder, manifest, folder, progress);
      return { ...packed, entry: entryOf(manifest, packed) };
    },
    ensure: async (name, progress, dockerConfig) => {
      const { digest, release } = await ensure(name, progress, dockerConfig);
      const { vmlinux, bzImage, modules } = kernelFiles(name);
      return { name, digest, release, vmlinux, bzImage, modules };
    },
    verify: async (name) => checkSizes(await needManifest(name)),
    initramfs: ensureInitramfs,
    delete: async (name, usedBy) => {
      if (!isName(name) || !(await exists(kernelFiles(name).folder))) throw await notFound(name, "banger kernel list");
      if (usedBy.length > 0) {
        throw new BangerError("KERNEL_IN_USE", `the kernel ${name} is used by ${usedBy.join(", ")}`, {
          hint: `delete them first: banger vm delete ${usedBy.join(" ")}`,
          details: { name, usedBy },
        });
      }
      await unpublish(kernelFiles(name).folder);
    },
  };
};

const taken = (name: string): BangerError =>
  new BangerError("KERNEL_EXISTS", `there is a kernel ${name} already`, {
    hint: `choose another name, or delete it first: banger kernel delete ${name}`,
    details: { name },
  });

/**
 * For an installed kernel that is to be pulled again.
 * @throws KERNEL_EXISTS when it is not of that image, or the image's tag has moved since
 */
const checkSameImage = async (
  { name, source }: KernelManifest,
  reference: string,
  access: RegistryAccess,
  progress: Progress,
): Promise<void> => {
  if (source.type !== "oci" || source.reference !== reference) throw taken(name);
  if ((await digestInRegistry(reference, access, progress)) === source.digest) return;
  throw new BangerError("KERNEL_EXISTS", `the kernel ${name} is of an earlier ${reference}`, {
    hint: `get the new one: banger kernel delete ${name} && banger kernel pull ${reference} --name ${name}`,
    details: { name, digest: source.digest },
  });
};

const checkSizes = async ({ name, files }: KernelManifest): Promise<void> => {
  for (const { path, size } of files) {
    const found = await sizeOf(join(kernelFiles(name).folder, path));
    if (found !== size)
      throw corrupt(
        name,
        found === undefined ? `${path} is missing` : `${path} has ${found} bytes in place of ${size}`,
      );
  }
};

const sizeOf = async (path: string): Promise<number | undefined> => {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
};

const corrupt = (name: string, why: string, cause?: unknown): BangerError =>
  new BangerError("KERNEL_CORRUPT", `the kernel ${name} is damaged: ${why}`, {
    hint: `get it anew: banger kernel delete ${name} && banger kernel pull ${name}`,
    details: { name },
    cause,
  });

const infoOf = async (manifest: KernelManifest): Promise<KernelInfo> => {
  const { folder } = kernelFiles(manifest.name);
  // A damaged kernel is listed too, so that it can be deleted.
  const used = await Promise.all(
    manifest.files.map(async ({ path }) => ((await exists(join(folder, path))) ? bytesOnDisk(join(folder, path)) : 0)),
  );
  return {
    name: manifest.name,
    description: manifest.description,
    release: manifest.release,
    packageVersion: manifest.package?.version,
    source: manifest.source,
    digest: manifest.digest,
    pvh: manifest.pvh,
    size: manifest.files.reduce((sum, file) => sum + file.size, 0),
    diskUsed: used.reduce((sum, bytes) => sum + bytes, 0),
    createdAt: manifest.createdAt,
  };
};
