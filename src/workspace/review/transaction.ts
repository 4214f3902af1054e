/**
 * Changes of many files of the user's as one: all or none, also when this process is killed in between. Everything new is written beside first, what
 * is replaced is kept until the end, and a journal says how to go back:
 *
 *   banger-review-PID-START-RANDOM/   in the git folder: nothing of a repository's contents can come there
 *     new-N   what comes to the place of operation N        old-N   what stood there
 *     journal.json   before the first change     done   after the last: from here on nothing is undone
 */
import { randomBytes } from "node:crypto";
import type { Stats } from "node:fs";
import { link, lstat, mkdir, open, readdir, rename, rm, rmdir, symlink, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { throwIfAborted } from "../../contract/progress.ts";
import { readFileIfThere } from "../../host/files.ts";
import { processStartTime } from "../../host/proc.ts";
import { badPath, foldersAbove, lstatIfThere, obstacleAbove, placeOf } from "./places.ts";
import type { Operation } from "./plan-change.ts";

type Step = {
  path: string;
  /** Something stood there. */
  had: boolean;
  /** Of what comes there, to know it again. */
  inode?: number;
};
type Journal = { steps: Step[] /** Folders that are made, outermost first. */; made: string[] };

const NAME = /^banger-review-(\d+)-(\d+)-[0-9a-f]{8}$/;
const journalFile = (folder: string) => join(folder, "journal.json");
const newFile = (folder: string, index: number) => Buffer.from(join(folder, `new-${index}`));
const oldFile = (folder: string, index: number) => Buffer.from(join(folder, `old-${index}`));
const doneFile = (folder: string) => join(folder, "done");

/** A working tree. Both absolute. */
export type Tree = { root: string; gitFolder: string };

const readable = (path: string): string => Buffer.from(path, "latin1").toString("utf8");

const moved = (path: string): BangerError =>
  new BangerError(
    "WORKSPACE_CONFLICT",
    `${readable(path)} was changed on the host while the review was applied; nothing was applied`,
    {
      hint: "review it again",
    },
  );

/**
 * @throws WORKSPACE_CONFLICT when something moved meanwhile, CANCELLED, or what the file system says: all is as it was then
 */
export const applyAll = async (tree: Tree, operations: readonly Operation[], signal: AbortSignal): Promise<void> => {
  refuseNested(operations);
  const folder = await makeFolder(tree);
  try {
    const journal = await stage(tree.root, folder, operations);
    await writeFile(`${journalFile(folder)}.tmp`, JSON.stringify(journal));
    await rename(`${journalFile(folder)}.tmp`, journalFile(folder));
    await carryOut(tree.root, folder, operations, journal, signal);
    await writeFile(doneFile(folder), "");
  } catch (error) {
    await undo(tree.root, folder);
    throw error;
  }
  await rm(folder, { recursive: true, force: true });
};

/** A link of the VM's must not become the folder of another of its files. */
const refuseNested = (operations: readonly Operation[]): void => {
  const written = new Set(operations.filter(({ after }) => after).map(({ path }) => path));
  for (const { path, after } of operations)
    if (after && foldersAbove(path).some((above) => written.has(above)))
      throw new BangerError(
        "GUEST_ERROR",
        `the VM's patch makes ${readable(path)} and something else of a folder above it`,
      );
};

const makeFolder = async ({ root, gitFolder }: Tree): Promise<string> => {
  const [ofRoot, ofGit] = await Promise.all([lstat(root), lstat(gitFolder)]);
  if (ofRoot.dev !== ofGit.dev)
    throw new BangerError(
      "WORKSPACE_REFUSED",
      `${root} and its git folder ${gitFolder} are on different file systems`,
      {
        hint: "apply the work as a patch: banger vm workspace export VM | git apply --binary",
      },
    );
  const start = await processStartTime(process.pid);
  const folder = join(gitFolder, `banger-review-${process.pid}-${start}-${randomBytes(4).toString("hex")}`);
  await mkdir(folder, { mode: 0o700 });
  return folder;
};

const stage = async (root: string, folder: string, operations: readonly Operation[]): Promise<Journal> => {
  const steps: Step[] = [];
  const made = new Set<string>();
  for (const [index, { path, before, after }] of operations.entries()) {
    const place = newFile(folder, index);
    if (after && "target" in after) await symlink(after.target, place);
    else if (after) {
      const file = await open(place, "wx", after.exact ? 0o600 : after.mode);
      try {
        await file.writeFile(after.data);
        if (after.exact) await keepOwner(file, before, after.mode);
      } finally {
        await file.close();
      }
    }
    if (after)
      for (const above of foldersAbove(path))
        if (!(await lstatIfThere(placeOf(root, above)))?.isDirectory()) made.add(above);
    steps.push({ path, had: before !== undefined, ...(after ? { inode: (await lstat(place)).ino } : {}) });
  }
  return { steps, made: [...made].sort() };
};

const keepOwner = async (
  file: Awaited<ReturnType<typeof open>>,
  before: Stats | undefined,
  mode: number,
): Promise<void> => {
  if (before && (before.uid !== process.getuid?.() || before.gid !== process.getgid?.()))
    await file.chown(before.uid, before.gid);
  await file.chmod(mode);
};

const carryOut = async (
  root: string,
  folder: string,
  operations: readonly Operation[],
  { made }: Journal,
  signal: AbortSignal,
): Promise<void> => {
  const numbered = [...operations.entries()];
  for (const [index, operation] of numbered.filter(([, { after }]) => !after)) {
    throwIfAborted(signal);
    await keepOld(root, folder, index, operation);
    await unlink(placeOf(root, operation.path)).catch(unless("ENOENT"));
  }
  await removeEmptied(
    root,
    operations.filter(({ after }) => !after),
  );
  for (const path of made) await mkdir(placeOf(root, path)).catch(unless("EEXIST"));
  for (const [index, operation] of numbered.filter(([, { after }]) => after)) {
    throwIfAborted(signal);
    const place = placeOf(root, operation.path);
    if ((await obstacleAbove(root, operation.path)) !== undefined) throw moved(operation.path);
    if (operation.before) {
      await keepOld(root, folder, index, operation);
      await rename(newFile(folder, index), place);
      continue;
    }
    // A link and not a rename: nothing is put over what has come there meanwhile.
    await link(newFile(folder, index), place).catch((error: unknown) => {
      throw errnoOf(error) === "EEXIST" ? moved(operation.path) : error;
    });
  }
};

const unless =
  (...codes: string[]) =>
  (error: unknown): void => {
    if (!codes.includes(errnoOf(error) ?? "")) throw error;
  };

/** Another name of what stands there, which is as it was looked at. */
const keepOld = async (root: string, folder: string, index: number, { path, before }: Operation): Promise<void> => {
  const place = placeOf(root, path);
  const now = (await obstacleAbove(root, path)) === undefined ? await lstatIfThere(place) : undefined;
  if (!now || !before || now.ino !== before.ino || now.mtimeMs !== before.mtimeMs || now.size !== before.size)
    throw moved(path);
  await link(place, oldFile(folder, index)).catch(async (error: unknown) => {
    // A file system without links, or a file of somebody else's.
    unless("EPERM", "ENOTSUP", "EOPNOTSUPP", "EMLINK", "ENOSYS")(error);
    await rename(place, oldFile(folder, index));
    await link(oldFile(folder, index), place).catch(unless("EPERM", "ENOTSUP", "EOPNOTSUPP", "EMLINK", "ENOSYS"));
  });
};

/** As git does: a folder whose last file goes, goes. */
const removeEmptied = async (root: string, removals: readonly Operation[]): Promise<void> => {
  const folders = new Set(removals.flatMap(({ path }) => foldersAbove(path)));
  for (const folder of [...folders].sort((a, b) => b.length - a.length))
    await rmdir(placeOf(root, folder)).catch(unless("ENOTEMPTY", "EEXIST", "ENOENT", "ENOTDIR", "EBUSY"));
};

/** Puts everything back. What somebody has changed since is theirs and stays. @returns paths of those */
const undo = async (root: string, folder: string): Promise<string[]> => {
  const { steps, made } = (await readJournal(folder)) ?? { steps: [], made: [] };
  const foreign: string[] = [];
  const numbered = [...steps.entries()].reverse();
  // What came goes first: it may stand where a folder was, or be a folder where a file was.
  for (const [index, step] of numbered.filter(([, { inode }]) => inode !== undefined))
    if (!(await undoStep(root, folder, index, step))) foreign.push(step.path);
  for (const path of [...made].reverse())
    if (!(await isOutOfReach(root, path)))
      await rmdir(placeOf(root, path)).catch(unless("ENOTEMPTY", "EEXIST", "ENOENT", "ENOTDIR"));
  for (const [index, step] of numbered.filter(([, { inode }]) => inode === undefined))
    if (!(await undoStep(root, folder, index, step))) foreign.push(step.path);
  await rm(folder, { recursive: true, force: true });
  return foreign;
};

/** @returns false where somebody else's stands in the place */
const undoStep = async (root: string, folder: string, index: number, { path, had, inode }: Step): Promise<boolean> => {
  const old = had ? await lstatIfThere(oldFile(folder, index)) : undefined;
  if (await isOutOfReach(root, path)) return old === undefined;
  const place = placeOf(root, path);
  const now = await lstatIfThere(place);
  const ours = now !== undefined && now.ino === inode;
  if (!had) {
    if (ours) await unlink(place);
    return true;
  }
  if (!old || old.ino === now?.ino) return true;
  if (now && !ours) return false;
  for (const above of foldersAbove(path)) await mkdir(placeOf(root, above)).catch(unless("EEXIST"));
  await rename(oldFile(folder, index), place);
  return true;
};

/** The git folder may be somebody else's work, and so may its journal be: nothing is put back outside of the working tree, or through a link. */
const isOutOfReach = async (root: string, path: string): Promise<boolean> =>
  badPath(path) !== undefined || (await obstacleAbove(root, path)) !== undefined;

const isPath = (value: unknown): boolean => typeof value === "string" && !/[^\0-\xff]/.test(value);

const isJournal = (value: unknown): value is Journal => {
  const { steps, made } = (value ?? {}) as Partial<Record<keyof Journal, unknown>>;
  return (
    Array.isArray(made) &&
    made.every(isPath) &&
    Array.isArray(steps) &&
    steps.every((step: Partial<Step> | null) => isPath(step?.path) && typeof step?.had === "boolean")
  );
};

const readJournal = async (folder: string): Promise<Journal | undefined> => {
  const text = await readFileIfThere(journalFile(folder));
  // Killed before its first change.
  if (text === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    if (isJournal(value)) return value;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw new BangerError("WORKSPACE_REFUSED", `${folder} is no record of a review that banger has made`, {
    hint: `look at it, then remove it: rm -r '${folder}'`,
  });
};

/**
 * Undoes what was killed while it applied.
 * @returns whether there was such a thing, and paths that somebody has changed since, which stay
 */
export const recover = async ({ root, gitFolder }: Tree): Promise<{ undone: boolean; foreign: string[] }> => {
  const result = { undone: false, foreign: [] as string[] };
  for (const name of await readdir(gitFolder)) {
    const [, pid, start] = NAME.exec(name) ?? [];
    if (pid === undefined || (await processStartTime(Number(pid))) === start) continue;
    const folder = join(gitFolder, name);
    const isDone = (await lstatIfThere(Buffer.from(doneFile(folder)))) !== undefined;
    result.undone ||= !isDone && (await readJournal(folder)) !== undefined;
    if (isDone) await rm(folder, { recursive: true, force: true });
    else result.foreign.push(...(await undo(root, folder)));
  }
  return result;
};
