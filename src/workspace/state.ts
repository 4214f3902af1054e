/**
 * What of a repository travels: its tracked files as they are in the working tree, or those of one commit. Found by a copy of the index and
 * an object folder of our own beside the repository's, so that nothing of the repository is written.
 */
import { copyFile, mkdir, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { BangerError, errnoOf } from "../contract/errors.ts";
import { exists } from "../host/files.ts";
import { fetchMissing } from "./fetch-missing.ts";
import { raw, shown, zeroed } from "./git.ts";
import { isTrue, type Repository } from "./repository.ts";
import { lstatIfThere, placeOf } from "./review/places.ts";

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
  /** An index of what travels. */
  baseIndexFile: string;
  /** For git, to see the objects that were made for this. */
  env: Record<string, string>;
  /** What the user should know of how it came to be. */
  notes: string[];
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
  const env = {
    GIT_OBJECT_DIRECTORY: objects,
    GIT_ALTERNATE_OBJECT_DIRECTORIES: quotedPath(repository.files.objects),
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

/** A line of the index. `tag` is git's: `S` is left out of the working tree by a sparse checkout, a small letter is never looked at. */
type Line = Entry & { tag: string };

const linesOf = async ({ git }: Repository, env: Record<string, string>): Promise<Line[]> => {
  const { stdout } = await git(["ls-files", "--stage", "-v", "-z"], { env });
  return zeroed(stdout).flatMap((line) => {
    const [, tag = "", mode = "", oid = "", path = ""] = /^(\S) (\d+) ([0-9a-f]+) \d\t(.*)$/s.exec(line) ?? [];
    return path === "" ? [] : [{ tag, path, mode, oid }];
  });
};

const entriesOf = (lines: readonly Line[]): Entry[] =>
  lines.flatMap(({ tag, path, mode, oid }) => (/s/i.test(tag) ? [] : [{ path, mode, oid }]));

/** Hands paths to a git that knows what to do with each. */
const updateIndex = async (
  { git }: Repository,
  env: Record<string, string>,
  how: readonly string[],
  paths: readonly string[],
): Promise<void> => {
  if (paths.length === 0) return;
  await git(["-c", "core.safecrlf=false", "update-index", ...how, "-z", "--stdin"], {
    env,
    input: paths.map((path) => `${path}\0`).join(""),
  });
};

/**
 * Brings the index at `env` to what the working tree holds. Not by `git add --update`: that runs a git of its own in each submodule, with the settings
 * that it finds there.
 */
const takeWorktree = async (repository: Repository, env: Record<string, string>): Promise<void> => {
  const { stdout } = await repository.git(
    ["diff-files", "--raw", "-z", "--no-renames", "--no-abbrev", "--ignore-submodules=dirty"],
    { env },
  );
  const gone = new Set<string>();
  const there = new Set<string>();
  const parts = zeroed(stdout);
  for (let at = 0; at + 1 < parts.length; at += 2)
    // The mode that the working tree has.
    (/^:\d+ 0+ /.test(parts[at] ?? "") ? gone : there).add(parts[at + 1] ?? "");
  await updateIndex(repository, env, ["--force-remove"], [...gone]);
  await updateIndex(repository, env, ["--add", "--replace"], [...there]);
};

/**
 * Files that the user has told git not to look at (`--assume-unchanged`, and `--skip-worktree` without a sparse checkout) are as the working tree has them
 * too: git would say of them what it last knew. The guest's git does not look at them either, unless its work is taken out.
 * @param env leads to the index of what travels, `guest` to the guest's
 * @returns whether there were such
 */
const lookAtAll = async (
  repository: Repository,
  env: Record<string, string>,
  guest: Record<string, string>,
  lines: readonly Line[],
): Promise<boolean> => {
  const assumed = lines.filter(({ tag }) => /[a-z]/.test(tag)).map(({ path }) => path);
  const isSparse = isTrue(repository.settings.findLast(([key]) => key === "core.sparsecheckout")?.[1]);
  const skipped = isSparse ? [] : lines.filter(({ tag }) => /s/i.test(tag)).map(({ path }) => path);
  const there = await Promise.all(
    skipped.map(async (path) => (await lstatIfThere(placeOf(repository.root, path))) !== undefined),
  );
  const kept = skipped.filter((_, index) => there[index]);
  await updateIndex(repository, env, ["--no-assume-unchanged"], assumed);
  await updateIndex(repository, env, ["--no-skip-worktree"], kept);
  // One mark of the two, which an export knows to take away.
  await updateIndex(repository, guest, ["--no-skip-worktree"], kept);
  await updateIndex(repository, guest, ["--assume-unchanged"], kept);
  return assumed.length + kept.length > 0;
};

const stateOfWorktree = async (
  repository: Repository,
  { branch, includeUntracked }: Wanted,
  folder: string,
  objects: Record<string, string>,
): Promise<State> => {
  const { git, head, files } = repository;
  const indexFile = join(folder, "index");
  const stateIndex = join(folder, "state-index");
  await copyIndex(files.index, indexFile).catch(async (error: unknown) => {
    // Nothing was added yet.
    if (errnoOf(error) !== "ENOENT") throw error;
    await git(["read-tree", "--empty"], { env: { ...objects, GIT_INDEX_FILE: indexFile } });
  });
  // One file in a form that every git reads: not split over several, not sparse.
  const whole = ["-c", "index.sparse=false", "-c", "index.skipHash=false"];
  await git([...whole, "update-index", "--no-split-index", "--no-untracked-cache", "--force-write-index"], {
    env: { ...objects, GIT_INDEX_FILE: indexFile },
  });
  const env = { ...objects, GIT_INDEX_FILE: stateIndex };
  await copyFile(indexFile, stateIndex);
  await takeWorktree(repository, env);
  if (includeUntracked) {
    const untracked = zeroed((await git(["ls-files", "--others", "--exclude-standard", "-z"], { env })).stdout);
    // A name that ends with a slash is a repository of its own.
    const found = untracked.filter((path) => !path.endsWith("/"));
    await updateIndex(repository, env, ["--add"], found);
  }
  let lines = await linesOf(repository, env);
  if (await lookAtAll(repository, env, { ...objects, GIT_INDEX_FILE: indexFile }, lines)) {
    await takeWorktree(repository, env);
    lines = await linesOf(repository, env);
  }
  const entries = entriesOf(lines);
  const base = await baseOf(repository, head, env);
  return {
    repository,
    commit: head,
    branch: branch ?? repository.branch,
    base,
    entries,
    submodules: await submodulesOf(repository, entries),
    worktree: true,
    indexFile,
    baseIndexFile: stateIndex,
    env: objects,
    notes: [],
  };
};

/**
 * With its time, which tells git what was written together with it and may have changed since without a trace. Rounded down: what is looked at in vain
 * costs less than what is missed.
 */
const copyIndex = async (from: string, to: string): Promise<void> => {
  const { mtimeMs } = await stat(from);
  await copyFile(from, to);
  await utimes(to, Math.floor(mtimeMs) / 1000, Math.floor(mtimeMs) / 1000);
};

/** A commit of what the index at `env` holds: `head` itself where that is the same. */
const baseOf = async ({ git }: Repository, head: string | undefined, env: Record<string, string>): Promise<string> => {
  const line = (bytes: Buffer) => bytes.toString("utf8").trim();
  const tree = line((await git(["write-tree", "--missing-ok"], { env })).stdout);
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
      hint:
        repository.shallow.length > 0
          ? "see them with `git branch --all` and `git log`; a shallow clone gets more of them by `git fetch --unshallow`"
          : "see them with `git branch --all` and `git log`",
    });
  const fetched = await fetchMissing(repository, commit, folder, objects);
  const named = await git.ask(["rev-parse", "--verify", "--quiet", `refs/heads/${from}`]);
  const indexFile = join(folder, "index");
  const env = { ...objects, GIT_INDEX_FILE: indexFile };
  await git(["read-tree", commit], { env });
  return {
    repository,
    commit,
    branch: branch ?? (named === commit ? from : undefined),
    base: commit,
    entries: entriesOf(await linesOf(repository, env)),
    submodules: [],
    worktree: false,
    indexFile,
    baseIndexFile: indexFile,
    env: objects,
    notes:
      fetched === 0 ? [] : [`${fetched} objects that this partial clone lacked were fetched from where it came from`],
  };
};
