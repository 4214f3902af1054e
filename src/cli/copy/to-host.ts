/** Guest to host. */
import { createWriteStream } from "node:fs";
import { chmod, lstat, realpath, rename, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import type { ProgressEvent } from "../../contract/progress.ts";
import type { GuestFileStat } from "../../contract/vms.ts";
import type { GuestFiles } from "./guest-files.ts";
import { byteMeter } from "./meter.ts";
import { copiedName, type GuestPlace, type HostPlace } from "./places.ts";
import { publish, refuseDevices, stagingBeside } from "./publish.ts";
import { unpackTar } from "../../host/tar.ts";

type Report = (event: ProgressEvent) => void;
type Source = { place: GuestPlace; stats: GuestFileStat };

/** Files over this go as an archive, which keeps their holes, in bytes. */
const WORTH_SPARSE = 16 * 1024 * 1024;

const statSource = async (guest: GuestFiles, place: GuestPlace): Promise<Source> => {
  const stats = await guest.stat(place.path);
  if (!stats)
    throw new BangerError("FILE_NOT_FOUND", `there is no ${place.path} in ${place.vm}`, { hint: "nothing was copied" });
  return { place, stats };
};

const statTarget = async (path: string) => {
  try {
    return await stat(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
};

/** Where links lead: the file at the end of them is replaced, not the link. */
const followed = async (path: string): Promise<string> => {
  try {
    return await realpath(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return resolve(path);
    throw error;
  }
};

/** @throws GUEST_PROTOCOL when fewer bytes came than the guest says the file has */
const readFile = async (
  guest: GuestFiles,
  { place, stats }: Source,
  report: Report,
  into: (data: AsyncIterable<Uint8Array>) => Promise<void>,
) => {
  let received = 0;
  const meter = byteMeter(
    (event) => {
      received = event.done ?? received;
      report(event);
    },
    place.path,
    stats.type === "file" ? stats.size : undefined,
  );
  const result = await guest.receive({ op: "read", path: place.path }, (data: Readable) => into(meter.count(data)));
  if (typeof result.size === "number" && result.size !== received) {
    throw new BangerError("GUEST_PROTOCOL", `${place.path} came with ${received} of ${result.size} bytes`, {
      hint: "run the command again",
    });
  }
};

const receiveFile = async (guest: GuestFiles, source: Source, target: string, report: Report): Promise<void> => {
  const path = await followed(target);
  await using staging = await stagingBeside(dirname(path));
  const part = join(staging.path, "part");
  await readFile(guest, source, report, (data) =>
    pipeline(data, createWriteStream(part, { flags: "wx", mode: 0o600 })),
  );
  await chmod(part, source.stats.mode & 0o777);
  await rename(part, path);
};

const receiveArchive = async (
  guest: GuestFiles,
  { place, stats }: Source,
  target: string,
  report: Report,
): Promise<void> => {
  await using staging = await stagingBeside(dirname(target));
  const meter = byteMeter(report, place.path);
  // Of a link to a folder the folder.
  const path = stats.type === "dir" ? `${place.path}/.` : place.path;
  await guest.receive({ op: "tar_out", path, name: "copy" }, (data) => unpackTar(meter.count(data), staging.path));
  if (process.getuid?.() === 0) await refuseDevices(staging.path);
  const copy = join(staging.path, "copy");
  await checkKind(copy, stats, place.path);
  await publish(copy, target);
};

/**
 * What was to be a folder or a file must be one: through a link in its place, a later copy to here would write wherever the guest likes.
 * @throws GUEST_PROTOCOL
 */
const checkKind = async (path: string, stats: GuestFileStat, name: string): Promise<void> => {
  const found = await lstat(path).catch((error: unknown) => {
    if (errnoOf(error) !== "ENOENT") throw error;
  });
  if (stats.type === "dir" ? found?.isDirectory() : found?.isFile()) return;
  throw new BangerError("GUEST_PROTOCOL", `the guest sent something else than ${name}`, { hint: "nothing was copied" });
};

const receiveOne = async (guest: GuestFiles, source: Source, target: HostPlace, report: Report): Promise<void> => {
  const existing = await statTarget(target.path);
  const isFolder = source.stats.type === "dir";
  if (!existing && target.path.endsWith("/") && !isFolder) {
    throw new BangerError("FILE_NOT_FOUND", `there is no folder ${target.path}`, {
      hint: "make it first, or leave out the slash at its end",
    });
  }
  const into = existing?.isDirectory() === true;
  const name = copiedName(source.place.path);
  const path = resolve(into && name !== undefined ? join(target.path, name) : target.path);
  if (isFolder && existing && !into)
    throw new BangerError("FILE_REFUSED", `${target.path} is no folder`, { hint: "give another target" });
  if (
    isFolder ||
    (source.stats.type === "file" &&
      source.stats.size > WORTH_SPARSE &&
      (await guest.stat(source.place.path, false))?.type === "file" &&
      isReplaceable(into ? await statTarget(path) : existing))
  ) {
    return await receiveArchive(guest, source, path, report);
  }
  if (into && (await statTarget(path))?.isDirectory()) {
    throw new BangerError("FILE_REFUSED", `cannot put a file at ${path}: it is a folder here`, {
      hint: `give another target than ${basename(path)}`,
    });
  }
  if (isReplaceable(existing) || into) return await receiveFile(guest, source, path, report);
  // A device or a pipe is written to: putting a file in its place would break it.
  await readFile(guest, source, report, (data) => pipeline(data, createWriteStream(path, { flags: "w" })));
};

const isReplaceable = (existing: { isFile(): boolean } | undefined): boolean =>
  existing === undefined || existing.isFile();

/**
 * @param stdout takes the bytes of a single file where the target is `-`
 * @throws FILE_NOT_FOUND before anything is copied when a source is missing
 */
export const copyOut = async (
  guest: GuestFiles,
  places: readonly GuestPlace[],
  target: HostPlace | { side: "stream" },
  stdout: (data: Readable) => Promise<void>,
  report: Report,
): Promise<void> => {
  const sources = await Promise.all(places.map((place) => statSource(guest, place)));
  if (target.side === "stream") {
    const [source] = sources;
    if (!source) return;
    const { path, vm } = source.place;
    if (source.stats.type === "dir") {
      throw new BangerError("USAGE", `${path} is a folder`, {
        hint: `for an archive: banger vm exec ${vm} -- tar -C ${path} -c . > files.tar`,
      });
    }
    await guest.receive({ op: "read", path }, stdout);
    return;
  }
  if (sources.length > 1 && !(await statTarget(target.path))?.isDirectory()) {
    throw new BangerError("FILE_NOT_FOUND", `there is no folder ${target.path}`, {
      hint: "several sources need a folder that is there",
    });
  }
  for (const source of sources) await receiveOne(guest, source, target, report);
};
