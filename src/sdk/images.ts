/** Images of the public TypeScript API. */
import { resolve } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Available, ImageInfo, PrunedImages } from "../contract/images.ts";
import type { TemplateInfo, Warm } from "../contract/templates.ts";
import { dockerConfigFile } from "../host/paths.ts";
import { given, progressOf, withClient } from "./client.ts";
import type { WorkOptions } from "./types.ts";

export const images = {
  /** Those that are installed. */
  list: (): Promise<ImageInfo[]> => withClient((client) => client.call("imageList", {}, {})),
  /** Those of the catalogs. */
  available: (): Promise<Available[]> => withClient((client) => client.call("imageAvailable", {}, {})),
  /** With the names of the VMs that use it. @throws IMAGE_NOT_FOUND */
  show: (name: string): Promise<ImageInfo> => withClient((client) => client.call("imageShow", { name }, {})),
  /**
   * A tag that has moved in its registry is fetched anew, where no VM uses the image. Credentials are those of `docker login`.
   * @param name of a catalog, or a reference to a registry
   * @throws IMAGE_NOT_FOUND, and what its source says
   */
  pull: (name: string, options: WorkOptions = {}): Promise<ImageInfo> =>
    withClient((client) =>
      client.operation("imagePull", {}, { name, dockerConfig: dockerConfigFile() }, progressOf(options)),
    ),
  /**
   * An image from a file, a folder or a stream: an OCI layout, `docker save`, a bundle, a tar archive of a root file system.
   * @param options name: default: as it is called where it comes from; ref: which of several images
   */
  import: (
    source: string | Readable,
    { name, ref, signal, onProgress }: WorkOptions & { name?: string; ref?: string } = {},
  ): Promise<ImageInfo> =>
    withClient(async (client) => {
      const path = typeof source === "string" ? resolve(source) : undefined;
      const request = given({ path, name, ref });
      const stream = await client.stream("imageImport", {}, request, {
        signal,
        onEvent: ({ progress }) => progress && onProgress?.(progress),
      });
      stream.stdout.resume();
      stream.stderr.resume();
      if (typeof source === "string") stream.stdin.end();
      // Where the daemon refuses it, `closed` says why.
      else await pipeline(source, stream.stdin).catch(() => undefined);
      return (await stream.closed).ok;
    }),
  /**
   * An ext4 file system that stays where it is.
   * @param rootfs its path
   */
  register: (name: string, rootfs: string, options: { description?: string } = {}): Promise<ImageInfo> =>
    withClient((client) => client.operation("imageRegister", {}, { name, rootfs: resolve(rootfs), ...options })),
  /** Copies a registered image's file in. */
  promote: (name: string, options: WorkOptions = {}): Promise<ImageInfo> =>
    withClient((client) => client.operation("imagePromote", { name }, {}, progressOf(options))),
  /** Removes downloads; with `images` also images that no VM uses. @param options dryRun: only tells what would go */
  prune: ({ dryRun = false, images: all = false } = {}): Promise<PrunedImages> =>
    withClient((client) => client.operation("imagePrune", {}, { dryRun, images: all })),
  /**
   * Writes a bundle.
   * @param folder where it goes
   * @returns its path, and its entry for a catalog
   */
  export: (name: string, folder: string, options: WorkOptions = {}) =>
    withClient((client) => client.operation("imageExport", { name }, { folder: resolve(folder) }, progressOf(options))),
  /** Makes the template that VMs of this shape start from, or finds it. @param shape absent fields as of a new VM */
  warm: (shape: Warm = {}, options: WorkOptions = {}): Promise<TemplateInfo> =>
    withClient((client) => client.operation("imageWarm", {}, shape, progressOf(options))),
  /** @throws IMAGE_NOT_FOUND, IMAGE_IN_USE */
  delete: async (name: string): Promise<void> =>
    void (await withClient((client) => client.operation("imageDelete", { name }, {}))),
} as const;

export const templates = {
  list: (): Promise<TemplateInfo[]> => withClient((client) => client.call("templateList", {}, {})),
  /** Removes all, or those of one image. @returns how many */
  clear: async (image?: string): Promise<number> =>
    (await withClient((client) => client.operation("templateClear", {}, given({ image })))).removed,
} as const;
