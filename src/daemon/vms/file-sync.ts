/** The user's own files that every VM gets at each start (`[[file_sync]]` of the config). What cannot be brought is told, and no reason not to start. */
import { createReadStream } from "node:fs";
import { open, readdir, stat } from "node:fs/promises";
import { basename, join, posix } from "node:path";
import { pipeline } from "node:stream/promises";
import type { Config } from "../../contract/config.ts";
import { BangerError, errnoOf, toBangerError } from "../../contract/errors.ts";
import { type Progress, throwIfAborted } from "../../contract/progress.ts";
import type { GuestConnection } from "../../guest/connection.ts";
import { packTar } from "../../host/tar.ts";

export type SyncEntry = Config["fileSync"][number];

/** A folder with more is hardly meant: a home folder, say. */
const MAX_ENTRIES = 20_000;

/**
 * @returns a note for each entry that was not brought, or not whole
 * @throws GUEST_AGENT_LOST, and the signal's error
 */
export const syncFiles = async (
  guest: GuestConnection,
  entries: readonly SyncEntry[],
  progress: Progress,
): Promise<string[]> => {
  const notes: string[] = [];
  for (const entry of entries) {
    try {
      const found = await stat(entry.host);
      progress.report({ stage: "files", message: entry.host });
      if (found.isDirectory()) notes.push(...(await syncFolder(guest, entry, progress.signal)));
      else if (found.isFile()) await syncFile(guest, entry, progress.signal);
      else notes.push(`file_sync: ${entry.host} is neither a file nor a folder, and was left out`);
    } catch (error) {
      throwIfAborted(progress.signal);
      const { code, message } = toBangerError(error);
      if (code === "GUEST_AGENT_LOST" || code === "GUEST_PROTOCOL") throw error;
      const missing = errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR";
      notes.push(`file_sync: ${entry.host} ${missing ? "is not there" : `was not brought: ${message.split("\n")[0]}`}`);
    }
  }
  return notes;
};

const syncFile = async (guest: GuestConnection, { host, guest: target, mode }: SyncEntry, signal: AbortSignal) => {
  await using file = await open(host, "r");
  const { size } = await file.stat();
  const path = target.endsWith("/") ? join(target, basename(host)) : target;
  // So long as it was when it was opened: one that grows meanwhile is not sent half a line longer.
  const bytes =
    size === 0 ? undefined : createReadStream(host, { fd: file.fd, autoClose: false, start: 0, end: size - 1 });
  await send(guest, { op: "write", path, mode, uid: 0, gid: 0, parents: true, size }, bytes, signal);
};

/** Sends `bytes` as the input of `request` and waits for the guest's result. */
const send = async (
  guest: GuestConnection,
  request: Record<string, unknown>,
  bytes: AsyncIterable<Uint8Array> | undefined,
  signal: AbortSignal,
): Promise<void> => {
  const stream = guest.open(request);
  stream.output.resume();
  stream.errors.resume();
  const abort = () => stream.abort();
  signal.addEventListener("abort", abort, { once: true });
  try {
    // What breaks the transfer in the guest is told better by its result.
    const sent = bytes ? pipeline(bytes, stream.input, { signal }) : Promise.resolve(void stream.input.end());
    const [outcome, result] = await Promise.allSettled([sent, stream.result]);
    throwIfAborted(signal);
    // What cannot be read here is what breaks it there.
    if (outcome.status === "rejected" && outcome.reason instanceof BangerError) throw outcome.reason;
    if (result.status === "rejected") throw result.reason;
    if (outcome.status === "rejected") throw outcome.reason;
  } finally {
    signal.removeEventListener("abort", abort);
    stream.input.destroy();
  }
};

type Listing = {
  /** Below the folder, `.` first. */
  folders: string[];
  /** Files and links. */
  files: string[];
  /** Sockets, devices and pipes. */
  others: number;
};

const listTree = async (root: string): Promise<Listing> => {
  const listing: Listing = { folders: ["."], files: [], others: 0 };
  for (const folder of listing.folders) {
    for (const entry of await readdir(join(root, folder), { withFileTypes: true })) {
      const path = `${folder}/${entry.name}`;
      if (entry.isDirectory()) listing.folders.push(path);
      else if (entry.isFile() || entry.isSymbolicLink()) listing.files.push(path);
      else listing.others++;
      if (listing.folders.length + listing.files.length > MAX_ENTRIES)
        throw new BangerError("FILE_REFUSED", `it holds more than ${MAX_ENTRIES} files`);
    }
  }
  return listing;
};

/** Whoever may read a folder's files may look into the folder. */
const folderMode = (mode: number): number => mode | ((mode & 0o444) >> 2);

const syncFolder = async (
  guest: GuestConnection,
  { host, guest: target, mode }: SyncEntry,
  signal: AbortSignal,
): Promise<string[]> => {
  const { folders, files, others } = await listTree(host);
  const path = posix.resolve("/", target);
  // root's home keeps its own mode, or sshd would turn root's keys down.
  const home = path === "/root";
  const request = { op: "tar_in", path: home ? path : posix.dirname(path), uid: 0, gid: 0 };
  const archive = { folder: host, rename: { from: ".", to: home ? "." : posix.basename(path) }, listed: true };
  const made = { ...archive, names: home ? folders.slice(1) : folders, mode: folderMode(mode) };
  for (const packing of [made, { ...archive, names: files, mode }])
    if (packing.names.length > 0) await send(guest, request, packTar(packing), signal);
  return others === 0 ? [] : [`file_sync: left out of ${host}: what is no file, folder or link (${others})`];
};
