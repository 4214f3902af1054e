/** A guest's work under review: its files, what each may do, and what was decided of each part. */
import type { Git } from "../git.ts";
import { zeroed } from "../git.ts";
import type { Listed } from "./listing.ts";
import type { FileChange } from "./patch.ts";
import { badPath, lstatIfThere, placeOf } from "./places.ts";
import { type Conflict, isOnHost, type Operation, type Part, partsOf, planChange } from "./plan-change.ts";
import { type Risk, risks, risksOfContent, risksOfName } from "./risk.ts";

/** Undecided is undefined: it is not applied either. */
export type Verdict = boolean | undefined;

export type Entry = {
  path: string;
  oldMode?: string | undefined;
  newMode?: string | undefined;
  risks: ReadonlySet<Risk>;
  /** Absent until the patch has come to it. */
  change: FileChange | undefined;
  /** What can be decided by itself; empty for what can never be applied. */
  parts: readonly Part[];
  verdicts: Verdict[];
  /** Why it could not be applied. */
  conflict: Conflict | undefined;
};

export type Review = {
  root: string;
  /** By path, in its order. */
  entries(): readonly Entry[];
  /** How many files of the patch the host has already as the VM has made them. */
  onHost(): number;
  /** Shows names before their contents are known. */
  list(listed: readonly Listed[]): void;
  /** Finds out which of them git of the host ignores. */
  lookUpIgnored(): Promise<void>;
  add(change: FileChange): Promise<void>;
  /** The patch has ended: what was listed and is not in it has not changed after all. */
  complete(): Promise<void>;
  isComplete(): boolean;
};

/** @param git of the host, in `root` */
export const newReview = (root: string, git: Git): Review => {
  const byPath = new Map<string, Entry>();
  const ignored = new Set<string>();
  let sorted: Entry[] | undefined;
  let onHost = 0;
  let complete = false;
  const put = (entry: Entry): void => {
    byPath.set(entry.path, entry);
    sorted = undefined;
  };
  const lookUpIgnored = async (): Promise<void> => {
    for (const path of await ignoredOf(root, git, [...byPath.keys()])) {
      ignored.add(path);
      const entry = byPath.get(path);
      if (entry) entry.risks = new Set([...entry.risks, "ignored"]);
    }
  };
  return {
    root,
    onHost: () => onHost,
    isComplete: () => complete,
    entries: () => {
      sorted ??= [...byPath.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
      return sorted;
    },
    list: (listed) => {
      for (const found of listed)
        put({
          ...found,
          risks: risksOfName(found, false),
          change: undefined,
          parts: [],
          verdicts: [],
          conflict: undefined,
        });
    },
    lookUpIgnored,
    add: async (change) => {
      if (await isOnHost(root, change)) {
        onHost += 1;
        if (byPath.delete(change.path)) sorted = undefined;
        return;
      }
      const { path, newMode } = change;
      const oldMode = (change.replaces ?? change).oldMode;
      const found = new Set([...risksOfName({ path, oldMode, newMode }, ignored.has(path)), ...risksOfContent(change)]);
      const parts = partsOf(change);
      put({
        path,
        oldMode,
        newMode,
        risks: found,
        change,
        parts,
        verdicts: parts.map(() => undefined),
        conflict: undefined,
      });
    },
    complete: async () => {
      for (const { path, change } of byPath.values()) if (!change) byPath.delete(path);
      await lookUpIgnored();
      sorted = undefined;
      complete = true;
    },
  };
};

/** Of `paths` those that the host's git ignores. */
const ignoredOf = async (root: string, git: Git, paths: readonly string[]): Promise<string[]> => {
  // git refuses to speak of what lies behind a link.
  const clear = new Map<string, boolean>([["", true]]);
  const isClear = async (folder: string): Promise<boolean> => {
    const known = clear.get(folder);
    if (known !== undefined) return known;
    const found =
      (await isClear(folder.slice(0, Math.max(0, folder.lastIndexOf("/"))))) &&
      ((await lstatIfThere(placeOf(root, folder)))?.isDirectory() ?? true);
    clear.set(folder, found);
    return found;
  };
  const askable: string[] = [];
  for (const path of paths)
    if (badPath(path) === undefined && (await isClear(path.slice(0, Math.max(0, path.lastIndexOf("/"))))))
      askable.push(path);
  if (askable.length === 0) return [];
  // This command of git's knows no literal names; `./` keeps a colon at the start from meaning something.
  const { stdout } = await git(["check-ignore", "--no-index", "--stdin", "-z"], {
    env: { GIT_LITERAL_PATHSPECS: "0" },
    input: askable.map((path) => `./${path}\0`).join(""),
    okStatus: [0, 1],
  });
  return zeroed(stdout).map((path) => path.slice(2));
};

/** In the order of `risks`. */
export const risksIn = (entry: Entry): Risk[] => risks.filter((risk) => entry.risks.has(risk));

export const accepted = ({ parts, verdicts }: Entry): Part[] => parts.filter((_, index) => verdicts[index]);

/**
 * What the accepted parts of all files come to. Conflicts are noted in their entries.
 * @returns operations, to be applied when there is no conflict
 */
export const planAccepted = async (review: Review): Promise<{ operations: Operation[]; conflicts: Conflict[] }> => {
  const chosen = review.entries().filter((entry) => accepted(entry).length > 0);
  const goes = new Set(chosen.filter(({ newMode }) => newMode === undefined).map(({ path }) => path));
  const operations: Operation[] = [];
  const conflicts: Conflict[] = [];
  for (const entry of chosen) {
    entry.conflict = undefined;
    if (!entry.change) continue;
    const planned = await planChange(review.root, entry.change, accepted(entry), goes);
    if (planned === "there") continue;
    if ("operation" in planned) operations.push(planned.operation);
    else {
      entry.conflict = planned.conflict;
      conflicts.push(planned.conflict);
    }
  }
  return { operations, conflicts };
};

export type Kind = "new" | "gone" | "changed" | "mode" | "retyped";

export const kindOf = ({ oldMode, newMode, change }: Entry): Kind => {
  if (oldMode === undefined) return "new";
  if (newMode === undefined) return "gone";
  if (change?.replaces) return "retyped";
  return change && change.hunks.length === 0 && !change.binary ? "mode" : "changed";
};

/** Lines that come and go. */
export const countsOf = ({ change }: Entry): { added: number; removed: number } => {
  const counts = { added: 0, removed: 0 };
  for (const { hunks } of [change, change?.replaces].filter((part) => part !== undefined))
    for (const { lines } of hunks)
      for (const line of lines) {
        if (line.startsWith("+")) counts.added += 1;
        if (line.startsWith("-")) counts.removed += 1;
      }
  return counts;
};
