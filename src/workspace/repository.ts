/** The repository that is to be brought in, as it stands on the host. */
import { realpath, stat } from "node:fs/promises";
import { basename, relative, resolve } from "node:path";
import { BangerError, errnoOf } from "../contract/errors.ts";
import { readFileIfThere } from "../host/files.ts";
import { type Git, gitIn } from "./git.ts";

export type Repository = {
  /** The root of its working tree, absolute. */
  root: string;
  /** The name of that folder: how it is called in the guest. */
  name: string;
  /** Where in it the user's path led; empty at its root. */
  below: string;
  git: Git;
  /** Its own git folder (of a linked worktree: the worktree's), absolute. */
  gitFolder: string;
  /** What HEAD is; undefined before the first commit. */
  head: string | undefined;
  /** `main`; undefined when HEAD is detached. */
  branch: string | undefined;
  /** `sha1` or `sha256`. */
  objectFormat: string;
  /** Commits whose parents are not here either. */
  shallow: string[];
  /** A partial clone: of older commits it has not all that they are made of. */
  partial: boolean;
};

const refuse = (message: string, hint: string, cause?: unknown): BangerError =>
  new BangerError("WORKSPACE_REFUSED", message, { hint, cause });

/**
 * @param path a folder in a working tree
 * @throws WORKSPACE_REFUSED for what is missing, no working tree, or bare
 */
export const openRepository = async (path: string): Promise<Repository> => {
  const folder = await folderAt(path);
  const git = gitIn(folder);
  // Absolute paths by the folder they are asked in: git answers some of them relative to it.
  const facts = await git(["rev-parse", "--is-bare-repository", "--is-inside-work-tree", "--show-object-format"]).catch(
    (error: unknown) => {
      if (!(error instanceof BangerError) || error.code !== "TOOL_FAILED") throw error;
      if (/dubious ownership/.test(error.message))
        throw refuse(
          `${path} belongs to another user, and git does not trust it`,
          `if you do: git config --global --add safe.directory ${folder}`,
          error,
        );
      throw refuse(
        `${path} is not in a git repository`,
        `to bring in a plain folder: banger vm cp ${path} VM:/root/`,
        error,
      );
    },
  );
  const [bare, inside, objectFormat = "sha1"] = facts.stdout.toString("utf8").split("\n");
  if (bare === "true")
    throw refuse(`${path} is a bare repository: it has no files to bring in`, "give a clone of it: git clone");
  if (inside !== "true")
    throw refuse(`${path} lies in a git folder`, "give the folder that the repository's files are in");
  const root = (await git(["rev-parse", "--show-toplevel"])).stdout.toString("utf8").replace(/\n$/, "");
  const top = gitIn(root);
  const [gitFolder = "", shallowFile = ""] = (await top(["rev-parse", "--git-dir", "--git-path", "shallow"])).stdout
    .toString("utf8")
    .split("\n");
  const [head, branch, shallow, promisor] = await Promise.all([
    top.ask(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]),
    top.ask(["symbolic-ref", "--quiet", "--short", "HEAD"]),
    readFileIfThere(resolve(root, shallowFile)),
    top.ask(["config", "--get-regexp", String.raw`^remote\..*\.promisor$`, "true"]),
  ]);
  return {
    root,
    name: basename(root) || "root",
    below: relative(root, folder),
    git: top,
    gitFolder: resolve(root, gitFolder),
    head,
    branch,
    objectFormat,
    shallow: shallow?.split("\n").filter((line) => line !== "") ?? [],
    partial: promisor !== undefined,
  };
};

const folderAt = async (path: string): Promise<string> => {
  try {
    const folder = await realpath(path);
    if ((await stat(folder)).isDirectory()) return folder;
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR")
      throw refuse(
        `there is no ${path}`,
        "give a folder of a git repository; to run a command write it after `--`",
        error,
      );
    throw error;
  }
  throw refuse(`${path} is a file`, "give the folder of the repository");
};
