/**
 * What of a repository travels: its tracked files as they are in the working tree, or those of one commit. Found by a copy of the index and
 * an object folder of our own beside the repository's, so that nothing of the repository is written.
 */
import { copyFile, mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { BangerError, errnoOf } from "../contract/errors.ts";
import { exists } from "../host/files.ts";
import { raw, shown, zeroed } from "./git.ts";
import type { Repository } from "./repository.ts";

export type Entry = {
  /** Below the repository's root, one character a byte. */
  path: string;
  /** As git has it: `100644`, `100755`, `120000` or `160000`. */
  mode: string;
  oid: string;
};

export type State = {
  repository: Repository;
  /** The commit that is checked out in the guest; undefined before the first one. */
  commit: string | undefined;
  branch: string | undefined;
  /** A commit of exactly what travels: what changes in the guest are measured against. */
  base: string;
  entries: Entry[];
  /** Repositories in it whose folder has files on the host. */
  submodules: string[];
  /** Files come from the working tree; otherwise from `commit`. */
  worktree: boolean;
  /** The guest's index. */
  indexFile: string;
  /** For git, to see the objects that were made for this. */
  env: Record<string, string>;
};

export type Wanted = {
  /** Name of the branch in the guest. */
  branch?: string | undefined;
  /** What is checked out, in place of the working tree. */
  from?: string | undefined;
  /** Also what git does not know and does not ignore. */
  includeUntracked?: boolean | undefined;
};

/** Who the commit is by that stands for a working tree; the same state gives the same commit. */
const author = {
  GIT_AUTHOR_NAME: "banger",
  GIT_AUTHOR_EMAIL: "banger@localhost",
  GIT_AUTHOR_DATE: "@1 +0000",
  GIT_COMMITTER_NAME: "banger",
  GIT_COMMITTER_EMAIL: "banger@localhost",
  GIT_COMMITTER_DATE: "@1 +0000",
};

/** @param folder empty and ours, gone when the state is not needed any more */
export const readState = async (repository: Repository, wanted: Wanted, folder: string): Promise<State> => {
  await checkBranch(repository, wanted.branch);
  const objects = join(folder, "objects");
  await mkdir(objects, { recursive: true });
  const common = (await repository.git(["rev-parse", "--git-path", "objects"])).stdout
    .toString("utf8")
    .replace(/\n$/, "");
  const env = {
    GIT_OBJECT_DIRECTORY: objects,
    GIT_ALTERNATE_OBJECT_DIRECTORIES: quotedPath(resolve(repository.root, common)),
  };
  return wanted.from === undefined
    ? await stateOfWorktree(repository, wanted, folder, env)
    : await stateOfCommit(repository, wanted, wanted.from, folder, env);
};

/** The list of object folders is split at colons; a path in quotes is not. */
const quotedPath = (path: string): string => `"${path.replace(/["\\]/g, "\\$&")}"`;

const checkBranch = async ({ git }: Repository, branch: string | undefined): Promise<void> => {
  if (branch === undefined) return;
  const { status } = await git(["check-ref-format", "--branch", branch], { okStatus: [0, 1, 128] });
  if (status !== 0 || branch.startsWith("-") || branch === "HEAD")
    throw new BangerError("USAGE", `${JSON.stringify(branch)} is not a valid name of a branch`, {
      hint: "see `git check-ref-format --help`",
    });
};

const entriesOf = async ({ git }: Repository, env: Record<string, string>): Promise<Entry[]> => {
  const { stdout } = await git(["ls-files", "--stage", "-t", "-z"], { env });
  return zeroed(stdout).flatMap((line) => {
    const [, tag, mode = "", oid = "", path = ""] = /^(\S) (\d+) ([0-9a-f]+) \d\t(.*)$/s.exec(line) ?? [];
    // S: left out of the working tree by a sparse checkout.
    return tag === "S" || path === "" ? [] : [{ path, mode, oid }];
  });
};

const stateOfWorktree = async (
  repository: Repository,
  { branch, includeUntracked }: Wanted,
  folder: string,
  objects: Record<string, string>,
): Promise<State> => {
  const { git, root, head } = repository;
  const indexFile = join(folder, "index");
  const stateIndex = join(folder, "state-index");
  const original = (await git(["rev-parse", "--git-path", "index"])).stdout.toString("utf8").replace(/\n$/, "");
  await copyFile(resolve(root, original), indexFile).catch(async (error: unknown) => {
    // Nothing was added yet.
    if (errnoOf(error) !== "ENOENT") throw error;
    await git(["read-tree", "--empty"], { env: { ...objects, GIT_INDEX_FILE: indexFile } });
  });
  // One file in a form that every git reads: not split over several, not sparse.
  const whole = [
    "-c",
    "index.sparse=false",
    "-c",
    "index.skipHash=false",
    "update-index",
    "--no-split-index",
    "--no-untracked-cache",
    "--force-write-index",
  ];
  await git(whole, { env: { ...objects, GIT_INDEX_FILE: indexFile } });
  const env = { ...objects, GIT_INDEX_FILE: stateIndex };
  await copyFile(indexFile, stateIndex);
  await git(["-c", "core.safecrlf=false", "add", "--update"], { env });
  if (includeUntracked) {
    const untracked = zeroed((await git(["ls-files", "--others", "--exclude-standard", "-z"], { env })).stdout);
    // A name that ends with a slash is a repository of its own.
    const files = untracked.filter((path) => !path.endsWith("/"));
    if (files.length > 0)
      await git(["-c", "core.safecrlf=false", "add", "--pathspec-from-file=-", "--pathspec-file-nul"], {
        env,
        input: files.join("\0"),
      });
  }
  const base = await baseOf(repository, head, env);
  const entries = await entriesOf(repository, env);
  return {
    repository,
    commit: head,
    branch: branch ?? repository.branch,
    base,
    entries,
    submodules: await submodulesOf(repository, entries),
    worktree: true,
    indexFile,
    env: objects,
  };
};

/** A commit of what the index at `env` holds: `head` itself where that is the same. */
const baseOf = async ({ git }: Repository, head: string | undefined, env: Record<string, string>): Promise<string> => {
  const line = (bytes: Buffer) => bytes.toString("utf8").trim();
  const tree = line((await git(["write-tree"], { env })).stdout);
  if (head !== undefined && (await git.ask(["rev-parse", `${head}^{tree}`], env)) === tree) return head;
  const parent = head === undefined ? [] : ["-p", head];
  const message = "The working tree as banger brought it in";
  return line(
    (
      await git(["-c", "commit.gpgSign=false", "commit-tree", tree, ...parent, "-m", message], {
        env: { ...env, ...author },
      })
    ).stdout,
  );
};

/** Submodules whose repository is there, by their path. One whose name is no text is left out: no program could be told of it. */
const submodulesOf = async (repository: Repository, entries: readonly Entry[]): Promise<string[]> => {
  const links = entries.filter(({ mode }) => mode === "160000");
  const there = await Promise.all(
    links.map(
      async ({ path }) => raw(shown(path)) === path && (await exists(join(repository.root, shown(path), ".git"))),
    ),
  );
  return links.filter((_, index) => there[index]).map(({ path }) => path);
};

const stateOfCommit = async (
  repository: Repository,
  { branch, includeUntracked }: Wanted,
  from: string,
  folder: string,
  objects: Record<string, string>,
): Promise<State> => {
  const { git } = repository;
  if (includeUntracked)
    throw new BangerError("USAGE", "--from and --include-untracked contradict each other", {
      hint: "a commit has no untracked files",
    });
  const commit = from.startsWith("-")
    ? undefined
    : await git.ask(["rev-parse", "--verify", "--quiet", `${from}^{commit}`]);
  if (commit === undefined)
    throw new BangerError("WORKSPACE_REFUSED", `there is no commit ${JSON.stringify(from)} in ${repository.root}`, {
      hint: "see them with `git branch --all` and `git log`",
    });
  const named = await git.ask(["rev-parse", "--verify", "--quiet", `refs/heads/${from}`]);
  const indexFile = join(folder, "index");
  const env = { ...objects, GIT_INDEX_FILE: indexFile };
  await git(["read-tree", commit], { env });
  return {
    repository,
    commit,
    branch: branch ?? (named === commit ? from : undefined),
    base: commit,
    entries: await entriesOf(repository, env),
    submodules: [],
    worktree: false,
    indexFile,
    env: objects,
  };
};
