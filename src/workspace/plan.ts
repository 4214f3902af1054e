/** A repository and its submodules, read once, and the stream that brings a guest from what it has to that. */
import { createHash } from "node:crypto";
import { mkdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { BangerError } from "../contract/errors.ts";
import { throwIfAborted } from "../contract/progress.ts";
import { committedFiles, diskFile, endOfArchive, folder as folderEntry, smallFile, worktreeFiles } from "./archive.ts";
import { raw, shown } from "./git.ts";
import { gitFiles } from "./guest-git.ts";
import { type History, packHistory, SHALLOW_DEPTH } from "./history.ts";
import { below, type Manifest, manifestOf, type WorkspaceMode } from "./manifest.ts";
import { openRepository, type Repository } from "./repository.ts";
import { readState, type State, type Wanted } from "./state.ts";

export type WorkspacePlan = {
  repository: Repository;
  mode: WorkspaceMode;
  /** By folder below the root; the root's is ``. */
  states: ReadonlyMap<string, State>;
  /** Every file that travels, sorted, one character a byte. */
  paths: string[];
  /** What the user should know. */
  notes: string[];
};

/**
 * @param path a folder of the repository
 * @param folder empty and ours; must be there as long as the plan is used
 * @param onRepository is told which it is before it is read, which takes longer
 * @throws WORKSPACE_REFUSED
 */
export const planWorkspace = async (
  path: string,
  wanted: Wanted & { mode: WorkspaceMode },
  folder: string,
  signal: AbortSignal,
  onRepository: (repository: Repository) => void = () => undefined,
): Promise<WorkspacePlan> => {
  const repository = await openRepository(path, signal);
  onRepository(repository);
  const states = new Map<string, State>();
  const notes: string[] = [];
  const visit = async (at: string, found: Repository, choice: Wanted): Promise<void> => {
    throwIfAborted(signal);
    const own = join(folder, String(states.size));
    await mkdir(own, { recursive: true });
    const state = await readState(found, choice, own);
    states.set(at, state);
    notes.push(...state.notes);
    if (found.promisor !== undefined && wanted.mode !== "files")
      notes.push(`${found.root} is a partial clone: of its history the last commit comes along`);
    if (found.during !== undefined && state.worktree)
      notes.push(
        `${found.root} is in the middle of ${found.during}: its files come along as they are, the rest of it stays on the host`,
      );
    const links = state.entries.filter(({ mode }) => mode === "160000").map(({ path: link }) => link);
    const there = new Set(state.submodules);
    const missing = links.filter((link) => !there.has(link));
    if (missing.length > 0)
      notes.push(
        `${missing.length === 1 ? `submodule ${shown(missing[0] ?? "")} stays` : `${missing.length} submodules stay`} empty: not initialised on the host${state.worktree ? "" : ", or not brought with a commit"}`,
      );
    for (const link of state.submodules.filter((path) => links.includes(path)))
      await visit(below(at, link), await openRepository(join(found.root, shown(link)), signal), {
        includeUntracked: choice.includeUntracked,
      });
  };
  await visit("", repository, wanted);
  const paths = [...states].flatMap(([at, { entries }]) =>
    entries.filter(({ mode }) => mode !== "160000").map((entry) => below(at, entry.path)),
  );
  const inside = raw(repository.below);
  if (inside !== "" && !paths.some((name) => name.startsWith(`${inside}/`)))
    throw new BangerError("WORKSPACE_REFUSED", `nothing in ${path} is tracked by the repository ${repository.root}`, {
      hint: `make it a repository of its own (git init), or bring it in as a plain folder: banger vm cp ${path} VM:/root/`,
    });
  return { repository, mode: wanted.mode, states, paths: paths.sort(), notes };
};

export type Difference = {
  /** Paths whose contents go to the guest. */
  changed: string[];
  /** Paths that are gone. */
  removed: string[];
  manifest: Manifest;
  /** About how many bytes the archive has. */
  size: number;
  /** The archive; read once. */
  archive(): AsyncGenerator<Uint8Array>;
};

/** Names alone, which need nothing packed. @param before what the guest has; undefined: nothing */
export const compareWith = ({ states, mode, paths }: WorkspacePlan, before: Manifest | undefined) => {
  const manifest = manifestOf(states, new Map(), mode);
  const has: Readonly<Record<string, string>> = before && !before.arriving ? before.files : {};
  return {
    manifest,
    changed: paths.filter((path) => manifest.files[path] !== has[path]),
    removed: Object.keys(before?.files ?? {}).filter((path) => !Object.hasOwn(manifest.files, path)),
  };
};

/**
 * @param before what the guest has; undefined: nothing
 * @param anew also what the guest may have changed by itself
 */
export const differenceFrom = async (
  plan: WorkspacePlan,
  before: Manifest | undefined,
  folder: string,
  signal: AbortSignal,
  anew = false,
): Promise<Difference> => {
  const { states, mode } = plan;
  const histories = new Map<string, History>();
  if (mode !== "files")
    for (const [at, state] of states) {
      throwIfAborted(signal);
      const had = before && !before.arriving && before.mode === mode ? before.repositories[at] : undefined;
      const target = join(folder, `pack-${histories.size}`);
      await mkdir(target, { recursive: true });
      const depth = state.repository.promisor !== undefined ? 1 : mode === "full" ? undefined : SHALLOW_DEPTH;
      const commits = had ? [had.base, ...(had.commit ? [had.commit] : [])] : [];
      histories.set(at, await packHistory(state, { depth, had: had && { commits, shallow: had.shallow } }, target));
    }
  const { changed, removed, manifest } = compareWith(plan, before);
  /** Repositories whose index the guest has: what it has put there itself stays. */
  const indexed = new Set<string>();
  for (const [at, { shallow }] of histories) {
    const own = manifest.repositories[at];
    const state = states.get(at);
    if (!own || !state) continue;
    own.shallow = shallow;
    own.index = createHash("sha256")
      .update(await readFile(state.indexFile))
      .digest("hex");
    const had = before?.arriving || anew ? undefined : before?.repositories[at];
    if (had && had.index === own.index && had.commit === own.commit && had.branch === own.branch) indexed.add(at);
  }
  // Files of the git folder that are not written anew.
  for (const at of states.keys()) {
    const wasShallow = (before?.repositories[at]?.shallow.length ?? 0) > 0;
    if (wasShallow && histories.get(at)?.shallow.length === 0) removed.push(below(at, ".git/shallow"));
  }
  const going = new Set(changed);
  const size = await sizeOf(plan, going, histories, indexed);
  return { changed, removed, manifest, size, archive: () => archiveOf(plan, going, histories, indexed) };
};

/** A header and what fills its last block, in bytes. */
const PER_FILE = 768;

const sizeOf = async (
  { states }: WorkspacePlan,
  going: ReadonlySet<string>,
  histories: ReadonlyMap<string, History>,
  indexed: ReadonlySet<string>,
): Promise<number> => {
  let size = 0;
  for (const [at, { entries, repository, env, indexFile, baseIndexFile }] of states) {
    const oids = entries.filter(({ path }) => going.has(below(at, path))).map(({ oid }) => oid);
    const checked = await repository.git(["cat-file", "--batch-check=%(objectsize)", "--buffer"], {
      env,
      input: oids.map((oid) => `${oid}\n`).join(""),
    });
    for (const line of checked.stdout.toString("latin1").split("\n")) size += Number.parseInt(line, 10) || 0;
    size += oids.length * PER_FILE;
    const pack = histories.get(at)?.pack;
    const files = [
      ...(histories.has(at) ? [baseIndexFile, ...(indexed.has(at) ? [] : [indexFile])] : []),
      ...(pack === undefined ? [] : [`${pack}.pack`, `${pack}.idx`]),
    ];
    for (const file of files) size += (await stat(file)).size;
  }
  return size;
};

async function* archiveOf(
  { states, repository }: WorkspacePlan,
  changed: ReadonlySet<string>,
  histories: ReadonlyMap<string, History>,
  indexed: ReadonlySet<string>,
): AsyncGenerator<Uint8Array> {
  const now = Math.floor(Date.now() / 1000);
  for (const [at, history] of histories) {
    const state = states.get(at);
    if (!state) continue;
    const git = (name: string) => below(at, `.git/${name}`);
    if (history.pack !== undefined) {
      const name = history.pack.slice(history.pack.lastIndexOf("/") + 1);
      // The pack first: what refers to its objects must not be there before them.
      yield* diskFile(git(`objects/pack/${name}.pack`), `${history.pack}.pack`, 0o444, now);
      yield* diskFile(git(`objects/pack/${name}.idx`), `${history.pack}.idx`, 0o444, now);
      // What this refers to and has not is where the clone came from.
      if (state.repository.promisor !== undefined)
        yield* smallFile(git(`objects/pack/${name}.promisor`), Buffer.alloc(0), 0o444, now);
    }
    for (const { path, data, mode } of await gitFiles(state, history, !indexed.has(at)))
      yield* smallFile(git(path), data, mode, now);
  }
  for (const [at, { entries }] of states)
    for (const { path, mode } of entries) if (mode === "160000") yield* folderEntry(below(at, path), now);
  const root = states.get("");
  if (root && !root.worktree) {
    yield* committedFiles(
      root,
      root.entries.filter(({ path }) => changed.has(path)),
      now,
    );
    yield endOfArchive();
    return;
  }
  yield* worktreeFiles(repository.root, [...changed]);
}
