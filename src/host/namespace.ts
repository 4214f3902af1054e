/** A program as root: directly, or as the root of a user namespace that owns this user's range of subordinate ids. */
import { rm } from "node:fs/promises";
import { userInfo } from "node:os";
import { BangerError } from "../contract/errors.ts";
import { readFileIfThere } from "./files.ts";
import { runTool } from "./process.ts";

export type Namespace = {
  /** Goes before the program. It has its own mounts and process ids: ending it ends everything started in it. */
  prefix: readonly [string, ...string[]];
};

const OWN_WORLD = ["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"] as const;

/**
 * How this user gets to be root for the making of a file system.
 * @throws TOOL_MISSING when the machine does not let this user have a range of ids
 */
export const rootNamespace = async (signal: AbortSignal): Promise<Namespace> => {
  const { uid, username } = userInfo();
  if (uid === 0) return { prefix: ["unshare", ...OWN_WORLD] };
  await runTool({ argv: ["newuidmap"], signal, okStatus: [0, 1, 2] });
  for (const file of ["/etc/subuid", "/etc/subgid"]) {
    if (hasRange((await readFileIfThere(file)) ?? "", uid, username)) continue;
    throw new BangerError("TOOL_MISSING", `${username} has no range of subordinate ids in ${file}`, {
      hint: `give it one: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${username}`,
      details: { file, user: username },
    });
  }
  const prefix = ["unshare", "--user", "--map-root-user", "--map-auto", ...OWN_WORLD] as const;
  await probe(prefix, signal);
  return { prefix };
};

/** Root file systems use ids up to 65534. */
const hasRange = (text: string, uid: number, username: string): boolean =>
  text.split("\n").some((line) => {
    const [owner, , count] = line.split(":");
    return (owner === username || owner === String(uid)) && Number(count) >= 65536;
  });

const probe = async (prefix: Namespace["prefix"], signal: AbortSignal): Promise<void> => {
  try {
    await runTool({ argv: [...prefix, "mount", "-t", "tmpfs", "none", "/mnt"], signal });
  } catch (error) {
    if (!(error instanceof BangerError) || error.code !== "TOOL_FAILED") throw error;
    const restricted = await readFileIfThere("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    throw new BangerError(
      "TOOL_MISSING",
      `this machine does not let ordinary users make user namespaces: ${error.message}`,
      {
        hint:
          restricted?.trim() === "1"
            ? "allow them: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
            : "allow them: sudo sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=65536",
        cause: error,
      },
    );
  }
};

/** Removes a tree, also one whose files belong to subordinate ids of this user. A path that is not there is no error. */
export const removeTree = async (path: string): Promise<void> => {
  try {
    await rm(path, { recursive: true, force: true, maxRetries: 8 });
  } catch (error) {
    if (userInfo().uid === 0) throw error;
    const { prefix } = await rootNamespace(new AbortController().signal);
    // A process that has just been killed may still write for a moment.
    const script = 'for n in 1 2 3 4 5; do rm -rf --one-file-system -- "$1" && exit; sleep 0.2; done; exit 1';
    await runTool({ argv: [...prefix, "sh", "-c", script, "sh", path] });
  }
};
