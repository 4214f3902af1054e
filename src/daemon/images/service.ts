/** Images: front door. What is installed is what `images/` in the state folder holds (artifacts/published.ts). */
import { basename, dirname } from "node:path";
import type { Readable } from "node:stream";
import { BangerError, nearest } from "../../contract/errors.ts";
import {
  type Available,
  type ImageBoot,
  type ImageCatalogEntry,
  type ImageInfo,
  type ImageManifest,
  type ImageSource,
  type ImportImage,
  imageManifestSchema,
  isContainer,
  type PrunedImages,
  type PruneImages,
  type PullImage,
  type RegisterImage,
} from "../../contract/images.ts";
import { isName, quoted } from "../../contract/names.ts";
import type { Progress } from "../../contract/progress.ts";
import { sha256OfFile } from "../../host/digest.ts";
import { exists } from "../../host/files.ts";
import { catalogFile, imageFiles, imageFilesIn, imagesFolder } from "../../host/paths.ts";
import { type BlobCache, blobCache } from "../../oci/blob-cache.ts";
import type { RegistryOptions } from "../../oci/registry/client.ts";
import { entryOf } from "../artifacts/bundle.ts";
import { digestInRegistry, type RegistryAccess } from "../artifacts/registry.ts";
import { fromFirstSource, readCatalogs } from "../artifacts/catalog.ts";
import { installedNames, manifestReader, publish } from "../artifacts/published.ts";
import { singleFlight } from "../artifacts/single-flight.ts";
import { stagingTree } from "../artifacts/staging.ts";
import { buildDebianImage } from "./build.ts";
import { installImageBundle, packImage } from "./bundle.ts";
import { fillFromRegistry, openImport } from "./containers.ts";
import { checkShape, corrupt, infoOf, rootfsOf } from "./describe.ts";
import { checkImageName, keptName } from "./names.ts";
import { inUse, movableReference, tagMoved, takeAway, type UsersOf } from "./removal.ts";
import { fillRegistered, promote } from "./unmanaged.ts";

export type ImageServiceOptions = {
  /** `debian_mirror` of the config. */
  readonly debianMirror?: string | undefined;
  /** How registries are reached; read at each pull. */
  readonly registry?: RegistryOptions | undefined;
  /** Default: the catalog shipped with the program. */
  readonly catalog?: string | undefined;
  /** `catalogs` of the config: files of the user's own. */
  readonly catalogs?: readonly string[] | undefined;
  /** Default: the recipes shipped with the program. */
  readonly recipes?: string | undefined;
};

/** What a VM is booted with. */
export type BootImage = {
  /** As it is kept: `alpine:3.20` for `docker.io/library/alpine:3.20`. */
  name: string;
  /** sha256 of the root file system, in hex. */
  digest: string;
  /** Read-only ext4. */
  rootfs: string;
  /** Path of the image's init, null when it has none, or one that is not meant to be started. */
  init: string | null;
  boot: ImageBoot;
  /** It was made for containers: it is not changed into a system with an init by what is installed in a VM. */
  isContainer: boolean;
};

export type ImageService = {
  list(): Promise<ImageInfo[]>;
  /** What the catalog offers. */
  available(): Promise<Available[]>;
  /** @throws IMAGE_NOT_FOUND */
  show(name: string): Promise<ImageInfo>;
  /**
   * Builds or fetches an image of the catalog, else one of a registry. One that is installed is left as it is, unless it is of a
   * registry's tag that has moved since: then it is fetched anew.
   * @throws IMAGE_IN_USE when the tag has moved and VMs use the image
   */
  pull(request: PullImage, usersOf: UsersOf, progress: Progress): Promise<ImageInfo>;
  /**
   * Packs an image into a bundle in `folder`.
   * @returns where it lies, and the entry for a catalog
   * @throws IMAGE_NOT_FOUND, IMAGE_CORRUPT
   */
  export(name: string, folder: string, progress: Progress): Promise<{ path: string; entry: ImageCatalogEntry }>;
  /**
   * Installs what a file or folder of the user's holds, or what the client sends.
   * @throws IMAGE_EXISTS
   */
  importImage(request: ImportImage, input: Readable, progress: Progress): Promise<ImageInfo>;
  /** Makes a root file system of the user's own known. @throws IMAGE_EXISTS */
  register(request: RegisterImage, progress: Progress): Promise<ImageInfo>;
  /** Copies a registered image in. */
  promote(name: string, progress: Progress): Promise<ImageInfo>;
  /** The image for a boot, pulled first when it has to be. One stat when it is there: no registry is asked. */
  ensure(name: string, progress: Progress, dockerConfig?: string): Promise<BootImage>;
  /** How its commands run; undefined when it is gone or damaged. */
  defaults(name: string): Promise<ImageBoot | undefined>;
  /**
   * Cheap check before a boot: size and magic number.
   * @throws IMAGE_CORRUPT, IMAGE_NOT_FOUND
   */
  verify(name: string): Promise<void>;
  /**
   * Reads all of the root file system and compares its digest.
   * @throws IMAGE_CORRUPT, IMAGE_NOT_FOUND
   */
  verifyDigest(name: string, progress: Progress): Promise<void>;
  /** @throws IMAGE_IN_USE, IMAGE_NOT_FOUND */
  delete(name: string, usersOf: UsersOf): Promise<void>;
  /** Removes downloaded layers that nothing needs, and where asked images that no VM uses. */
  prune(request: PruneImages, usersOf: UsersOf): Promise<PrunedImages>;
};

export const imageService = (options: ImageServiceOptions = {}, cache: BlobCache = blobCache()): ImageService => {
  const flights = singleFlight<ImageManifest>();
  /** Names that are being imported or registered: for these there is no second flight to join. */
  const making = new Set<string>();
  const manifests = manifestReader(
    (data) => imageManifestSchema.parse(data),
    (path, cause) => corrupt(decodeURIComponent(basename(dirname(path))), "its manifest cannot be read", cause),
  );
  const manifestOf = async (text: string) => {
    const name = keptName(text);
    if (name === undefined) return undefined;
    const found = await manifests.read(imageFiles(name).manifest);
    // `alpine` is `alpine:latest`, unless something is called just so.
    return found ?? (isName(name) ? await manifests.read(imageFiles(`${name}:latest`).manifest) : undefined);
  };
  const catalog = async () =>
    (await readCatalogs([options.catalog ?? catalogFile("images"), ...(options.catalogs ?? [])])).images;
  const installed = async () => {
    const folders = await installedNames(imagesFolder());
    // A damaged one must not hide the others; it is named by whatever uses it.
    const found = await Promise.all(folders.map((folder) => manifests.readIfSound(imageFilesIn(folder).manifest)));
    return found.filter((manifest) => manifest !== undefined);
  };

  const nearestName = async (name: string): Promise<string | undefined> =>
    nearest(
      name,
      [...(await installed()), ...(await catalog())].map((one) => one.name),
    );
  const notFound = async (name: string, command: string): Promise<BangerError> => {
    const near = await nearestName(name);
    return new BangerError("IMAGE_NOT_FOUND", `there is no image ${quoted(name)}`, {
      hint: near ? `did you mean ${near}? see \`${command}\`` : `see \`${command}\``,
      details: { name, near },
    });
  };
  const needManifest = async (name: string): Promise<ImageManifest> => {
    const manifest = await manifestOf(name);
    if (!manifest) throw await notFound(name, "banger image list");
    return manifest;
  };
  const needMade = async (name: string): Promise<ImageManifest> => {
    const made = await manifestOf(name);
    if (!made) throw new BangerError("INTERNAL", `the image ${name} vanished while it was installed`);
    return made;
  };

  /** What a name that is not installed stands for. */
  const entryFor = async (name: string): Promise<ImageCatalogEntry> => {
    const known = (await catalog()).find((entry) => entry.name === name);
    if (known) return known;
    // A plain name is more likely a misspelt one of the catalog than one of a registry.
    if (isName(name) && (await nearestName(name)) !== undefined) {
      const error = await notFound(name, "banger image list --available");
      throw new BangerError(error.code, error.message, {
        ...error,
        hint: `${error.hint}; for the registry's write ${name}:latest`,
      });
    }
    const reference = keptName(isName(name) ? `${name}:latest` : name);
    if (reference === undefined) throw await notFound(name, "banger image list --available");
    return { name: reference, description: `${reference} of its registry`, sources: [{ type: "oci", reference }] };
  };

  const accessFor = (dockerConfig: string | undefined): RegistryAccess => ({
    options: options.registry,
    cache,
    dockerConfig,
  });
  const fill = async (
    entry: ImageCatalogEntry,
    source: ImageSource,
    folder: string,
    access: RegistryAccess,
    progress: Progress,
  ) => {
    if (source.type === "debian-recipe") {
      const { debianMirror, recipes } = options;
      return await buildDebianImage({ entry, source, debianMirror, recipes, folder, progress });
    }
    if (source.type === "bundle") return await installImageBundle(entry, source, folder, progress);
    const { name, description } = entry;
    return await fillFromRegistry(source.reference, { name, description, folder, access }, progress);
  };

  const fromSources = (
    entry: ImageCatalogEntry,
    access: RegistryAccess,
    progress: Progress,
    put: (staged: string) => Promise<void> = (staged) => publish(staged, imageFiles(entry.name).folder),
  ): Promise<void> =>
    fromFirstSource(entry.sources, progress, async (source) => {
      await using staging = await stagingTree("image");
      await fill(entry, source, staging.path, access, progress);
      await put(staging.path);
    });

  const ensure = async (name: string, progress: Progress, dockerConfig?: string): Promise<ImageManifest> => {
    const there = await manifestOf(name);
    if (there) return there;
    const entry = await entryFor(name);
    return await flights.run(entry.name, progress, async (shared) => {
      const meanwhile = await manifestOf(entry.name);
      if (meanwhile) return meanwhile;
      await fromSources(entry, accessFor(dockerConfig), shared);
      return await needMade(entry.name);
    });
  };

  /** Fetches an image anew when its tag has moved. */
  const refresh = async (
    { name, description }: ImageManifest,
    reference: string,
    access: RegistryAccess,
    usersOf: UsersOf,
    progress: Progress,
  ): Promise<ImageManifest> =>
    await flights.run(name, progress, async (shared) => {
      const digest = await digestInRegistry(reference, access, shared);
      const there = await manifestOf(name);
      if (there?.source.type === "oci" && there.source.digest === digest) return there;
      const moved = (usedBy: readonly string[]) => tagMoved(reference, digest, usedBy);
      const usedBy = usersOf(name);
      if (usedBy.length > 0) throw moved(usedBy);
      await fromSources(
        { name, description, sources: [{ type: "oci", reference }] },
        access,
        shared,
        async (staged) => {
          await takeAway(name, usersOf, moved);
          await publish(staged, imageFiles(name).folder);
        },
      );
      return await needMade(name);
    });

  /** Makes an image that must not be there yet. */
  const make = async (text: string, work: (name: string, folder: string) => Promise<void>): Promise<ImageInfo> => {
    const name = checkImageName(text);
    const there = async () => making.has(name) || (await exists(imageFiles(name).manifest));
    if (await there()) throw taken(name);
    if (making.has(name)) throw taken(name);
    making.add(name);
    try {
      await using staging = await stagingTree("image");
      await work(name, staging.path);
      // A pull of that name may have been faster.
      if (await exists(imageFiles(name).manifest)) throw taken(name);
      await publish(staging.path, imageFiles(name).folder);
      return await infoOf(await needMade(name));
    } finally {
      making.delete(name);
    }
  };

  const remove = async (name: string, usersOf: UsersOf): Promise<void> => {
    const found = await takeAway(name, usersOf, (usedBy) => inUse(name, usedBy));
    // A peer was faster.
    if (!found) throw await notFound(name, "banger image list");
  };

  return {
    list: async () => await Promise.all((await installed()).map(infoOf)),
    available: async () => {
      const entries = await catalog();
      return await Promise.all(
        entries.map(async ({ name, description }) => ({
          name,
          description,
          installed: await exists(imageFiles(name).manifest),
        })),
      );
    },
    show: async (name) => infoOf(await needManifest(name)),
    pull: async ({ name, dockerConfig }, usersOf, progress) => {
      const there = await manifestOf(name);
      const reference = there && movableReference(there);
      if (there === undefined || reference === undefined)
        return await infoOf(await ensure(name, progress, dockerConfig));
      return await infoOf(await refresh(there, reference, accessFor(dockerConfig), usersOf, progress));
    },
    importImage: async (request, input, progress) => {
      await using scratch = await stagingTree("import");
      if (request.name !== undefined && (await exists(imageFiles(checkImageName(request.name)).manifest)))
        throw taken(checkImageName(request.name));
      const found = await openImport(request, input, scratch.path, progress);
      return await make(found.name, (_name, folder) => found.fill(folder));
    },
    register: (request, progress) =>
      make(request.name, (name, folder) => fillRegistered({ ...request, name }, folder, progress)),
    promote: async (name, progress) => {
      const manifest = await needManifest(name);
      const kept = manifest.name;
      await flights.run(kept, progress, async (shared) => {
        await promote(manifest, shared);
        return await needMade(kept);
      });
      return await infoOf(await needMade(kept));
    },
    export: async (text, folder, progress) => {
      const manifest = await needManifest(text);
      await checkShape(manifest);
      await using staging = await stagingTree("image");
      const bundle = await packImage(manifest, rootfsOf(manifest), folder, staging.path, progress);
      return { path: bundle.path, entry: entryOf(manifest, bundle) };
    },
    ensure: async (text, progress, dockerConfig) => {
      const manifest = await ensure(text, progress, dockerConfig);
      const { name, rootfs, init, boot, source } = manifest;
      return { name, digest: rootfs.sha256, rootfs: rootfsOf(manifest), init, boot, isContainer: isContainer(source) };
    },
    defaults: async (name) => {
      try {
        return (await manifestOf(name))?.boot;
      } catch (error) {
        if (error instanceof BangerError) return undefined;
        throw error;
      }
    },
    verify: async (name) => checkShape(await needManifest(name)),
    verifyDigest: async (name, progress) => {
      const manifest = await needManifest(name);
      await checkShape(manifest);
      progress.report({ stage: "digest" });
      const digest = await sha256OfFile(rootfsOf(manifest), progress.signal);
      if (digest !== manifest.rootfs.sha256)
        throw corrupt(manifest.name, "its content is not what was installed", undefined, manifest);
    },
    delete: async (text, usersOf) => {
      const kept = keptName(text);
      const latest = kept !== undefined && isName(kept) ? [kept, `${kept}:latest`] : [kept];
      for (const name of latest)
        if (name !== undefined && (await exists(imageFiles(name).folder))) return await remove(name, usersOf);
      throw await notFound(text, "banger image list");
    },
    prune: async ({ dryRun, images }, usersOf) => {
      const unusedImages = images ? (await installed()).filter(({ name }) => usersOf(name).length === 0) : [];
      const infos = await Promise.all(unusedImages.map(infoOf));
      if (!dryRun) for (const { name } of infos) await remove(name, usersOf);
      const blobs = dryRun ? await cache.unused() : await cache.prune();
      return {
        blobs: blobs.length,
        blobBytes: blobs.reduce((sum, { size }) => sum + size, 0),
        images: infos.map(({ name, diskUsed }) => ({ name, diskUsed })),
      };
    },
  };
};

const taken = (name: string): BangerError =>
  new BangerError("IMAGE_EXISTS", `there is an image ${name} already, or one is being made`, {
    hint: `choose another name with --name, or remove it first: banger image delete ${name}`,
    details: { name },
  });
