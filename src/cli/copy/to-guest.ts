/** Host to guest. */
import { createReadStream, type Stats } from "node:fs";
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import type { ProgressEvent } from "../../contract/progress.ts";
import type { GuestFiles } from "./guest-files.ts";
import { byteMeter } from "./meter.ts";
import { copiedName, type GuestPlace, type HostPlace, joinPath, parentOf } from "./places.ts";
import { packTar } from "../../host/tar.ts";

/** How much of a file must be holes before it is sent as a sparse archive, in bytes. */
const WORTH_SPARSE = 1024 * 1024;

type Source = { path: string; stats: Stats };

const statSource = async ({ path }: HostPlace): Promise<Source> => {
  try {
    return { path, stats: await stat(path) };
  } catch (error) {
    if (errnoOf(error) !== "ENOENT" && errnoOf(error) !== "ENOTDIR") throw error;
    throw new BangerError("FILE_NOT_FOUND", `there is no ${path}`, { hint: "nothing was copied", cause: error });
  }
};

const isSparse = ({ size, blocks }: Stats): boolean => size - blocks * 512 > WORTH_SPARSE;

/** Where a source lands, and whether as what it holds or as itself. */
type Landing = { folder: string; name: string };

const landing = async (guest: GuestFiles, source: string, target: GuestPlace, isFolder: boolean): Promise<Landing> => {
  const found = await guest.stat(target.path);
  const name = copiedName(source);
  if (found?.type === "dir")
    return { folder: target.path, name: name ?? (isFolder ? "." : (copiedName(resolve(source)) ?? source)) };
  const asNew = copiedName(target.path);
  if (asNew === undefined || (target.path.endsWith("/") && !isFolder)) {
    throw new BangerError("FILE_NOT_FOUND", `there is no folder ${target.path} in the guest`, {
      hint: "make it first, or leave out the slash at its end",
    });
  }
  if (found && isFolder)
    throw new BangerError("FILE_REFUSED", `${target.path} is no folder in the guest`, { hint: "give another target" });
  return { folder: parentOf(target.path), name: asNew };
};

const sendOne = async (
  guest: GuestFiles,
  { path, stats }: Source,
  target: GuestPlace,
  report: (event: ProgressEvent) => void,
): Promise<void> => {
  const isFolder = stats.isDirectory();
  const { folder, name } = await landing(guest, path, target, isFolder);
  if (!isFolder && !(stats.isFile() && isSparse(stats))) {
    const meter = byteMeter(report, path, stats.isFile() ? stats.size : undefined);
    // What is appended meanwhile stays out; files of /proc say 0 and hold more.
    const size = stats.isFile() && stats.size > 0 ? stats.size : undefined;
    const source = createReadStream(path, {
      highWaterMark: 256 * 1024,
      ...(size === undefined ? {} : { end: size - 1 }),
    });
    await guest.send(
      {
        op: "write",
        path: joinPath(folder, name),
        mode: stats.mode & 0o7777,
        ...(size === undefined ? {} : { size }),
      },
      meter.count(source),
    );
    return;
  }
  // The archive is read where the name leads, so that a link named on the command line is followed.
  const [from, base] = isFolder ? [path, "."] : [parentOf(path), copiedName(path) ?? path];
  const source = base === "." ? "." : `./${base}`;
  const rename = base === name ? undefined : { from: source, to: `./${name}` };
  const archive = packTar({ folder: resolve(from), names: [source], rename });
  await guest.send({ op: "tar_in", path: folder }, byteMeter(report, path).count(archive));
};

/** @throws FILE_NOT_FOUND before anything is copied when a source is missing */
export const copyIn = async (
  guest: GuestFiles,
  sources: readonly (HostPlace | { side: "stream" })[],
  target: GuestPlace,
  stdin: AsyncIterable<Uint8Array>,
  report: (event: ProgressEvent) => void,
): Promise<void> => {
  const local = await Promise.all(sources.filter((source) => source.side === "host").map(statSource));
  if (local.length > 1 && (await guest.stat(target.path))?.type !== "dir") {
    throw new BangerError("FILE_NOT_FOUND", `there is no folder ${target.path} in the guest`, {
      hint: "several sources need a folder that is there",
    });
  }
  if (local.length === 0) {
    if ((await guest.stat(target.path))?.type === "dir") {
      throw new BangerError("USAGE", `${target.path} is a folder in the guest`, {
        hint: "what comes from `-` needs a file name",
      });
    }
    await guest.send({ op: "write", path: target.path }, byteMeter(report, "-").count(stdin));
  }
  for (const source of local) await sendOne(guest, source, target, report);
};
