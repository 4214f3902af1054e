/**
 * What a partial clone lacks of a commit, from where it was cloned. The fetch runs in a folder of banger's own: what programs and passwords it uses is
 * what the user's settings say, never the repository's.
 */
import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { BangerError } from "../contract/errors.ts";
import { gitIn } from "./git.ts";
import type { Repository } from "./repository.ts";

/** A fetched tree may name what is missing too. */
const MOST_ROUNDS = 4;

/** Ways to a repository that run nothing that its address names. */
const PROTOCOLS = "https:http:ssh:git:file";

/**
 * @param folder of ours
 * @param env leads git to the object folder that they come to
 * @returns how many objects were fetched
 * @throws WORKSPACE_REFUSED where they cannot be had
 */
export const fetchMissing = async (
  repository: Repository,
  commit: string,
  folder: string,
  env: Record<string, string>,
): Promise<number> => {
  const { promisor, git, settings, root } = repository;
  if (promisor === undefined) return 0;
  const url = settings.findLast(([key]) => key === `remote.${promisor}.url`)?.[1];
  let fetched = 0;
  for (let round = 0; ; round++) {
    const args = ["rev-list", "--objects", "--no-object-names", "--missing=print", "-n", "1", commit];
    const { stdout } = await git(args, { env });
    const missing = stdout.toString("latin1").match(/(?<=^\?)[0-9a-f]+$/gm) ?? [];
    if (missing.length === 0) return fetched;
    const refused = (why: string, cause?: unknown) =>
      new BangerError("WORKSPACE_REFUSED", `${root} lacks ${missing.length} objects of ${commit.slice(0, 9)}: ${why}`, {
        hint: `let your own git fetch them, by checking that commit out: git -C '${root}' switch --detach ${commit.slice(0, 9)}`,
        cause,
      });
    if (url === undefined) throw refused(`its remote ${promisor} has no address`);
    if (round === MOST_ROUNDS) throw refused("they were not in what was fetched");
    await fetchObjects(repository, url, missing, folder, env.GIT_OBJECT_DIRECTORY ?? "").catch((error: unknown) => {
      if (!(error instanceof BangerError) || error.code !== "TOOL_FAILED") throw error;
      throw refused(error.message, error);
    });
    fetched += missing.length;
  }
};

/** As git does it for itself. */
const fetchObjects = async (
  { root, objectFormat, signal }: Repository,
  url: string,
  oids: readonly string[],
  folder: string,
  objects: string,
): Promise<void> => {
  const own = join(folder, "fetch");
  await mkdir(own, { recursive: true });
  const git = gitIn(own, { signal, fetches: true });
  await git(["init", "--quiet", "--bare", `--object-format=${objectFormat}`]);
  // An address without a scheme or a host is a path, from the repository on.
  await git(["config", "remote.origin.url", /^[^/]*:/.test(url) ? url : resolve(root, url)]);
  await git(["config", "remote.origin.promisor", "true"]);
  const quietly = ["--quiet", "--no-tags", "--no-write-fetch-head", "--recurse-submodules=no", "--no-auto-maintenance"];
  await git(["-c", "fetch.negotiationAlgorithm=noop", "fetch", "origin", ...quietly, "--filter=blob:none", "--stdin"], {
    env: { GIT_ALLOW_PROTOCOL: process.env.GIT_ALLOW_PROTOCOL ?? PROTOCOLS, GIT_OBJECT_DIRECTORY: objects },
    input: oids.map((oid) => `${oid}\n`).join(""),
  });
};
