/** From what was accepted of a file to what is done to the host's file, or why it cannot be done. Nothing is written here. */
import { createHash } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { open, readlink } from "node:fs/promises";
import { contentOf } from "./binary.ts";
import { type Clash, linesOf, newLines, oldLines, putHunks } from "./hunks.ts";
import type { FileChange, Hunk } from "./patch.ts";
import { badPath, lstatIfThere, obstacleAbove, placeOf } from "./places.ts";

/** What of a file can be accepted by itself. */
export type Part = { kind: "mode" } | { kind: "hunk"; hunk: Hunk } | { kind: "whole" };

export type Operation = {
  path: string;
  /** What stands there; undefined: nothing. */
  before: Stats | undefined;
  /** What will; undefined: nothing. A file's mode holds exactly, or within the umask. */
  after: { data: Buffer; mode: number; exact: boolean } | { target: Buffer } | undefined;
};

export type Conflict = {
  path: string;
  why: string;
  /** Places that both sides have changed. */
  clashes: Clash[];
};

export type Planned = { operation: Operation } | { conflict: Conflict } | "there";

const LINK = "120000";

/** Empty for what can never be applied. */
export const partsOf = (change: FileChange): Part[] => {
  const { path, oldMode, newMode, hunks, binary, replaces } = change;
  if (badPath(path) !== undefined || [oldMode, newMode, replaces?.oldMode].includes("160000")) return [];
  if (oldMode === undefined || newMode === undefined || replaces || binary || newMode === LINK || oldMode === LINK)
    return [{ kind: "whole" }];
  return [
    ...(oldMode === newMode ? [] : [{ kind: "mode" } as const]),
    ...hunks.map((hunk) => ({ kind: "hunk", hunk }) as const),
  ];
};

type Found = { stats: Stats; kind: "file" | "link" | "other"; data: Buffer };

const read = async (place: Buffer): Promise<Found | undefined> => {
  const stats = await lstatIfThere(place);
  if (!stats) return undefined;
  if (stats.isSymbolicLink()) return { stats, kind: "link", data: await readlink(place, { encoding: "buffer" }) };
  if (!stats.isFile()) return { stats, kind: "other", data: Buffer.alloc(0) };
  const file = await open(place, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    return { stats, kind: "file", data: await file.readFile() };
  } finally {
    await file.close();
  }
};

/** git's name of contents. @param like a name of the same kind */
const oidOf = (data: Buffer, like: string): string =>
  createHash(like.length === 64 ? "sha256" : "sha1")
    .update(`blob ${data.length}\0`)
    .update(data)
    .digest("hex");

const bytes = (text: string): Buffer => Buffer.from(text, "latin1");
const contentsOf = (hunks: readonly Hunk[], side: (hunk: Hunk) => string[]): string[] => hunks.flatMap(side);

/** Whether the host has already what the VM has made. */
const isThere = (found: Found | undefined, { newMode, newOid }: FileChange): boolean => {
  if (newMode === undefined) return found === undefined || found.stats.isDirectory();
  if (found === undefined || newOid === undefined || found.kind !== (newMode === LINK ? "link" : "file")) return false;
  if (newMode !== LINK && (newMode === "100755") !== ((found.stats.mode & 0o100) !== 0)) return false;
  return oidOf(found.data, newOid) === newOid;
};

/** Whether the host's working tree has already what the VM has made of a file. */
export const isOnHost = async (root: string, change: FileChange): Promise<boolean> =>
  badPath(change.path) === undefined &&
  (await obstacleAbove(root, change.path)) === undefined &&
  // What has no contents to compare has a mode alone.
  (change.newOid !== undefined || change.newMode === undefined) &&
  isThere(await read(placeOf(root, change.path)), change);

/**
 * @param root of the working tree
 * @param goes paths that go in the same step
 * @param chosen some of `partsOf(change)`
 */
export const planChange = async (
  root: string,
  change: FileChange,
  chosen: readonly Part[],
  goes: ReadonlySet<string>,
): Promise<Planned> => {
  const { path, newMode } = change;
  const conflict = (why: string, clashes: Clash[] = []): Planned => ({ conflict: { path, why, clashes } });
  const bad = badPath(path);
  if (bad !== undefined) return conflict(bad);
  const obstacle = await obstacleAbove(root, path);
  if (obstacle !== undefined && newMode === undefined) return "there";
  if (obstacle !== undefined && !goes.has(obstacle))
    return conflict(`${Buffer.from(obstacle, "latin1").toString("utf8")} is no folder on the host`);
  const found = obstacle === undefined ? await read(placeOf(root, path)) : undefined;
  if (isThere(found, change)) return "there";
  const before = found?.stats;
  if ((change.replaces ?? change).oldMode === undefined) {
    const emptied = before?.isDirectory() && [...goes].some((gone) => gone.startsWith(`${path}/`));
    if (found && !emptied) return conflict("the host has something of its own there", bothSides(found, change));
    return { operation: { path, before: undefined, after: await created(change) } };
  }
  if (!found) return conflict("it is gone on the host");
  const old = change.replaces ?? change;
  const wasLink = old.oldMode === LINK;
  if (found.kind !== (wasLink ? "link" : "file")) return conflict("it is something else on the host");

  const whole = chosen.some(({ kind }) => kind === "whole");
  if (whole) {
    if (!isOld(found, old)) return conflict("the host has changed it", bothSides(found, old));
    if (newMode === undefined) return { operation: { path, before, after: undefined } };
    if (change.replaces) return { operation: { path, before, after: await created(change) } };
    if (newMode === LINK)
      return { operation: { path, before, after: { target: bytes(contentsOf(change.hunks, newLines).join("")) } } };
    const data = change.binary ? await contentOf(change.binary, found.data) : found.data;
    return { operation: { path, before, after: { data, mode: modeFor(found.stats.mode, newMode), exact: true } } };
  }

  const hunks = chosen.flatMap((part) => (part.kind === "hunk" ? [part.hunk] : []));
  const { text, clashes } = putHunks(found.data.toString("latin1"), hunks);
  if (clashes.length > 0) return conflict("both sides have changed the same lines", clashes);
  const mode = chosen.some(({ kind }) => kind === "mode")
    ? modeFor(found.stats.mode, newMode)
    : found.stats.mode & 0o7777;
  const data = bytes(text);
  if (data.equals(found.data) && mode === (found.stats.mode & 0o7777)) return "there";
  return { operation: { path, before, after: { data, mode, exact: true } } };
};

/** Who may read it may run it, or nobody. */
const modeFor = (mode: number, wanted: string | undefined): number =>
  wanted === "100755" ? (mode & 0o7777) | ((mode & 0o444) >> 2) : mode & 0o7666;

const created = async (change: FileChange): Promise<NonNullable<Operation["after"]>> => {
  const text = bytes(contentsOf(change.hunks, newLines).join(""));
  if (change.newMode === LINK) return { target: text };
  const data = change.binary ? await contentOf(change.binary, Buffer.alloc(0)) : text;
  return { data, mode: change.newMode === "100755" ? 0o777 : 0o666, exact: false };
};

/** Whether the host's file is what the VM began with. */
const isOld = (found: Found, { oldOid, hunks, binary }: FileChange): boolean => {
  if (oldOid !== undefined && oidOf(found.data, oldOid) === oldOid) return true;
  if (binary) return false;
  const old = contentsOf(hunks, oldLines).join("");
  const host = found.data.toString("latin1");
  // git keeps text with other ends of lines than the working tree may have.
  return host === old || (found.kind === "file" && !old.includes("\r") && host.replaceAll("\r\n", "\n") === old);
};

const bothSides = ({ kind, data }: Found, { hunks, binary }: FileChange): Clash[] => {
  if (binary || kind === "other" || data.includes(0)) return [];
  const text = data.toString("latin1");
  const [base, vm] = [contentsOf(hunks, oldLines), contentsOf(hunks, newLines)];
  return [{ line: 1, base, host: linesOf(text), vm }];
};
