/** An image in an OCI layout, be it a folder or an archive of one. */
import { BangerError } from "../../contract/errors.ts";
import { blobCheck, diffCheck, diffIdsOf, type FoundImage, layerLabel } from "../image.ts";
import {
  checkPlatform,
  choosePlatform,
  type Descriptor,
  type Index,
  type Manifest,
  MOST_CONFIG,
  MOST_INDEXES,
  MOST_MANIFEST,
  parseConfig,
  parseManifest,
  type Platform,
} from "../manifest.ts";
import { parseReference } from "../reference.ts";
import { type BlobStore, blobOf, layerBlob, needMember, readBlob } from "./blob-store.ts";
import { readSmall } from "./small-file.ts";

export type LayoutChoice = {
  /** Which of several images: a tag or a name. */
  reference?: string | undefined;
  platform: Platform;
};

const REF_NAME = "org.opencontainers.image.ref.name";
/** Docker's and containerd's, with the whole name. */
const FULL_NAME = "io.containerd.image.name";

/** @throws IMAGE_NOT_FOUND, IMAGE_PLATFORM, IMAGE_CORRUPT, IMAGE_REFUSED, USAGE when there are several to choose from */
export const openLayoutImage = async (store: BlobStore, choice: LayoutChoice): Promise<FoundImage> => {
  const part = await needMember(store, "index.json");
  const parsed = parseManifest(await readSmall(part.path, MOST_MANIFEST, part), store.name);
  if (!("index" in parsed)) throw new BangerError("IMAGE_REFUSED", `index.json of ${store.name} lists no images`);
  const chosen = chooseImage(parsed.index, choice, store.name);
  const { manifest, digest } = await findManifest(store, chosen, choice.platform);
  const config = parseConfig(await readBlob(store, manifest.config, MOST_CONFIG), store.name);
  checkPlatform(config, choice.platform, store.name);
  const diffIds = diffIdsOf(config, manifest.layers.length, store.name);
  return {
    names: namesOf(chosen),
    digest,
    config,
    layers: manifest.layers.map((layer, index) => ({
      digest: layer.digest,
      size: layer.size,
      label: layerLabel(index, manifest.layers.length, layer.digest),
      file: blobCheck(layer.digest),
      content: diffCheck(diffIds[index] ?? ""),
      ready: () => layerBlob(store, layer),
    })),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
};

/** `alpine:3.20` where the whole name is known, else a tag. */
const namesOf = ({ annotations }: Descriptor): string[] => {
  const full = parseReference(annotations?.[FULL_NAME] ?? "")?.name;
  return [full, annotations?.[REF_NAME]].filter((name) => name !== undefined);
};

const isNamed = (descriptor: Descriptor, wanted: string): boolean => {
  const full = descriptor.annotations?.[FULL_NAME];
  const tag = descriptor.annotations?.[REF_NAME];
  return (
    tag === wanted ||
    full === wanted ||
    (full !== undefined && parseReference(wanted)?.name === parseReference(full)?.name)
  );
};

const chooseImage = (index: Index, { reference, platform }: LayoutChoice, name: string): Descriptor => {
  const { manifests } = index;
  if (manifests.length === 0) throw new BangerError("IMAGE_NOT_FOUND", `${name} holds no image`);
  const all = [...new Set(manifests.flatMap(namesOf))];
  const fitting = reference === undefined ? manifests : manifests.filter((one) => isNamed(one, reference));
  if (fitting.length === 0)
    throw new BangerError("IMAGE_NOT_FOUND", `${name} holds no image ${JSON.stringify(reference)}`, {
      hint: all.length > 0 ? `it holds: ${all.join(", ")}` : "leave --ref out: its images have no names",
      details: { names: all },
    });
  const [only, ...others] = fitting;
  if (only && others.length === 0) return only;
  if (new Set(fitting.map((one) => namesOf(one).join())).size > 1)
    throw new BangerError("USAGE", `${name} holds several images`, {
      hint: `say which: --ref ${all.join(" or --ref ")}`,
      details: { names: all },
    });
  return choosePlatform({ manifests: fitting }, platform, name);
};

const findManifest = async (
  store: BlobStore,
  chosen: Descriptor,
  platform: Platform,
): Promise<{ manifest: Manifest; digest: string }> => {
  let at = chosen;
  for (let depth = 0; depth < MOST_INDEXES; depth++) {
    const parsed = parseManifest(await readBlob(store, at, MOST_MANIFEST), store.name);
    if ("manifest" in parsed) return { manifest: parsed.manifest, digest: at.digest };
    // An archive may list platforms that it does not hold.
    const there: Index["manifests"] = [];
    for (const one of parsed.index.manifests) if (await blobOf(store, one)) there.push(one);
    at = choosePlatform({ manifests: there }, platform, store.name);
  }
  throw new BangerError("IMAGE_REFUSED", `${store.name} holds a list of lists of lists`);
};
