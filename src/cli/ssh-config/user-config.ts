/**
 * The one marked `Include` in the user's own `~/.ssh/config`. Two lines at its top, since an Include inside a `Host` block counts for that
 * host only; every other byte of the file stays, whatever its encoding and line ends.
 */
import type { Stats } from "node:fs";
import { access, constants, lstat, mkdir, open, readFile, realpath, stat } from "node:fs/promises";
import { dirname, isAbsolute, join } from "node:path";
import { homedir } from "node:os";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { replaceFile } from "../../host/files.ts";

const MARK = "# Added by `banger ssh-config --install`, taken out by --uninstall: VMs as NAME.vm";
/** Told by its beginning, so that its wording can change. */
const MARKED = /^\s*# Added by `banger ssh-config --install`/;

/** Ours of any time, in whatever folder its settings were; an Include that the user put after a mark that was left alone is not. */
const OURS = /^\s*include\s[^#]*\/banger\/ssh_config"?\s*$/i;

/** Where the file that ssh includes is included. */
export type Included = {
  /** From 1. */
  line: number;
  /** Put there by banger. */
  ours: boolean;
  /** Counts for every host; not so inside a `Host` or `Match` block. */
  effective: boolean;
};

/** Keyword and the rest, as ssh_config(5) has them. */
const setting = (line: string): [keyword: string, rest: string] | undefined => {
  const [, keyword, rest = ""] = /^\s*([a-z]+)(?:\s*=\s*|\s+)(.*?)\s*$/i.exec(line) ?? [];
  return keyword === undefined ? undefined : [keyword.toLowerCase(), rest];
};

const unquoted = (rest: string): string[] =>
  [...rest.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare ?? "");

const sameFile = (word: string, target: string): boolean => {
  const path = word.startsWith("~/") ? join(homedir(), word.slice(2)) : word;
  return (isAbsolute(path) ? path : join(homedir(), ".ssh", path)) === target;
};

/** The file's bytes as one character each: what is not ours goes through untouched. */
const toText = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");
const toBytes = (text: string): Buffer => Buffer.from(text, "latin1");
const linesOf = (text: string): string[] => text.split(/(?<=\n)/);

/** Every Include of `target`, the first one first. */
export const findIncludes = (bytes: Uint8Array, target: string): Included[] => {
  const wanted = toText(Buffer.from(target));
  const found: Included[] = [];
  let everyHost = true;
  const lines = linesOf(toText(bytes));
  for (const [index, line] of lines.entries()) {
    const [keyword, rest = ""] = setting(line) ?? [];
    if (keyword === "host") everyHost = unquoted(rest).join(" ") === "*";
    if (keyword === "match") everyHost = rest.toLowerCase() === "all";
    if (keyword === "include" && unquoted(rest).some((word) => sameFile(word, wanted)))
      found.push({ line: index + 1, ours: MARKED.test(lines[index - 1] ?? ""), effective: everyHost });
  }
  return found;
};

/** The file without what banger put there. */
export const withoutInclude = (bytes: Uint8Array): Buffer => {
  const lines = linesOf(toText(bytes));
  const kept = lines.filter((line, index) => {
    const followsMark = index > 0 && MARKED.test(lines[index - 1] ?? "") && OURS.test(line);
    return !MARKED.test(line) && !followsMark;
  });
  return toBytes(kept.join(""));
};

/** The file with banger's Include where it counts; the same bytes where that is so already. */
export const withInclude = (bytes: Uint8Array, target: string): Buffer => {
  if (findIncludes(bytes, target).some(({ effective }) => effective)) return Buffer.from(bytes);
  const rest = withoutInclude(bytes);
  const end = /^[^\n]*\r\n/.test(toText(rest)) ? "\r\n" : "\n";
  return Buffer.concat([Buffer.from(`${MARK}${end}Include "${target}"${end}`), rest]);
};

export type UserConfig = {
  /** As the user names it. */
  path: string;
  /** What it leads to, links followed. */
  target: string;
  bytes: Buffer;
  /** Undefined: there is no such file. */
  stats: Stats | undefined;
};

const refuse = (path: string, why: string, line: string): BangerError =>
  new BangerError("FILE_REFUSED", `${path} ${why}`, {
    hint: `add this line at its top by hand: ${line}`,
    details: { path },
  });

export const includeLine = (target: string): string => `Include "${target}"`;

/**
 * Reads the user's ssh config.
 * @throws FILE_REFUSED when it is not a file that can be read
 */
export const readUserConfig = async (path: string, includes: string): Promise<UserConfig> => {
  try {
    const target = await realpath(path);
    const stats = await stat(target);
    if (!stats.isFile()) throw refuse(path, "is not a file", includeLine(includes));
    return { path, target, bytes: await readFile(target), stats };
  } catch (error) {
    const code = errnoOf(error);
    if (code === "ELOOP") throw refuse(path, "is a link that leads in a circle", includeLine(includes));
    if (code === "EACCES") throw refuse(path, "cannot be read", includeLine(includes));
    if (code !== "ENOENT") throw error;
    const link = await lstat(path).catch(() => undefined);
    if (link?.isSymbolicLink()) throw refuse(path, "is a link that leads nowhere", includeLine(includes));
    return { path, target: path, bytes: Buffer.alloc(0), stats: undefined };
  }
};

/**
 * Writes it back by one rename, through a link of the user's where it is one, with the mode and owner that it had.
 * @throws FILE_REFUSED when that would change more than its content
 */
export const writeUserConfig = async (config: UserConfig, bytes: Buffer, includes: string): Promise<void> => {
  const { path, target, stats } = config;
  const by = path === target ? path : `${path} leads to ${target}, which`;
  if (!stats) return await createUserConfig(target, bytes);
  if (stats.uid !== process.getuid?.()) throw refuse(by, `belongs to user ${stats.uid}`, includeLine(includes));
  if (stats.nlink > 1)
    throw refuse(by, "has several names (hard links), which a change would part", includeLine(includes));
  try {
    // The folder of what a link leads to may be a package store, or a checkout that is not to be written.
    await access(dirname(target), constants.W_OK);
    await access(target, constants.W_OK);
    if (await replaceFile(target, bytes, stats)) return;
  } catch (error) {
    if (!["EACCES", "EROFS", "EPERM"].includes(errnoOf(error) ?? "")) throw error;
    throw refuse(by, "cannot be written", includeLine(includes));
  }
  throw new BangerError("FILE_REFUSED", `${path} was changed by another program meanwhile`, {
    hint: "run the command again",
  });
};

const createUserConfig = async (path: string, bytes: Buffer): Promise<void> => {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  // Never over a file that has appeared meanwhile.
  await using file = await open(path, "wx", 0o600);
  await file.writeFile(bytes);
  await file.sync();
};
