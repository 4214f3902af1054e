/** Arguments of `vm cp`: where something is. */
import { BangerError } from "../../contract/errors.ts";

export type Place = { side: "host"; path: string } | { side: "guest"; vm: string; path: string } | { side: "stream" };
export type GuestPlace = Extract<Place, { side: "guest" }>;
export type HostPlace = Extract<Place, { side: "host" }>;

/** Where relative paths in the guest begin. */
const GUEST_HOME = "/root";

/** `box:/srv/app`, `./file` or `-`. A host file with a colon in its name is written with a slash before it: `./a:b`. */
export const parsePlace = (text: string): Place => {
  if (text === "-") return { side: "stream" };
  const [, vm, path] = /^([A-Za-z0-9][A-Za-z0-9-]*):(.*)$/s.exec(text) ?? [];
  if (vm === undefined || path === undefined) return { side: "host", path: text };
  const absolute = path.startsWith("/")
    ? path
    : path.startsWith("~/")
      ? `${GUEST_HOME}/${path.slice(2)}`
      : `${GUEST_HOME}/${path}`;
  return { side: "guest", vm, path: absolute };
};

export type CopyPlan =
  | { direction: "in"; sources: (HostPlace | { side: "stream" })[]; target: GuestPlace }
  | { direction: "out"; sources: GuestPlace[]; target: HostPlace | { side: "stream" } };

const refuse = (message: string, hint: string): BangerError => new BangerError("USAGE", message, { hint });

/** @throws USAGE where the places do not make a copy between host and one guest */
export const planCopy = (words: readonly string[]): CopyPlan => {
  const places = words.map(parsePlace);
  const target = places.at(-1);
  const sources = places.slice(0, -1);
  if (!target || sources.length === 0)
    throw refuse("the target is missing", "banger vm cp FILE box:/path, or banger vm cp box:/path .");
  if (target.side === "guest") {
    const local = sources.filter((source) => source.side !== "guest");
    if (local.length < sources.length)
      throw refuse("both sides are in a guest", "copy to the host first, then from there");
    if (local.length > 1 && local.some(({ side }) => side === "stream")) {
      throw refuse("`-` goes with nothing else", "copy it by itself");
    }
    return { direction: "in", sources: local, target };
  }
  const remote = sources.filter((source) => source.side === "guest");
  if (remote.length < sources.length)
    throw refuse("neither side is in a guest", "a path in a guest is written VM:/path");
  if (new Set(remote.map(({ vm }) => vm)).size > 1)
    throw refuse("the sources are in several VMs", "copy from one after the other");
  if (target.side === "stream" && remote.length > 1)
    throw refuse("only one file can be copied to `-`", "copy them one by one");
  return { direction: "out", sources: remote, target };
};

/** The last part of a path as it names a copy: undefined for `/`, `.` and `..`, whose contents are copied. */
export const copiedName = (path: string): string | undefined => {
  const last = path.replace(/\/+$/, "").split("/").at(-1);
  return last === undefined || last === "" || last === "." || last === ".." ? undefined : last;
};

/** The folder that holds `path`. */
export const parentOf = (path: string): string => {
  const trimmed = path.replace(/\/+$/, "");
  const slash = trimmed.lastIndexOf("/");
  return slash < 0 ? "." : slash === 0 ? "/" : trimmed.slice(0, slash);
};

export const joinPath = (folder: string, name: string): string =>
  folder.endsWith("/") ? `${folder}${name}` : `${folder}/${name}`;
