/** Blobs that lie on this machine already: in a folder, or as members of an archive. Each is checked against its digest when it is used. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { digestOf, parseDigest } from "../digest.ts";
import type { FilePart } from "../layers/unpacked.ts";
import type { Descriptor } from "../manifest.ts";
import { readSmall } from "./small-file.ts";

export type BlobStore = {
  /** For messages. */
  name: string;
  /** A member of the layout by its name: `index.json`. Undefined where there is none. */
  member(name: string): Promise<FilePart | undefined>;
};

export const folderStore = (folder: string): BlobStore => ({
  name: folder,
  member: async (name) => {
    const path = join(folder, name);
    try {
      const found = await stat(path);
      return found.isFile() ? { path, start: 0, size: found.size } : undefined;
    } catch (error) {
      if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return undefined;
      throw error;
    }
  },
});

const missing = ({ name }: BlobStore, what: string): BangerError =>
  new BangerError("IMAGE_CORRUPT", `${name} is not whole: ${what} is missing`, { hint: "make or copy it again" });

export const needMember = async (store: BlobStore, name: string): Promise<FilePart> => {
  const found = await store.member(name);
  if (found) return found;
  throw missing(store, name);
};

export const blobOf = async (store: BlobStore, { digest }: Descriptor): Promise<FilePart | undefined> => {
  const parsed = parseDigest(digest);
  return parsed && (await store.member(`blobs/${parsed.algorithm}/${parsed.hex}`));
};

const wrong = ({ name }: BlobStore, digest: string, why: string): BangerError =>
  new BangerError("IMAGE_CORRUPT", `${name} is damaged: the blob ${digest} ${why}`, { hint: "make or copy it again" });

/** A small blob, checked. */
export const readBlob = async (store: BlobStore, blob: Descriptor, limit: number): Promise<Buffer> => {
  const part = await blobOf(store, blob);
  if (!part) throw missing(store, `the blob ${blob.digest}`);
  const bytes = await readSmall(part.path, limit, part);
  const digest = digestOf(bytes, blob.digest);
  if (digest !== blob.digest) throw wrong(store, blob.digest, `has the digest ${digest}`);
  return bytes;
};

/** A large blob where it lies. Whoever reads it checks its digest. */
export const layerBlob = async (store: BlobStore, blob: Descriptor): Promise<FilePart> => {
  const part = await blobOf(store, blob);
  if (!part) throw missing(store, `the blob ${blob.digest}`);
  if (part.size !== blob.size) throw wrong(store, blob.digest, `has ${part.size} bytes in place of ${blob.size}`);
  return part;
};
