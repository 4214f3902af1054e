/** Brings a repository into a VM that runs: all of it, or what has changed since the last time. */
import { BangerError } from "../../contract/errors.ts";
import type { Progress } from "../../contract/progress.ts";
import type { Client } from "../../client/client.ts";
import type { Manifest } from "../../workspace/manifest.ts";
import { compareWith, type Difference, differenceFrom, type WorkspacePlan } from "../../workspace/plan.ts";
import { type GuestFiles, guestFiles } from "../copy/guest-files.ts";
import { byteMeter } from "../copy/meter.ts";
import { changesInGuest } from "./guest-changes.ts";
import { type GuestProgram, guestProgram } from "./guest.ts";
import { readRecord, writeArriving, writeRecord } from "./record.ts";

export type Brought = {
  path: string;
  /** Nothing of banger's was there before. */
  isNew: boolean;
  changed: number;
  removed: number;
  bytes: number;
};

export type BringOptions = {
  /** A folder of ours that is gone afterwards. */
  staging: string;
  /** Also over what was changed in the guest. */
  force: boolean;
  readonly: boolean;
  /** What the guest has, where it has been asked already. */
  record?: Promise<Manifest | undefined> | undefined;
};

export const workspacePath = ({ repository }: WorkspacePlan): string => `/root/${repository.name}`;

/**
 * @param vm runs
 * @throws WORKSPACE_CONFLICT when the guest has something of its own in the place
 */
export const bringIn = async (
  client: Client,
  vm: string,
  plan: WorkspacePlan,
  options: BringOptions,
  progress: Progress,
): Promise<Brought> => {
  const files = guestFiles(client, vm, progress.signal);
  const program = guestProgram(client, vm, progress.signal);
  const { repository } = plan;
  const path = workspacePath(plan);
  progress.report({ stage: "workspace", message: `reading ${repository.root}` });
  const before = await (options.record ?? readRecord(files, repository.name));
  if (before === undefined) await refuseForeign(files, path);
  else if (!options.force) await refuseOther(plan, path, before);
  const compared = compareWith(plan, before);
  // The guest is looked at while the host packs.
  const [packing, looking] = await Promise.allSettled([
    differenceFrom(plan, before, options.staging, progress.signal, options.force),
    before && !before.arriving && !options.force ? refuseOverwriting(files, path, before, compared) : undefined,
  ]);
  for (const result of [looking, packing]) if (result.status === "rejected") throw result.reason;
  const difference = (packing as PromiseFulfilledResult<Difference>).value;
  const { changed, removed } = difference;
  const manifest = { ...difference.manifest, source: repository.root, readonly: options.readonly };
  if (before && before.readonly !== false)
    await program(["sh", "-c", 'while umount "$1" 2>/dev/null; do :; done', "sh", path]);

  await writeArriving(files, repository.name, before, manifest, changed);
  if (removed.length > 0) await remove(program, path, removed);
  const archive = byteMeter(
    (event) => progress.report({ ...event, stage: "workspace" }),
    repository.name,
    difference.size,
  );
  await files.send({ op: "tar_in", path, uid: 0, gid: 0 }, archive.count(difference.archive()));
  await writeRecord(files, repository.name, manifest);
  if (options.readonly) await makeReadOnly(program, path);
  const { commit } = plan.states.get("") ?? {};
  const workspace = {
    path,
    repository: repository.root,
    ...(commit === undefined ? {} : { commit }),
    ...(repository.head === undefined ? {} : { head: repository.head }),
  };
  await client.operation("vmSet", { vm }, { workspace });
  return {
    path,
    isNew: before === undefined,
    changed: changed.length,
    removed: removed.length,
    bytes: difference.size,
  };
};

const refuseForeign = async (files: GuestFiles, path: string): Promise<void> => {
  if (!(await files.stat(path, false))) return;
  throw new BangerError("WORKSPACE_CONFLICT", `there is a ${path} in the guest that banger has not brought`, {
    hint: `move it away first: banger vm exec VM -- mv ${path} ${path}.old`,
  });
};

/** Another repository whose folder has the same name. One that was moved, and another clone of it, know the commit that the guest has. */
const refuseOther = async ({ repository }: WorkspacePlan, path: string, before: Manifest): Promise<void> => {
  const { source } = before;
  const commit = before.repositories[""]?.commit;
  if (source === undefined || source === repository.root) return;
  if (commit !== undefined && (await repository.git.ask(["cat-file", "-t", commit])) === "commit") return;
  throw new BangerError("WORKSPACE_CONFLICT", `${path} in the guest is of another repository: ${source}`, {
    hint: "give the folder another name, or bring it over that one with --force",
  });
};

const refuseOverwriting = async (
  files: GuestFiles,
  path: string,
  before: Manifest,
  { changed, removed, manifest }: { changed: string[]; removed: string[]; manifest: Manifest },
): Promise<void> => {
  const changes = await changesInGuest(files, path, before, manifest, [...changed, ...removed]);
  if (changes.length === 0) return;
  const listed = changes.slice(0, 10).join(", ");
  const more = changes.length > 10 ? ` and ${changes.length - 10} more` : "";
  throw new BangerError("WORKSPACE_CONFLICT", `the guest has changed what would be overwritten: ${listed}${more}`, {
    hint: "take its work out first (banger vm workspace export), or overwrite it with --force",
    details: { changes },
  });
};

/** Files that are gone, then the folders that this leaves empty. */
const remove = async (program: GuestProgram, path: string, removed: readonly string[]): Promise<void> => {
  const list = (names: Iterable<string>) => Buffer.from([...names].map((name) => `./${name}\0`).join(""), "latin1");
  await program(["sh", "-c", 'cd "$1" && exec xargs -0 rm -f --', "sh", path], { input: list(removed) });
  const folders = new Set<string>();
  for (const name of removed)
    for (let at = name.lastIndexOf("/"); at > 0; at = name.lastIndexOf("/", at - 1)) folders.add(name.slice(0, at));
  if (folders.size === 0) return;
  const deepest = [...folders].sort((a, b) => b.length - a.length);
  // One that holds something stays.
  await program(["sh", "-c", 'cd "$1" && { xargs -0 rmdir -- 2>/dev/null || :; }', "sh", path], {
    input: list(deepest),
  });
};

const makeReadOnly = async (program: GuestProgram, path: string): Promise<void> => {
  await program(["sh", "-c", 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"', "sh", path]);
};
