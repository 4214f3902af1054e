/** The read-only ext4 disk that holds a kernel's modules. */
import { createHash } from "node:crypto";
import { lstat, open, readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { throwIfAborted } from "../../contract/progress.ts";
import { type Attributes, createExt4Writer, type Ext4Writer } from "../../ext4/writer.ts";

/** Only for a build, to find a source tree that no guest has. */
const LEFT_OUT = new Set(["build", "source"]);

/**
 * Writes the folder's content as an ext4 file system whose files belong to root, just large enough. The same folder gives
 * the same bytes.
 * @param folder `…/lib/modules/<release>`; becomes the root of the disk
 */
export const makeModulesDisk = async (
  folder: string,
  disk: string,
  release: string,
  signal: AbortSignal,
): Promise<void> => {
  const file = await open(disk, "wx", 0o600);
  try {
    const uuid = createHash("sha256").update(`modules of ${release}`).digest().subarray(0, 16);
    const writer = createExt4Writer(file, { label: "modules", uuid });
    await copyFolder(folder, "", writer, signal);
    await writer.finish();
  } finally {
    await file.close();
  }
};

/** Of all files: what depmod makes would be of this moment, and the disk another one each time. */
const MADE = { seconds: 1_700_000_000, nanoseconds: 0 };

const copyFolder = async (folder: string, below: string, writer: Ext4Writer, signal: AbortSignal): Promise<void> => {
  for (const name of (await readdir(folder)).sort()) {
    throwIfAborted(signal);
    if (below === "" && LEFT_OUT.has(name)) continue;
    const source = join(folder, name);
    const path = Buffer.from(below === "" ? name : `${below}/${name}`).toString("latin1");
    const stats = await lstat(source);
    const attributes: Attributes = {
      mode: stats.isDirectory() ? 0o755 : 0o644,
      uid: 0,
      gid: 0,
      mtime: MADE,
    };
    if (stats.isDirectory()) {
      writer.directory(path, attributes);
      await copyFolder(source, below === "" ? name : `${below}/${name}`, writer, signal);
    } else if (stats.isSymbolicLink()) writer.symlink(path, { ...attributes, mode: 0o777 }, await readlink(source));
    else if (stats.isFile()) {
      const content = await readFile(source);
      const sink = await writer.file(path, attributes, content.length);
      await sink.write(content);
      await sink.end();
    }
  }
};
