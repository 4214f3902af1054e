/** Snapshots as single files: a `tar.zst` of exactly the files of a saved machine, holes as holes. */
import { randomBytes } from "node:crypto";
import { chmod, open, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { constants, createZstdCompress } from "node:zlib";
import { BangerError, errnoOf, toBangerError } from "../../contract/errors.ts";
import { abortError, type Progress } from "../../contract/progress.ts";
import { exists } from "../../host/files.ts";
import { type SavedFiles, savedFiles } from "../../host/paths.ts";
import { runTool } from "../../host/process.ts";
import { nameDiskFull } from "../../host/tool-errors.ts";
import { unpackBundle } from "../artifacts/bundle.ts";
import { digestOf, recordOf, type SavedManifest, savedManifestSchema } from "../saved/saved.ts";

/** Of zstd: memory that was just in use packs well at any level, and this one keeps up with the disk. */
const LEVEL = 3;
/** What an archive's files may have together, holes included, in bytes. */
const MOST = 2 ** 44;

const namesOf = ({ files }: SavedManifest): string[] => {
  const of = savedFiles("");
  return [of.manifest, of.state, of.memory, ...(files.disk ? [of.disk] : [])];
};

/**
 * Writes a snapshot into a file of the user's, which must not be there yet.
 * @throws FILE_REFUSED, FILE_NOT_FOUND, DISK_FULL
 */
export const exportSaved = async (
  saved: SavedFiles,
  manifest: SavedManifest,
  target: string,
  progress: Progress,
): Promise<{ path: string; size: number }> => {
  if (await exists(target))
    throw new BangerError("FILE_REFUSED", `${target} is there already`, { hint: "name another file, or remove it" });
  const staged = join(dirname(target), `.${basename(target)}.${process.pid}-${randomBytes(4).toString("hex")}.tmp`);
  progress.report({ stage: "export", message: target });
  try {
    const file = await open(staged, "wx", 0o600).catch((error: unknown) => {
      if (errnoOf(error) !== "ENOENT") throw error;
      throw new BangerError("FILE_NOT_FOUND", `there is no folder ${dirname(target)}`, {
        hint: "make it first: mkdir -p DIR",
      });
    });
    const compress = createZstdCompress({
      params: { [constants.ZSTD_c_compressionLevel]: LEVEL, [constants.ZSTD_c_checksumFlag]: 1 },
    });
    // Whatever ends the one ends the other: tar would wait for ever for a writer that is gone.
    const failed = new AbortController();
    const signal = AbortSignal.any([progress.signal, failed.signal]);
    const written = pipeline(compress, file.createWriteStream({ flush: true }), { signal });
    written.catch(() => failed.abort());
    const packed = runTool({
      argv: [
        "tar",
        "--create",
        "--format=gnu",
        "--sparse",
        "--numeric-owner",
        `--directory=${saved.folder}`,
        "--",
        ...namesOf(manifest),
      ],
      output: compress,
      signal,
    }).then(() => compress.end());
    packed.catch(() => compress.destroy());
    await Promise.all([written, packed]);
    const { size } = await stat(staged);
    await rename(staged, target);
    return { path: target, size };
  } catch (error) {
    await rm(staged, { force: true });
    throw progress.signal.aborted ? abortError(progress.signal) : nameDiskFull(error);
  }
};

/**
 * Fills a folder of the staging area with the saved machine of an archive.
 * @returns its manifest, true of the files as they are here
 * @throws SAVED_CORRUPT for what is no such archive, FILE_NOT_FOUND, DISK_FULL
 */
export const importSaved = async (source: string, folder: string, progress: Progress): Promise<SavedManifest> => {
  const files = savedFiles(folder);
  const known = new Set([files.manifest, files.state, files.memory, files.disk].map((path) => basename(path)));
  const refuse = (why: string, cause?: unknown) =>
    new BangerError("SAVED_CORRUPT", `${source} is no snapshot that can be used: ${why}`, {
      hint: "make it anew where it comes from: banger snapshot export SNAPSHOT FILE",
      cause,
    });
  try {
    await using file = await open(source, "r");
    await unpackBundle(
      file,
      { unpacked: MOST, url: source },
      { folder, isExpected: (name) => known.has(name), digests: false },
      progress,
    );
  } catch (thrown) {
    const error = toBangerError(thrown);
    if (error.code === "BUNDLE_INVALID") throw refuse(error.message.replace(/^.*cannot be used: /, ""), thrown);
    if (errnoOf(thrown) === "ENOENT")
      throw new BangerError("FILE_NOT_FOUND", `there is no file ${source}`, { cause: thrown });
    throw nameDiskFull(thrown);
  }
  const described = await readManifest(files.manifest).catch((error: unknown) => {
    throw refuse("its manifest is missing or cannot be read", error);
  });
  const manifest = await truthOf(files, described).catch((error: unknown) => {
    throw errnoOf(error) === "ENOENT" ? refuse("a file is missing", error) : error;
  });
  const { state, memory, disk } = manifest.files;
  if (state.sha256 !== described.files.state.sha256) throw refuse("its state is not what was saved");
  if (memory.size !== described.files.memory.size || memory.size !== described.shape.memory)
    throw refuse(`its memory has ${memory.size} bytes`);
  if (disk === undefined || disk.size !== described.files.disk?.size) throw refuse(`its disk has ${disk?.size} bytes`);
  await writeFile(files.manifest, JSON.stringify(manifest), { mode: 0o600 });
  await chmod(files.manifest, 0o600);
  return manifest;
};

const readManifest = async (path: string): Promise<SavedManifest> =>
  savedManifestSchema.parse(JSON.parse(await readFile(path, "utf8")));

/** The manifest with sizes and times of the files as they are. */
const truthOf = async (files: SavedFiles, manifest: SavedManifest): Promise<SavedManifest> => ({
  ...manifest,
  files: {
    state: { ...(await recordOf(files.state)), sha256: await digestOf(files.state) },
    memory: await recordOf(files.memory),
    disk: await recordOf(files.disk),
  },
});
