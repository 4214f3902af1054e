/** A file to import: what `docker save` writes (both forms), an archive of an OCI layout, or the archive of a root file system. */
import { open } from "node:fs/promises";
import { posix } from "node:path";
import * as z from "zod/mini";
import { BangerError } from "../../contract/errors.ts";
import { type Progress, throwIfAborted } from "../../contract/progress.ts";
import { digestOf } from "../digest.ts";
import { diffCheck, diffIdsOf, type FoundImage, layerLabel } from "../image.ts";
import { type FilePart, packingOf, unpacked } from "../layers/unpacked.ts";
import { checkPlatform, MOST_CONFIG, MOST_MANIFEST, parseConfig, parseJson } from "../manifest.ts";
import { parseReference } from "../reference.ts";
import { TarError } from "../tar/error.ts";
import { readTar, type TarEntry } from "../tar/reader.ts";
import type { BlobStore } from "./blob-store.ts";
import { type LayoutChoice, openLayoutImage } from "./layout.ts";
import { readSmall } from "./small-file.ts";

export type ArchiveOptions = LayoutChoice & {
  /** For messages: `-` for stdin. */
  name: string;
  /** A file that may be written: a packed archive is unpacked there, to be read in any order. */
  scratch: string;
};

type Member = FilePart | { link: string };
type Members = Map<string, Member>;

/** Members of an archive of images. A root file system has others, early on. */
const IMAGE_MEMBER =
  /^(?:oci-layout|index\.json|manifest\.json|repositories|blobs(?:\/.*)?|[0-9a-f]{64}(?:\.json|\.tar|\/.*)?|sha256:.*)$/;
const MOST_MEMBERS = 20_000;

/** @throws IMAGE_CORRUPT, IMAGE_REFUSED, and as `openLayoutImage` */
export const openArchiveImage = async (
  part: FilePart,
  options: ArchiveOptions,
  progress: Progress,
): Promise<FoundImage> => {
  try {
    progress.report({ stage: "look through", message: options.name });
    const packed =
      packingOf(await readSmall(part.path, 8, { start: part.start, size: Math.min(part.size, 8) })) !== "none";
    if (!(await beginsLikeImages(part, progress))) return plainRootfs(part);
    const file = packed ? await unpackTo(part, options.scratch, progress) : part;
    const members = await listMembers(file, progress.signal);
    if (members.has("index.json") && members.has("oci-layout"))
      return await openLayoutImage(storeOf(members, options.name), options);
    if (members.has("manifest.json")) return await openDockerImage(storeOf(members, options.name), options);
    return plainRootfs(part);
  } catch (error) {
    if (!(error instanceof TarError)) throw error;
    throw new BangerError(
      error.kind === "corrupt" ? "IMAGE_CORRUPT" : "IMAGE_REFUSED",
      `${options.name} cannot be imported: ${error.message}`,
      {
        hint:
          error.program === undefined
            ? "give an OCI layout, what `docker save` writes, or the tar archive of a root file system"
            : `unpack it on the way: ${error.program} -dc ${options.name === "-" ? "FILE" : options.name} | banger image import - --name NAME`,
        cause: error,
      },
    );
  }
};

const plainRootfs = (part: FilePart): FoundImage => ({
  names: [],
  digest: undefined,
  config: {},
  layers: [{ digest: "", size: part.size, label: "the archive", ready: async () => part }],
  [Symbol.asyncDispose]: () => Promise.resolve(),
});

/** Looks at entries until one of them decides. */
const beginsLikeImages = async (part: FilePart, { signal }: Progress): Promise<boolean> => {
  for await (const { name, type } of readTar(unpacked(part, { signal }))) {
    const clean = posix.normalize(name).replace(/^\/+|\/+$/g, "");
    if (clean === "." || clean === "") return false;
    if (!IMAGE_MEMBER.test(clean)) return false;
    if (type === "file" && !/^blobs/.test(clean)) return true;
    if (/^blobs\/.*\/./.test(clean)) return true;
  }
  return false;
};

const unpackTo = async (part: FilePart, scratch: string, progress: Progress): Promise<FilePart> => {
  const file = await open(scratch, "w", 0o600);
  let size = 0;
  try {
    for await (const chunk of unpacked(part, { signal: progress.signal })) {
      await file.writeFile(chunk);
      size += chunk.length;
      progress.report({ stage: "look through", done: size, unit: "bytes" });
    }
  } finally {
    await file.close();
  }
  return { path: scratch, start: 0, size };
};

/** Reads headers only: it seeks over the content. */
const listMembers = async (part: FilePart, signal: AbortSignal): Promise<Members> => {
  const members: Members = new Map();
  for await (const entry of readTar(seekable(part, signal))) {
    if (members.size > MOST_MEMBERS) throw new TarError("refused", `it has over ${MOST_MEMBERS} members`);
    const name = posix.normalize(entry.name).replace(/^\/+|\/+$/g, "");
    const member = memberOf(entry, name, part);
    if (member) members.set(name, member);
  }
  return members;
};

const memberOf = (
  { type, size, dataAt, link, parts }: TarEntry,
  name: string,
  { path, start }: FilePart,
): Member | undefined => {
  if (type === "file" && !parts) return { path, start: start + dataAt, size };
  if (type === "symlink") return { link: posix.normalize(posix.join(posix.dirname(name), link)) };
  if (type === "hardlink") return { link: posix.normalize(link) };
  return undefined;
};

const WINDOW = 64 * 1024;

/** A file's chunks, with jumps. */
const seekable = ({ path, start, size }: FilePart, signal: AbortSignal) => {
  let at = start;
  const end = start + size;
  async function* read(): AsyncGenerator<Buffer, void, void> {
    const file = await open(path, "r");
    try {
      while (at < end) {
        throwIfAborted(signal);
        const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(WINDOW), 0, Math.min(WINDOW, end - at), at);
        if (bytesRead === 0) return;
        at += bytesRead;
        yield buffer.subarray(0, bytesRead);
      }
    } finally {
      await file.close();
    }
  }
  return Object.assign(read(), {
    seek: (count: number) => {
      at += count;
    },
  });
};

const storeOf = (members: Members, name: string): BlobStore => ({
  name,
  member: async (wanted) => {
    let found = members.get(wanted);
    for (let links = 0; found && "link" in found && links < 8; links++) found = members.get(found.link);
    return found && !("link" in found) ? found : undefined;
  },
});

const dockerSchema = z.array(
  z.object({ Config: z.string(), RepoTags: z.nullish(z.array(z.string())), Layers: z.array(z.string()) }),
);

/** The form before OCI: `manifest.json` names config and layers by their paths. */
const openDockerImage = async (store: BlobStore, { reference, platform }: LayoutChoice): Promise<FoundImage> => {
  const read = async (name: string, limit: number) => {
    const part = await store.member(name);
    if (!part)
      throw new BangerError("IMAGE_CORRUPT", `${store.name} is not whole: ${name} is missing`, {
        hint: "make it again: docker save",
      });
    return { part, bytes: limit === 0 ? Buffer.alloc(0) : await readSmall(part.path, limit, part) };
  };
  const parsed = z.safeParse(dockerSchema, parseJson((await read("manifest.json", MOST_MANIFEST)).bytes, store.name));
  if (!parsed.success)
    throw new BangerError("IMAGE_REFUSED", `manifest.json of ${store.name} is not what docker save writes`);
  const images = parsed.data;
  const all = images.flatMap(({ RepoTags }) => RepoTags ?? []);
  const wanted = reference === undefined ? undefined : parseReference(reference)?.name;
  const fitting =
    reference === undefined
      ? images
      : images.filter(({ RepoTags }) => RepoTags?.some((tag) => parseReference(tag)?.name === wanted));
  const [image, ...others] = fitting;
  if (!image)
    throw new BangerError("IMAGE_NOT_FOUND", `${store.name} holds no image ${reference ?? ""}`.trim(), {
      hint: all.length > 0 ? `it holds: ${all.join(", ")}` : "leave --ref out: its images have no names",
    });
  if (others.length > 0)
    throw new BangerError("USAGE", `${store.name} holds several images`, {
      hint: `say which: --ref ${all.join(" or --ref ")}`,
    });
  const config = await read(image.Config, MOST_CONFIG);
  const parsedConfig = parseConfig(config.bytes, store.name);
  checkPlatform(parsedConfig, platform, store.name);
  const diffIds = diffIdsOf(parsedConfig, image.Layers.length, store.name);
  const layers = await Promise.all(
    image.Layers.map(async (name, index) => {
      const { part } = await read(name, 0);
      const digest = diffIds[index] ?? "";
      return {
        digest,
        size: part.size,
        label: layerLabel(index, image.Layers.length, digest),
        content: diffCheck(digest),
        ready: async () => part,
      };
    }),
  );
  return {
    names: (image.RepoTags ?? []).flatMap((tag) => parseReference(tag)?.name ?? []),
    digest: digestOf(config.bytes),
    config: parsedConfig,
    layers,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
};
