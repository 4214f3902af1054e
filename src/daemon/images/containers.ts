/** Images that come as containers' images do: from a registry, a layout, an archive, or what the client sends. */
import { createHash } from "node:crypto";
import { open, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Readable } from "node:stream";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import type { ImageOrigin, ImportImage } from "../../contract/images.ts";
import { type Progress, throwIfAborted } from "../../contract/progress.ts";
import { exists } from "../../host/files.ts";
import { hashOfFile } from "../../oci/blob-cache.ts";
import type { FoundImage } from "../../oci/image.ts";
import { hostPlatform } from "../../oci/manifest.ts";
import { openArchiveImage } from "../../oci/sources/archive.ts";
import { folderStore } from "../../oci/sources/blob-store.ts";
import { openLayoutImage } from "../../oci/sources/layout.ts";
import { openFromRegistry, type RegistryAccess } from "../artifacts/registry.ts";
import { contentDigestOf, convertImage } from "./convert.ts";
import { keptName } from "./names.ts";

/** Fills a staging folder with an image of a registry. */
export const fillFromRegistry = async (
  reference: string,
  { name, description, folder, access }: { name: string; description: string; folder: string; access: RegistryAccess },
  progress: Progress,
): Promise<void> => {
  const found = await openFromRegistry(reference, access, progress);
  await using image = found.image;
  const source: ImageOrigin = { type: "oci", reference: found.reference.name, digest: image.digest ?? "" };
  await convertImage({ image, name, description, source, contentDigest: contentDigestOf(image), folder, progress });
};

/** What was found to import, and what it is called; `fill` makes the image of it. */
export type Import = { name: string; fill(folder: string): Promise<void> };

/**
 * Looks at what is to be imported.
 * @param input what the client sends, where no path is given
 * @param scratch a folder for what has to be put down meanwhile
 * @throws USAGE where nothing says how it is to be called, and as the sources do
 */
export const openImport = async (
  request: ImportImage,
  input: Readable,
  scratch: string,
  progress: Progress,
): Promise<Import> => {
  const from = request.path ?? "-";
  const part =
    request.path === undefined ? await spool(input, join(scratch, "input"), progress) : await partOf(request.path);
  const choice = { reference: request.ref, platform: hostPlatform };
  const image =
    part === undefined
      ? await openLayoutImage(folderStore(from), choice)
      : await openArchiveImage(part, { ...choice, name: from, scratch: join(scratch, "unpacked") }, progress);
  const name = nameOf(request, image);
  return {
    name,
    fill: async (folder) => {
      const archive =
        image.digest === undefined && part ? await hashOfFile(part.path, "sha256:", progress.signal) : undefined;
      const digest = image.digest ?? archive ?? "";
      const layers = image.layers.map((layer) => (layer.digest === "" ? { ...layer, digest } : layer));
      const contentDigest = archive ? createHash("sha256").update(archive).digest("hex") : contentDigestOf(image);
      const description = `imported from ${from === "-" ? "standard input" : from}`;
      await convertImage({
        image: { ...image, layers },
        name,
        description,
        source: { type: "import", from, digest },
        contentDigest,
        folder,
        progress,
      });
    },
  };
};

/** Undefined: a folder. */
const partOf = async (path: string) => {
  try {
    const found = await stat(path);
    if (found.isFile()) return { path, start: 0, size: found.size };
    if (!found.isDirectory()) throw new BangerError("USAGE", `${path} is no file and no folder`);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT" && errnoOf(error) !== "EACCES") throw error;
    throw new BangerError(
      "FILE_NOT_FOUND",
      `${path} ${errnoOf(error) === "ENOENT" ? "is not there" : "cannot be read"}`,
      {
        hint: "to get an image from a registry use `banger image pull`",
      },
    );
  }
  if (await exists(join(path, "index.json"))) return undefined;
  throw new BangerError("USAGE", `${path} is no OCI layout: it has no index.json`, {
    hint: `to import a folder that is a root file system: tar -C ${path} -c . | banger image import - --name NAME`,
  });
};

const spool = async (input: Readable, path: string, progress: Progress) => {
  const file = await open(path, "wx", 0o600);
  let size = 0;
  try {
    for await (const chunk of input) {
      throwIfAborted(progress.signal);
      await file.writeFile(chunk);
      size += chunk.length;
      progress.report({ stage: "receive", done: size, unit: "bytes" });
    }
  } finally {
    await file.close();
  }
  if (size === 0)
    throw new BangerError("USAGE", "nothing came to be imported", {
      hint: "docker save IMAGE | banger image import -",
    });
  return { path, start: 0, size };
};

/** As asked for; else by what the image says, else by its file's name. */
const nameOf = ({ name, path }: ImportImage, image: FoundImage): string => {
  if (name !== undefined) return name;
  const file = path === undefined ? "" : basename(path).replace(/\.(?:tar|tgz|tar\.gz|tar\.zst|oci)$/i, "");
  const [called] = image.names;
  // A tag alone says little: `layout-folder:tag`.
  const candidates = [
    called !== undefined && /[:@]/.test(called) ? called : undefined,
    called && file && `${file}:${called}`,
    file,
  ];
  const found = candidates.map((one) => one && keptName(one)).find((one) => one !== undefined && one !== "");
  if (found) return found;
  throw new BangerError("USAGE", "nothing says what the image is to be called", { hint: "add --name NAME" });
};
