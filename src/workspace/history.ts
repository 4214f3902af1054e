/** The commits that travel, and their objects as one pack. */
import { join } from "node:path";
import { zeroed } from "./git.ts";
import type { State } from "./state.ts";

/** How many generations of commits a shallow history has. */
export const SHALLOW_DEPTH = 10;

export type History = {
  /** Commits that the guest must take for the first ones. */
  shallow: string[];
  /** Path of the pack without its ending (`.pack`, `.idx`); undefined where the guest has everything. */
  pack: string | undefined;
};

/** What the guest has of an earlier time. */
export type Had = { commits: string[]; shallow: string[] };

/**
 * @param depth generations of commits; undefined: all
 * @param folder of ours; the pack is written there
 */
export const packHistory = async (
  state: State,
  { depth, had }: { depth: number | undefined; had: Had | undefined },
  folder: string,
): Promise<History> => {
  const { repository, commit, base, env } = state;
  const { git } = repository;
  const hasIt = commit === undefined || (had?.commits.includes(commit) && depth !== undefined);
  const [edge, staged, known] = await Promise.all([
    // The guest has it with its history.
    hasIt ? [] : edgeOf(state, commit, depth, had?.shallow ?? []),
    stagedObjects(state),
    commitsHere(state, had?.commits ?? []),
  ]);
  const shallow = [...new Set([...edge, ...(had?.shallow ?? [])])];
  const input = [
    ...shallow.map((oid) => `--shallow ${oid}`),
    base,
    ...(commit === undefined ? [] : [commit]),
    ...staged,
    ...known.map((oid) => `^${oid}`),
  ].join("\n");
  const args = [
    "pack-objects",
    "--revs",
    "--shallow",
    "--delta-base-offset",
    "--non-empty",
    "--quiet",
    // Deltas that are there are used; to look for more of them takes longer than to send what they would save.
    "--window=0",
    // What a partial clone has not is not fetched for this: a sparse checkout does not need it.
    ...(repository.promisor === undefined ? [] : ["--missing=allow-promisor"]),
    join(folder, "pack"),
  ];
  const { stdout } = await git(["-c", "pack.packSizeLimit=0", "-c", "pack.writeReverseIndex=false", ...args], {
    env,
    input: `${input}\n`,
  });
  const name = stdout.toString("utf8").trim();
  return { shallow, pack: name === "" ? undefined : join(folder, `pack-${name}`) };
};

/** The oldest commits of the last `depth` generations, and those that were the oldest before. */
const edgeOf = async (
  { repository, env }: State,
  commit: string,
  depth: number | undefined,
  before: string[],
): Promise<string[]> => {
  const ends = new Set([...repository.shallow, ...before]);
  if (depth === undefined) return [...repository.shallow];
  const edge = new Set<string>();
  const seen = new Set([commit]);
  let generation = [commit];
  for (let left = depth; generation.length > 0; left--) {
    const { stdout } = await repository.git(["rev-list", "--no-walk=unsorted", "--parents", "--stdin"], {
      env,
      input: `${generation.join("\n")}\n`,
    });
    const next: string[] = [];
    for (const line of stdout.toString("utf8").split("\n").filter(Boolean)) {
      const [oid = "", ...parents] = line.split(" ");
      if (ends.has(oid)) edge.add(oid);
      else if (left <= 1 && parents.length > 0) edge.add(oid);
      else for (const parent of parents) if (!seen.has(parent)) next.push(parent);
    }
    for (const oid of next) seen.add(oid);
    generation = [...new Set(next)];
  }
  return [...edge];
};

/** Of those commits the ones that the host has. */
const commitsHere = async ({ repository, env }: State, oids: readonly string[]): Promise<string[]> => {
  if (oids.length === 0) return [];
  const input = oids.map((oid) => `${oid}\n`).join("");
  const { stdout } = await repository.git(["cat-file", "--batch-check=%(objectname) %(objecttype)"], { env, input });
  return stdout.toString("latin1").match(/^[0-9a-f]+(?= commit$)/gm) ?? [];
};

/** Objects that only the index has: staged contents that the working tree has moved on from. */
const stagedObjects = async ({ repository, base, indexFile, env, worktree }: State): Promise<string[]> => {
  if (!worktree) return [];
  const own = { env: { ...env, GIT_INDEX_FILE: indexFile } };
  const [{ stdout }, unmerged] = await Promise.all([
    repository.git(["diff-index", "--cached", "--raw", "--no-renames", "--no-abbrev", "-z", base], own),
    repository.git(["ls-files", "--unmerged", "-z"], own),
  ]);
  const oids = [
    ...zeroed(stdout).flatMap((line) => {
      const [, mode, oid] = /^:\d+ (\d+) [0-9a-f]+ ([0-9a-f]+) /.exec(line) ?? [];
      return oid === undefined || /^0+$/.test(oid) || mode === "160000" ? [] : [oid];
    }),
    ...zeroed(unmerged.stdout).flatMap((line) => /^\d+ ([0-9a-f]+) /.exec(line)?.[1] ?? []),
  ];
  if (oids.length === 0) return [];
  // What was announced by `git add --intent-to-add` need not be there.
  const checked = await repository.git(["cat-file", "--batch-check=%(objectname) %(objecttype)"], {
    env,
    input: `${[...new Set(oids)].join("\n")}\n`,
  });
  return checked.stdout
    .toString("utf8")
    .split("\n")
    .flatMap((line) => /^([0-9a-f]+) blob$/.exec(line)?.[1] ?? []);
};
