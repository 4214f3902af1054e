/** The user's own files that every VM gets at each start (`[[file_sync]]` of the config). What cannot be brought is told, and no reason not to start. */
import { createReadStream } from "node:fs";
import { open, readdir, stat } from "node:fs/promises";
import { basename, join, posix } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Config } from "../../contract/config.ts";
import { BangerError, errnoOf, toBangerError } from "../../contract/errors.ts";
import { type Progress, throwIfAborted } from "../../contract/progress.ts";
import type { GuestConnection } from "../../guest/connection.ts";
import { describeExit, startProcess } from "../../host/process.ts";

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
  bytes: Readable | undefined,
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
  const archive = { folder: host, as: home ? "." : posix.basename(path) };
  const made = home ? folders.slice(1) : folders;
  await sendTar(guest, request, { ...archive, names: made, mode: folderMode(mode) }, signal);
  await sendTar(guest, request, { ...archive, names: files, mode }, signal);
  return others === 0 ? [] : [`file_sync: left out of ${host}: what is no file, folder or link (${others})`];
};

type Archive = {
  folder: string;
  /** In it, each beginning with `.`; in the archive with `as`. */
  names: readonly string[];
  as: string;
  mode: number;
};

const sendTar = async (
  guest: GuestConnection,
  request: Record<string, unknown>,
  { folder, names, as, mode }: Archive,
  signal: AbortSignal,
): Promise<void> => {
  if (names.length === 0) return;
  await using tar = await startProcess({
    argv: [
      "tar",
      "--create",
      "--format=gnu",
      "--sparse",
      "--numeric-owner",
      "--hard-dereference",
      "--no-recursion",
      `--mode=${mode.toString(8)}`,
      // Names only: the targets of links stay as they are.
      `--transform=flags=rSh;s,^\\.,${as.replace(/[\\&,]/g, "\\$&")},`,
      `--directory=${folder}`,
      "--null",
      "--files-from=-",
      "--file=-",
    ],
    env: { TAR_OPTIONS: "", LC_ALL: "C" },
    stdio: ["pipe", "pipe", "pipe"],
  });
  const { stdin, stdout } = tar.child;
  if (!stdin || !stdout) throw new BangerError("INTERNAL", "tar was started without its pipes");
  stdin.on("error", () => stdin.destroy());
  stdin.end(names.map((name) => `${name}\0`).join(""));
  await send(guest, request, stdout, signal);
  const exit = await tar.exited;
  // 1: a file changed while it was read.
  if (exit.status !== 0 && exit.status !== 1)
    throw new BangerError("TOOL_FAILED", tar.stderrTail().split("\n")[0] || `tar ${describeExit(exit)}`);
};
