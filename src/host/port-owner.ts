/** Who has a port of this machine. */
import { readdir, readFile, readlink } from "node:fs/promises";
import { errnoOf } from "../contract/errors.ts";

const UNREADABLE = ["ENOENT", "EACCES", "EPERM", "ESRCH", "EINVAL"];

const orNothing = async <T>(read: Promise<T>, nothing: T): Promise<T> => {
  try {
    return await read;
  } catch (error) {
    // It has ended meanwhile, is not ours to look at, or the kernel has no such table.
    if (UNREADABLE.includes(errnoOf(error) ?? "")) return nothing;
    throw error;
  }
};

/** State of a socket that waits: LISTEN of TCP, and what an unconnected UDP socket has. */
const WAITING = { tcp: "0A", udp: "07" };

/** Inodes of the sockets that wait on a port, whatever their address. */
const socketsOn = async (proto: "tcp" | "udp", port: number): Promise<Set<string>> => {
  const hex = port.toString(16).toUpperCase().padStart(4, "0");
  const tables = await Promise.all(
    [proto, `${proto}6`].map((name) => orNothing(readFile(`/proc/net/${name}`, "utf8"), "")),
  );
  const rows = tables.flatMap((table) => table.split("\n")).map((line) => line.trim().split(/\s+/));
  return new Set(
    rows
      .filter(([, local, , state]) => local?.endsWith(`:${hex}`) && state === WAITING[proto])
      .map((row) => row[9] ?? ""),
  );
};

/**
 * Processes of this user that wait on a port, by any address. Reads all of /proc: for an error's text.
 * @returns what they are called; none when the port is another user's
 */
export const portOwners = async (proto: "tcp" | "udp", port: number): Promise<{ pid: number; name: string }[]> => {
  const inodes = await socketsOn(proto, port);
  const owners: { pid: number; name: string }[] = [];
  if (inodes.size === 0) return owners;
  for (const entry of await readdir("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    const descriptors = await orNothing(readdir(`/proc/${entry}/fd`), []);
    for (const descriptor of descriptors) {
      const target = await orNothing(readlink(`/proc/${entry}/fd/${descriptor}`), "");
      if (!inodes.has(/^socket:\[(\d+)\]$/.exec(target)?.[1] ?? "none")) continue;
      const name = await orNothing(readFile(`/proc/${entry}/comm`, "utf8"), "");
      owners.push({ pid: Number(entry), name: name.trim() });
      break;
    }
  }
  return owners;
};
