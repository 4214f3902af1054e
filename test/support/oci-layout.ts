/** Writes OCI layouts by hand: layers of any packing, configs and indexes of any kind, those that no tool would write too. */
import { createHash } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";

export type Blob = { mediaType: string; digest: string; size: number };
export type Packing = "gzip" | "zstd" | "none";

export type LayoutImage = {
  /** Archives, the lowest first. */
  layers: readonly Buffer[];
  /** Of the layers, in turn; default gzip. */
  packing?: readonly Packing[];
  /** Bytes that follow each layer's packed ones in its blob. */
  behind?: Buffer;
  config?: Record<string, unknown>;
  platform?: { os: string; architecture: string; variant?: string };
  /** Tag in the index. */
  tag?: string;
};

const suffix: Record<Packing, string> = { gzip: "+gzip", zstd: "+zstd", none: "" };
const pack: Record<Packing, (bytes: Buffer) => Buffer> = {
  gzip: (bytes) => gzipSync(bytes, { level: 1 }),
  zstd: (bytes) => zstdCompressSync(bytes),
  none: (bytes) => bytes,
};

export const digestOf = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

export const writeBlob = async (folder: string, bytes: Buffer, mediaType: string): Promise<Blob> => {
  const digest = digestOf(bytes);
  await mkdir(join(folder, "blobs/sha256"), { recursive: true });
  await writeFile(join(folder, "blobs/sha256", digest.slice(7)), bytes);
  return { mediaType, digest, size: bytes.length };
};

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

/** @returns the manifest's descriptor, and its layers */
export const writeImage = async (folder: string, image: LayoutImage): Promise<Blob & { layers: Blob[] }> => {
  const layers: Blob[] = [];
  for (const [index, bytes] of image.layers.entries()) {
    const packing = image.packing?.[index % image.packing.length] ?? "gzip";
    const blob = Buffer.concat([pack[packing](bytes), image.behind ?? Buffer.alloc(0)]);
    layers.push(await writeBlob(folder, blob, `application/vnd.oci.image.layer.v1.tar${suffix[packing]}`));
  }
  const { os, architecture, variant } = image.platform ?? { os: "linux", architecture: "amd64" };
  const config = await writeBlob(
    folder,
    json({
      os,
      architecture,
      ...(variant ? { variant } : {}),
      config: image.config ?? {},
      rootfs: { type: "layers", diff_ids: image.layers.map(digestOf) },
    }),
    "application/vnd.oci.image.config.v1+json",
  );
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  return { ...(await writeBlob(folder, json({ schemaVersion: 2, mediaType, config, layers }), mediaType)), layers };
};

/** A layout of several images; those without a tag are in one index under the tag `all`. */
export const writeLayout = async (
  folder: string,
  images: readonly LayoutImage[],
): Promise<(Blob & { layers: Blob[] })[]> => {
  const written = [];
  for (const image of images) written.push(await writeImage(folder, image));
  const described = written.map(({ layers, ...blob }, index) => ({
    ...blob,
    platform: images[index]?.platform ?? { os: "linux", architecture: "amd64" },
  }));
  const manifests: unknown[] = [];
  for (const [index, blob] of described.entries()) {
    const { tag } = images[index] ?? {};
    if (tag !== undefined) manifests.push({ ...blob, annotations: { "org.opencontainers.image.ref.name": tag } });
  }
  const untagged = described.filter((_, index) => images[index]?.tag === undefined);
  if (untagged.length > 0) {
    const mediaType = "application/vnd.oci.image.index.v1+json";
    const index = await writeBlob(folder, json({ schemaVersion: 2, mediaType, manifests: untagged }), mediaType);
    manifests.push({ ...index, annotations: { "org.opencontainers.image.ref.name": "all" } });
  }
  await writeFile(join(folder, "oci-layout"), json({ imageLayoutVersion: "1.0.0" }));
  await writeFile(join(folder, "index.json"), json({ schemaVersion: 2, manifests }));
  return written;
};
