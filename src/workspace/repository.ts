/** The repository that is to be brought in, as it stands on the host. */
import { realpath, stat } from "node:fs/promises";
import { basename, relative, resolve } from "node:path";
import { BangerError, errnoOf } from "../contract/errors.ts";
import { exists, readFileIfThere } from "../host/files.ts";
import { type Git, type GitResult, gitIn, type Setting, zeroed } from "./git.ts";

export type Repository = {
  /** The root of its working tree, absolute. */
  root: string;
  /** The name of that folder: how it is called in the guest. */
  name: string;
  /** Where in it the user's path led; empty at its root. */
  below: string;
  git: Git;
  /** Ends whatever that git does. */
  signal: AbortSignal | undefined;
  /** Its own git folder (of a linked worktree: the worktree's), absolute. */
  gitFolder: string;
  /** In that folder, or where the linked worktrees share it. */
  files: { index: string; objects: string; sparseCheckout: string };
  /** What HEAD is; undefined before the first commit. */
  head: string | undefined;
  /** `main`; undefined when HEAD is detached. */
  branch: string | undefined;
  /** `sha1` or `sha256`. */
  objectFormat: string;
  /** Commits whose parents are not here either. */
  shallow: string[];
  /** All of git's settings there, the user's too; the last of a name holds. */
  settings: readonly Setting[];
  /** The remote that has what a partial clone lacks; undefined where nothing is lacking. */
  promisor: string | undefined;
  /** What git is in the middle of: `a merge`. */
  during: string | undefined;
};

const refuse = (message: string, hint: string, cause?: unknown): BangerError =>
  new BangerError("WORKSPACE_REFUSED", message, { hint, cause });

/**
 * @param path a folder in a working tree
 * @param signal ends whatever its git does, as long as it is used
 * @throws WORKSPACE_REFUSED for what is missing, no working tree, or bare
 */
export const openRepository = async (path: string, signal?: AbortSignal): Promise<Repository> => {
  const folder = await folderAt(path);
  const { root, objectFormat, gitFolder } = await locate(path, folder, gitIn(folder, { signal }));
  const outside = gitIn(root, { signal });
  const names = ["shallow", "index", "objects", "info/sparse-checkout"];
  const [own, paths, settings] = await Promise.all([
    outside(["rev-parse", "--absolute-git-dir"], { okStatus: [0, 128] }).then(lineOf),
    outside(["rev-parse", ...names.flatMap((name) => ["--git-path", name])], { okStatus: [0, 128] }).then(lineOf),
    settingsOf(outside),
  ]);
  // A setting can make any folder the working tree of a repository that somebody sends.
  if (own !== gitFolder)
    throw refuse(
      `${path} keeps its files somewhere else: core.worktree is ${root}`,
      "take that setting out (git config --unset core.worktree), or give another clone",
    );
  const git = gitIn(root, { signal, settings: withoutFilters(settings) });
  const [shallowFile = "", index = "", objects = "", sparseCheckout = "", ...rest] = paths
    .split("\n")
    .map((name) => resolve(root, name));
  if (rest.length > 0)
    throw refuse(`${gitFolder} has a line break in its name`, "move the repository to another folder");
  const [head, branch, shallow, during] = await Promise.all([
    git.ask(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]),
    git.ask(["symbolic-ref", "--quiet", "--short", "HEAD"]),
    readFileIfThere(shallowFile),
    duringOf(gitFolder),
  ]);
  return {
    root,
    name: basename(root) || "root",
    below: relative(root, folder),
    git,
    signal,
    gitFolder,
    files: { index, objects, sparseCheckout },
    head,
    branch,
    objectFormat,
    shallow: shallow?.split("\n").filter((line) => line !== "") ?? [],
    settings,
    promisor: settings.findLast(([key, value]) => PROMISOR.test(key) && isTrue(value))?.[0].replace(PROMISOR, "$1"),
    during,
  };
};

/** Output that is one line, whatever bytes of a line break it holds itself. */
const lineOf = ({ stdout }: GitResult): string => stdout.toString("utf8").replace(/\n$/, "");

export const isTrue = (value: string | undefined): boolean => /^(?:true|yes|on|1)$/i.test(value ?? "");
const PROMISOR = /^remote\.(.*)\.promisor$/s;

/** Where its working tree and its git folder are, as git says it there. */
const locate = async (path: string, folder: string, git: Git) => {
  const [facts, gitFolder, root] = await Promise.all([
    git(["rev-parse", "--is-bare-repository", "--is-inside-work-tree", "--show-object-format"]).catch(
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
    ),
    git(["rev-parse", "--absolute-git-dir"], { okStatus: [0, 128] }).then(lineOf),
    git(["rev-parse", "--show-toplevel"], { okStatus: [0, 128] }).then(lineOf),
  ]);
  const [bare, inside, objectFormat = "sha1"] = facts.stdout.toString("utf8").split("\n");
  if (bare === "true")
    throw refuse(`${path} is a bare repository: it has no files to bring in`, "give a clone of it: git clone");
  if (inside !== "true")
    throw refuse(`${path} lies in a git folder`, "give the folder that the repository's files are in");
  return { objectFormat, gitFolder, root };
};

const settingsOf = async (git: Git): Promise<Setting[]> => {
  const { stdout } = await git(["config", "--list", "-z", "--includes"], { okStatus: [0, 1] });
  return zeroed(stdout).map((line): Setting => {
    const end = line.indexOf("\n");
    return end < 0 ? [line, "true"] : [line.slice(0, end), line.slice(end + 1)];
  });
};

/** A filter is a program of whoever wrote the settings; without it contents travel as they are in the working tree. */
const withoutFilters = (settings: readonly Setting[]): Setting[] => {
  const names = new Set(settings.flatMap(([key]) => /^filter\.(.*)\.[a-z]+$/s.exec(key)?.[1] ?? []));
  return [...names].flatMap((name): Setting[] => [
    [`filter.${name}.clean`, ""],
    [`filter.${name}.process`, ""],
    [`filter.${name}.required`, "false"],
  ]);
};

/** What git is in the middle of, by the files that it keeps of it. */
const duringOf = async (gitFolder: string): Promise<string | undefined> => {
  const marks = {
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase or `git am`",
    MERGE_HEAD: "a merge",
    CHERRY_PICK_HEAD: "a cherry-pick",
    REVERT_HEAD: "a revert",
    BISECT_LOG: "a bisect",
  };
  for (const [name, what] of Object.entries(marks)) if (await exists(resolve(gitFolder, name))) return what;
  return undefined;
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
