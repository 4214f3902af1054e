/**
 * Bundles: files in a `tar.zst` whose name holds its digest. Digest first, then unpacking, into a folder of the staging
 * area, with caps on bytes and number of files; only files with the names that were asked for, and each once.
 */
import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { chmod, type FileHandle, mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { pathToFileURL } from "node:url";
import { constants, createZstdCompress, createZstdDecompress } from "node:zlib";
import type { BundleSource } from "../../contract/bundles.ts";
import { BangerError, toBangerError } from "../../contract/errors.ts";
import { abortError, type Progress, throwIfAborted } from "../../contract/progress.ts";
import { sha256OfFile } from "../../host/digest.ts";
import { writeWhole } from "../../host/whole.ts";
import { TarError } from "../../oci/tar/error.ts";
import { readTar } from "../../oci/tar/reader.ts";
import { download, type DownloadOptions } from "./download.ts";
import { tarHeader, tarPadding } from "./tar-header.ts";

/** `sha256`: empty where it was not asked for. */
export type Unpacked = { size: number; sha256: string };

/** zstd may ask for so much memory to unpack: 128 MiB, which level 19 never exceeds. */
const WINDOW_LOG = 27;
const MOST_FILES = 1000;

export type BundleTarget = {
  /** Of the staging area. */
  folder: string;
  /** Whether a bundle of this kind may hold a file of that name. */
  isExpected(name: string): boolean;
  /** Default true. Without them large holes cost nothing. */
  digests?: boolean;
};

/**
 * Fetches a bundle and unpacks it.
 * @returns what was unpacked, by name
 * @throws DOWNLOAD_FAILED, BUNDLE_INVALID, DISK_FULL, the signal's error
 */
export const fetchBundle = async (
  source: BundleSource,
  target: BundleTarget,
  progress: Progress,
  options?: DownloadOptions,
): Promise<Map<string, Unpacked>> => {
  await using downloaded = await download(source, progress, options);
  const files = await unpackBundle(downloaded.file, source, target, progress);
  await downloaded.forget();
  return files;
};

/** Unpacks a bundle whose digest has been checked. */
export const unpackBundle = async (
  file: FileHandle,
  { unpacked, url }: Pick<BundleSource, "unpacked" | "url">,
  { folder, isExpected, digests = true }: BundleTarget,
  progress: Progress,
): Promise<Map<string, Unpacked>> => {
  const found = new Map<string, Unpacked>();
  let total = 0;
  const refuse = (why: string, cause?: unknown) => invalid(url, why, cause);
  const stream = createZstdDecompress({ params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG } });
  const fed = pipeline(chunksOf(file), stream, { signal: progress.signal });
  // Met by the reader too, as the stream's error.
  fed.catch(() => undefined);
  try {
    for await (const entry of readTar(stream)) {
      const name = Buffer.from(entry.name, "latin1").toString("utf8");
      if (entry.type !== "file" || !isExpected(name))
        throw refuse(`it holds ${JSON.stringify(name.slice(0, 200))}, which does not belong there`);
      if (found.has(name)) throw refuse(`it holds ${name} twice`);
      if (found.size >= MOST_FILES) throw refuse(`it holds over ${MOST_FILES} files`);
      if (total + entry.size > unpacked) throw refuse(`its files have more than the ${unpacked} bytes announced`);
      await mkdir(dirname(join(folder, name)), { recursive: true });
      const output = await open(join(folder, name), "wx", 0o600);
      try {
        const sink = sparseSink(output, digests ? createHash("sha256") : undefined);
        await entry.content({
          write: async (chunk) => {
            throwIfAborted(progress.signal);
            await sink.write(chunk);
            progress.report({
              stage: "unpack",
              message: name,
              done: total + sink.size(),
              total: unpacked,
              unit: "bytes",
            });
          },
          hole: (bytes) => sink.hole(bytes),
        });
        found.set(name, await sink.end());
      } finally {
        await output.close();
      }
      total += entry.size;
    }
    await fed;
    return found;
  } catch (error) {
    if (progress.signal.aborted) throw abortError(progress.signal);
    if (error instanceof TarError || isZstdError(error)) throw refuse(error.message, error);
    throw toBangerError(error);
  } finally {
    stream.destroy();
    await fed.catch(() => undefined);
  }
};

/** Not a stream of Node's own, which closes the file that others still read. */
async function* chunksOf(file: FileHandle): AsyncGenerator<Buffer> {
  for (let at = 0; ; ) {
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(256 * 1024), 0, 256 * 1024, at);
    if (bytesRead === 0) return;
    at += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

const isZstdError = (error: unknown): error is Error =>
  error instanceof Error && "code" in error && /^(?:ZSTD_|Z_|ERR_ZSTD|ERR_BUFFER)/.test(String(error.code));

const BLOCK = 4096;
const zeros = Buffer.alloc(64 * 1024);

/** Writes a file, blocks of zeros as holes. */
const sparseSink = (file: FileHandle, hash: Hash | undefined) => {
  let size = 0;
  const isZero = (chunk: Buffer) =>
    chunk.length <= zeros.length && zeros.compare(chunk, 0, chunk.length, 0, chunk.length) === 0;
  return {
    size: () => size,
    async write(chunk: Buffer): Promise<void> {
      hash?.update(chunk);
      let start = 0;
      for (let at = 0; at < chunk.length; ) {
        // Blocks of the file, so that a hole is one.
        const end = Math.min(chunk.length, at + BLOCK - ((size + at) % BLOCK));
        if (isZero(chunk.subarray(at, end))) {
          await writeWhole(file, chunk.subarray(start, at), size + start);
          start = end;
        }
        at = end;
      }
      await writeWhole(file, chunk.subarray(start), size + start);
      size += chunk.length;
    },
    hole(bytes: number): void {
      for (let left = hash ? bytes : 0; left > 0; left -= zeros.length)
        hash?.update(zeros.subarray(0, Math.min(left, zeros.length)));
      size += bytes;
    },
    async end(): Promise<Unpacked> {
      await file.truncate(size);
      return { size, sha256: hash?.digest("hex") ?? "" };
    },
  };
};

export type PackedBundle = {
  /** `FOLDER/NAME-SHA256.tar.zst` */
  path: string;
  sha256: string;
  /** Of the bundle, in bytes. */
  size: number;
  /** Of its files, in bytes. */
  unpacked: number;
};

export type BundleContent = {
  /** In the bundle. */
  name: string;
  path: string;
};

/** Of zstd: higher ones take several times as long and save a few percent. */
const LEVEL = 6;

/**
 * Packs files, in the order given. The same files give the same bundle.
 * @param folder where the bundle goes
 * @param name what its file name begins with
 */
export const packBundle = async (
  files: readonly BundleContent[],
  folder: string,
  name: string,
  progress: Progress,
): Promise<PackedBundle> => {
  await checkFolder(folder);
  const staged = join(folder, `.${name}.${process.pid}.tmp`);
  const sizes = await Promise.all(files.map(async ({ path }) => (await stat(path)).size));
  const unpacked = sizes.reduce((sum, size) => sum + size, 0);
  let done = 0;
  const archive = async function* (): AsyncGenerator<Buffer> {
    for (const [index, { name: inside, path }] of files.entries()) {
      const size = sizes[index] ?? 0;
      yield tarHeader(inside, size);
      let sent = 0;
      if (size > 0) {
        for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024, end: size - 1 })) {
          sent += chunk.length;
          done += chunk.length;
          progress.report({ stage: "pack", message: inside, done, total: unpacked, unit: "bytes" });
          yield chunk;
        }
      }
      if (sent !== size) throw new BangerError("FILE_NOT_FOUND", `${path} became shorter while it was read`);
      yield tarPadding(size);
    }
    yield Buffer.alloc(1024);
  };
  try {
    const compress = createZstdCompress({
      params: { [constants.ZSTD_c_compressionLevel]: LEVEL, [constants.ZSTD_c_checksumFlag]: 1 },
    });
    const file = await open(staged, "wx", 0o644);
    await pipeline(archive, compress, file.createWriteStream(), { signal: progress.signal });
    const sha256 = await sha256OfFile(staged, progress.signal);
    const path = join(folder, `${name}-${sha256}.tar.zst`);
    const { size } = await stat(staged);
    // For others to fetch, whatever the daemon's umask.
    await chmod(staged, 0o644);
    await rename(staged, path);
    return { path, sha256, size, unpacked };
  } catch (error) {
    await rm(staged, { force: true });
    throw progress.signal.aborted ? abortError(progress.signal) : toBangerError(error);
  }
};

const checkFolder = async (folder: string): Promise<void> => {
  const found = await stat(folder).catch(() => undefined);
  if (found?.isDirectory()) return;
  throw new BangerError("FILE_NOT_FOUND", `there is no folder ${folder}`, { hint: "make it first: mkdir -p DIR" });
};

/** What of a bundle says what the rest is. */
export const MANIFEST = "manifest.json";
/** No manifest is near this. */
const MOST_MANIFEST = 8 * 1024 * 1024;

/**
 * The manifest of an unpacked bundle.
 * @param files what was unpacked into `folder`
 * @param parse gives the manifest or throws
 * @throws BUNDLE_INVALID
 */
export const readBundleManifest = async <T>(
  url: string,
  folder: string,
  files: ReadonlyMap<string, Unpacked>,
  parse: (data: unknown) => T,
): Promise<T> => {
  const file = files.get(MANIFEST);
  if (file === undefined) throw invalid(url, `it lacks ${MANIFEST}`);
  if (file.size > MOST_MANIFEST) throw invalid(url, `its manifest has ${file.size} bytes`);
  try {
    return parse(JSON.parse(await readFile(join(folder, MANIFEST), "utf8")));
  } catch (error) {
    throw invalid(url, "its manifest cannot be read", error);
  }
};

/** A catalog's entry for a bundle that lies where it was made. */
export const entryOf = (
  { name, description }: { name: string; description: string },
  { path, sha256, size, unpacked }: PackedBundle,
): { name: string; description: string; sources: BundleSource[] } => ({
  name,
  description,
  sources: [{ type: "bundle", url: pathToFileURL(path).href, sha256, size, unpacked }],
});

export const invalid = (url: string, why: string, cause?: unknown): BangerError =>
  new BangerError("BUNDLE_INVALID", `the bundle ${url.split("/").at(-1)} cannot be used: ${why}`, {
    hint: "tell whoever made it; `banger image export` and scripts/publish-kernel.sh make bundles",
    cause,
  });
