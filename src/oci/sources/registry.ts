/** An image in a registry: manifest and config at once, layers in parallel while the first of them are unpacked. */
import { BangerError } from "../../contract/errors.ts";
import { abortable, type Progress } from "../../contract/progress.ts";
import type { BlobCache } from "../blob-cache.ts";
import { diffCheck, diffIdsOf, type FoundImage, layerLabel } from "../image.ts";
import {
  checkPlatform,
  choosePlatform,
  type Descriptor,
  type Manifest,
  MOST_CONFIG,
  MOST_INDEXES,
  parseConfig,
  parseManifest,
  type Platform,
} from "../manifest.ts";
import type { Reference } from "../reference.ts";
import type { RegistryClient } from "../registry/client.ts";
import { downloader } from "../registry/download.ts";
import type { DownloadOptions } from "../registry/download-options.ts";
import { readSmall } from "./small-file.ts";

export type RegistryImageOptions = DownloadOptions & {
  registry: RegistryClient;
  cache: BlobCache;
  platform: Platform;
};

/** Layers that are downloaded at a time. */
const PARALLEL = 4;

/**
 * Finds an image and begins to download it.
 * @param progress its signal also ends the downloads; so does disposing the result
 * @throws IMAGE_NOT_FOUND, IMAGE_PLATFORM, IMAGE_REFUSED, REGISTRY_…
 */
export const openRegistryImage = async (
  reference: Reference,
  options: RegistryImageOptions,
  progress: Progress,
): Promise<FoundImage> => {
  const { registry, cache, platform } = options;
  progress.report({ stage: "look up", message: reference.name });
  const { manifest, digest } = await findManifest(reference, registry, platform, progress.signal);
  const controller = new AbortController();
  const signal = AbortSignal.any([progress.signal, controller.signal]);
  const held = cache.hold([manifest.config, ...manifest.layers].map((blob) => blob.digest));
  try {
    if (manifest.config.size > MOST_CONFIG)
      throw new BangerError(
        "IMAGE_REFUSED",
        `the config of ${reference.name} has ${manifest.config.size} bytes, and ${MOST_CONFIG} are the most`,
      );
    const quiet: Progress = { signal, report: () => undefined };
    const get = (blob: Descriptor, one: Progress) =>
      cache.get(blob, downloader(registry, reference, blob, options), one);
    const config = parseConfig(await readSmall(await get(manifest.config, quiet), MOST_CONFIG), reference.name);
    checkPlatform(config, platform, reference.name);
    const diffIds = diffIdsOf(config, manifest.layers.length, reference.name);
    const downloads = downloadAll(manifest.layers, get, { signal, report: progress.report });
    return {
      names: [reference.name],
      digest,
      config,
      layers: manifest.layers.map((layer, index) => ({
        digest: layer.digest,
        size: layer.size,
        label: layerLabel(index, manifest.layers.length, layer.digest),
        content: diffCheck(diffIds[index] ?? ""),
        ready: async (waiting: Progress) => {
          const path = await abortable(downloads.file(index), waiting.signal);
          return { path, start: 0, size: layer.size };
        },
      })),
      [Symbol.asyncDispose]: async () => {
        controller.abort(new BangerError("CANCELLED", "cancelled"));
        await downloads.settled;
        held[Symbol.dispose]();
      },
    };
  } catch (error) {
    controller.abort();
    held[Symbol.dispose]();
    throw error;
  }
};

/**
 * The manifest that a reference stands for on a platform, through the lists that lead to it.
 * @throws IMAGE_NOT_FOUND, IMAGE_PLATFORM, IMAGE_REFUSED, REGISTRY_…
 */
export const findManifest = async (
  reference: Reference,
  registry: RegistryClient,
  platform: Platform,
  signal: AbortSignal,
): Promise<{ manifest: Manifest; digest: string }> => {
  let at = reference.digest ?? reference.tag ?? "latest";
  for (let depth = 0; depth < MOST_INDEXES; depth++) {
    const { bytes, digest } = await registry.manifest(reference, at, signal);
    const parsed = parseManifest(bytes, reference.name);
    if ("manifest" in parsed) return { manifest: parsed.manifest, digest };
    at = choosePlatform(parsed.index, platform, reference.name).digest;
  }
  throw new BangerError("IMAGE_REFUSED", `${reference.name} is a list of lists of lists`);
};

/** The topmost layers first: that is the order in which they are unpacked. */
const downloadAll = (
  layers: readonly Descriptor[],
  get: (blob: Descriptor, progress: Progress) => Promise<string>,
  progress: Progress,
) => {
  const files = layers.map(() => Promise.withResolvers<string>());
  for (const { promise } of files) promise.catch(() => undefined);
  const total = layers.reduce((sum, { size }) => sum + size, 0);
  const done = layers.map(() => 0);
  const tell = (index: number, bytes: number) => {
    done[index] = bytes;
    const sum = done.reduce((all, one) => all + one, 0);
    progress.report({ stage: "download", done: sum, total, unit: "bytes" });
  };
  let next = layers.length - 1;
  const work = async (): Promise<void> => {
    while (next >= 0) {
      const index = next--;
      const layer = layers[index];
      if (!layer) return;
      try {
        const path = await get(layer, { signal: progress.signal, report: (event) => tell(index, event.done ?? 0) });
        tell(index, layer.size);
        files[index]?.resolve(path);
      } catch (error) {
        files[index]?.reject(error);
      }
    }
  };
  const settled = Promise.all(Array.from({ length: Math.min(PARALLEL, layers.length) }, work));
  return { file: (index: number) => files[index]?.promise ?? Promise.reject(new Error("no such layer")), settled };
};
