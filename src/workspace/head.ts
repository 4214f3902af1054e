/** Which commit is checked out, read from git's files: a program would cost every command in a VM more than its start. */
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { readFileIfThere } from "../host/files.ts";
import { errnoOf } from "../contract/errors.ts";

/**
 * @param root of a working tree
 * @returns undefined before the first commit, where there is no repository any more, and where git keeps references in another way than as files
 */
export const headOf = async (root: string): Promise<string | undefined> => {
  const folder = await gitFolderOf(root);
  const head = (await readFileIfThere(join(folder, "HEAD")))?.trim();
  if (head === undefined) return undefined;
  const name = /^ref: (refs\/.*)$/s.exec(head)?.[1];
  if (name === undefined) return oid(head);
  // A linked working tree has its own HEAD and shares the branches.
  const common = resolve(folder, (await readFileIfThere(join(folder, "commondir")))?.trim() ?? ".");
  const loose = (await readFileIfThere(join(common, name)))?.trim();
  if (loose !== undefined) return oid(loose);
  const packed = await readFileIfThere(join(common, "packed-refs"));
  return packed
    ?.split("\n")
    .map((line) => line.split(" "))
    .find(([, of]) => of === name)?.[0];
};

const oid = (text: string): string | undefined => (/^[0-9a-f]{40}(?:[0-9a-f]{24})?$/.test(text) ? text : undefined);

/** `.git`, or where that file says. */
const gitFolderOf = async (root: string): Promise<string> => {
  const path = join(root, ".git");
  try {
    const [, target] = /^gitdir: (.*)$/m.exec(await readFile(path, "utf8")) ?? [];
    return resolve(root, target ?? ".git");
  } catch (error) {
    if (errnoOf(error) === "EISDIR") return path;
    throw error;
  }
};
