/** An image that was found somewhere: what it says of itself, and its layers, each of which can be waited for. */
import { BangerError } from "../contract/errors.ts";
import type { ContentCheck, Layer } from "./layers/merge.ts";
import { hasherOf } from "./digest.ts";
import type { ImageConfig } from "./manifest.ts";
import { TarError } from "./tar/error.ts";

export type FoundLayer = { digest: string /** As it is stored, in bytes. */; size: number };

export type FoundImage = AsyncDisposable & {
  /** What it is called where it was found, best first: `alpine:3.20`. */
  names: readonly string[];
  /** Of the manifest, or where there is none of the config. Undefined for a plain root file system. */
  digest: string | undefined;
  config: ImageConfig;
  /** The lowest first. */
  layers: readonly (Layer & FoundLayer)[];
};

/** Checks that a layer's archive is the one that the config names. */
export const diffCheck = (diffId: string): ContentCheck => digestCheck(diffId, "content", "config");

/** Checks that a layer's file is the one that the manifest names. */
export const blobCheck = (digest: string): ContentCheck => digestCheck(digest, "blob", "manifest");

const digestCheck =
  (digest: string, what: string, who: string): ContentCheck =>
  () => {
    const hash = hasherOf(digest);
    return {
      update: (chunk) => void hash.update(chunk),
      check: () => {
        const found = `${digest.slice(0, 6)}:${hash.digest("hex")}`;
        if (found !== digest)
          throw new TarError("corrupt", `its ${what} has the digest ${found}, and the ${who} says ${digest}`);
      },
    };
  };

export const layerLabel = (index: number, count: number, digest: string): string =>
  `layer ${index + 1} of ${count} (${digest.slice(0, 19)})`;

/**
 * Digests of the layers' archives, as the config names them.
 * @throws IMAGE_REFUSED when there are not as many as layers
 */
export const diffIdsOf = ({ rootfs }: ImageConfig, layers: number, name: string): readonly string[] => {
  const found = rootfs?.diff_ids ?? [];
  if (found.length === layers) return found;
  throw new BangerError(
    "IMAGE_REFUSED",
    `the config of ${name} names ${found.length} layers, and its manifest ${layers}`,
  );
};
