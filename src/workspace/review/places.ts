/** Which places in a working tree a guest may ask to change. Names are one character a byte. */
import { lstat } from "node:fs/promises";
import { errnoOf } from "../../contract/errors.ts";

/** What some file systems take for nothing: `.g<U+200C>it` is `.git` there (HFS+). In UTF-8, one character a byte. */
const IGNORED_BY_HFS = /\xe2\x80[\x8c-\x8f\xaa-\xae]|\xe2\x81[\xaa-\xaf]|\xef\xbb\xbf/g;

/** A git folder, also as file systems that know no case, or Windows, would find it. */
const isGitFolder = (name: string): boolean => {
  const plain = name.replace(IGNORED_BY_HFS, "").split(":")[0] ?? "";
  return /^(?:\.git|git~\d+)[ .]*$/i.test(plain);
};

/** Why a path can be no file of a working tree; undefined where it can. */
export const badPath = (path: string): string | undefined => {
  if (path === "" || path.length > 4096 || path.includes("\0")) return "it is no name of a file";
  const parts = path.split("/");
  if (parts.some((part) => part === "" || part === "." || part === "..")) return "it leads out of the repository";
  if (parts.some((part) => part.length > 255)) return "it is too long";
  if (path.split(/[/\\]/).some((part) => isGitFolder(part))) return "it lies in a git folder";
  return undefined;
};

/** A path below `root` for the file system, byte for byte. */
export const placeOf = (root: string, path: string): Buffer =>
  Buffer.concat([Buffer.from(`${root}/`), Buffer.from(path, "latin1")]);

/** The folders above `path`, outermost first. */
export const foldersAbove = (path: string): string[] => {
  const folders: string[] = [];
  for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1)) folders.push(path.slice(0, at));
  return folders;
};

export const lstatIfThere = async (place: Buffer) => {
  try {
    return await lstat(place);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return undefined;
    throw error;
  }
};

/**
 * What stands in the way above `path`: a link or a file where a folder must be. A link would lead a write to wherever it points.
 * @returns the path of it
 */
export const obstacleAbove = async (root: string, path: string): Promise<string | undefined> => {
  for (const folder of foldersAbove(path)) {
    const found = await lstatIfThere(placeOf(root, folder));
    if (!found) return undefined;
    if (!found.isDirectory()) return folder;
  }
  return undefined;
};

/** Where a link at `path` would lead, below the root; undefined: out of it. */
export const linkInside = (path: string, target: string): string | undefined => {
  if (target.startsWith("/") || target === "") return undefined;
  const at = path.split("/").slice(0, -1);
  for (const part of target.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") at.push(part);
    else if (at.pop() === undefined) return undefined;
  }
  return at.join("/");
};
