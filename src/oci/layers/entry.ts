/** From an entry of a layer's archive to what it does to the image: names made clean, whiteouts told apart, escapes refused. */
import { TarError } from "../tar/error.ts";
import { describe, type TarEntry } from "../tar/reader.ts";

export type LayerEntry =
  /** Hides a name, or with `.` as its name all that a folder has, of the layers below. */
  | { kind: "whiteout"; path: readonly string[] }
  | { kind: "opaque"; path: readonly string[] }
  /** Nothing for the image. */
  | { kind: "ignored" }
  | { kind: "directory"; path: readonly string[] }
  | { kind: "hardlink"; path: readonly string[]; target: readonly string[] }
  | { kind: "symlink"; path: readonly string[]; target: string }
  | { kind: "other"; path: readonly string[] };

const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";
/** Of AUFS, which kept its own files among the image's. */
const META = ".wh..wh.";

const MOST_NAME = 255;
const MOST_PATH = 4095;

/** An empty part, `.` or `..` somewhere. */
const UNCLEAN = /(?:^|\/)\.{0,2}(?:\/|$)/;

/**
 * The parts of a name, as Docker takes it: relative to the image's root, `.` and `..` resolved as text.
 * @throws TarError when it leads out of the root, or no file can have that name
 */
export const cleanPath = (name: string): string[] => {
  let text = name;
  if (text.startsWith("./")) text = text.slice(2);
  if (text.endsWith("/")) text = text.slice(0, -1);
  if (text.includes("\0")) throw new TarError("refused", "a name with a NUL byte");
  const parts = text === "" || UNCLEAN.test(text) ? resolveDots(name) : text.split("/");
  if (text.length > MOST_PATH)
    throw new TarError("refused", `a name of ${text.length} bytes, and ${MOST_PATH} are the most`);
  for (const part of parts)
    if (part.length > MOST_NAME)
      throw new TarError("refused", `a name with a part of ${part.length} bytes, and ${MOST_NAME} are the most`);
  return parts;
};

const resolveDots = (name: string): string[] => {
  const parts: string[] = [];
  for (const part of name.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") parts.push(part);
    else if (parts.pop() === undefined) throw new TarError("refused", "the name leads out of the image");
  }
  return parts;
};

/**
 * @throws TarError that names the entry
 */
export const layerEntry = (entry: TarEntry): LayerEntry => {
  try {
    return classify(entry);
  } catch (error) {
    if (error instanceof TarError) throw new TarError(error.kind, `${describe(entry.name)}: ${error.message}`);
    throw error;
  }
};

const classify = (entry: TarEntry): LayerEntry => {
  if (entry.name === "") throw new TarError("refused", "an entry without a name");
  const path = cleanPath(entry.name);
  const base = path.at(-1);
  if (base === undefined) {
    if (entry.type !== "directory") throw new TarError("refused", "the root of the image must be a folder");
    return { kind: "directory", path };
  }
  if (base.startsWith(WHITEOUT)) return whiteout(path, base);
  for (const part of path) if (part.startsWith(META)) return { kind: "ignored" };
  if (entry.type === "directory") return { kind: "directory", path };
  if (entry.type === "symlink") return { kind: "symlink", path, target: symlinkTarget(path, entry.link) };
  if (entry.type === "hardlink") return { kind: "hardlink", path, target: hardlinkTarget(path, entry.link) };
  return { kind: "other", path };
};

const whiteout = (path: string[], base: string): LayerEntry => {
  if (base === OPAQUE) return { kind: "opaque", path: path.slice(0, -1) };
  if (base.startsWith(META)) return { kind: "ignored" };
  const name = base.slice(WHITEOUT.length);
  if (name === "" || name === "." || name === "..") throw new TarError("refused", "a whiteout of no name");
  return { kind: "whiteout", path: [...path.slice(0, -1), name] };
};

/** An absolute target is one in the image. A relative one must not lead out of it: Docker refuses it too. */
const symlinkTarget = (path: readonly string[], target: string): string => {
  if (target === "") throw new TarError("refused", "a symlink to nothing");
  if (target.includes("\0")) throw new TarError("refused", "a symlink's target with a NUL byte");
  if (target.length > MOST_PATH)
    throw new TarError("refused", `a symlink's target of ${target.length} bytes, and ${MOST_PATH} are the most`);
  if (target.startsWith("/")) return target;
  let depth = path.length - 1;
  for (const part of target.split("/")) {
    if (part === "" || part === ".") continue;
    depth += part === ".." ? -1 : 1;
    if (depth < 0) throw new TarError("refused", `a symlink that leads out of the image: ${describe(target)}`);
  }
  return target;
};

const hardlinkTarget = (path: readonly string[], link: string): string[] => {
  if (link === "") throw new TarError("refused", "a hard link to nothing");
  let target: string[];
  try {
    target = cleanPath(link);
  } catch (error) {
    if (error instanceof TarError)
      throw new TarError(error.kind, `its hard link's target ${describe(link)}: ${error.message}`);
    throw error;
  }
  if (target.length === 0) throw new TarError("refused", "a hard link to the root of the image");
  if (target.length === path.length && target.every((part, i) => part === path[i]))
    throw new TarError("refused", "a hard link to itself");
  return target;
};
