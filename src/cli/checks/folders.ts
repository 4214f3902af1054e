/** Folders, sockets and files that must be ours alone. */
import { lstat } from "node:fs/promises";
import { userInfo } from "node:os";
import { errnoOf } from "../../contract/errors.ts";
import { exists } from "../../host/files.ts";
import {
  daemonSocket,
  databaseFile,
  knownHostsFile,
  lingerFile,
  roots,
  sshKeyFile,
  vmSockets,
} from "../../host/paths.ts";
import { MAX_SOCKET_PATH } from "../../host/sockets.ts";
import { advise, type Check, type CheckResult, type Fix, fail, pass, warn } from "./check.ts";

const statsOf = async (path: string) => {
  try {
    return await lstat(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
};

const runtimeCheck: Check = {
  name: "sockets",
  look: async (): Promise<CheckResult> => {
    const { runtime } = roots();
    // As long as any that will be made.
    const longest = vmSockets("0".repeat(32)).console;
    if (Buffer.byteLength(longest) > MAX_SOCKET_PATH)
      return advise(
        fail(`sockets in ${runtime} would have paths over ${MAX_SOCKET_PATH} bytes, which the system refuses`),
        "set XDG_RUNTIME_DIR to a folder with a shorter path",
      );
    const found = await statsOf(runtime);
    if (!found) return pass(`${runtime}, made by the first command`);
    if (found.isSymbolicLink() || !found.isDirectory()) return fail(`${runtime} is no folder`, ["rm", runtime]);
    if (found.uid !== process.getuid?.())
      return advise(
        fail(`${runtime} belongs to user ${found.uid}`),
        "set XDG_RUNTIME_DIR to a folder that only you can write: mkdir -m 700 ~/.run; export XDG_RUNTIME_DIR=~/.run",
      );
    if ((found.mode & 0o077) !== 0) return fail(`${runtime} is open to others`, ["chmod", "700", runtime]);
    const socket = await statsOf(daemonSocket());
    if (socket && (socket.mode & 0o177) !== 0)
      return fail(`${daemonSocket()} is open to others`, ["chmod", "600", daemonSocket()]);
    return pass(runtime);
  },
};

/** Whom the folder of sockets outlives, where systemd made it. */
const lingerCheck: Check = {
  name: "logout",
  look: async () => {
    const { uid } = userInfo();
    if (!roots().runtime.startsWith(`/run/user/${uid}/`))
      return pass("the sockets' folder does not go with your session");
    if (await exists(lingerFile())) return pass("the sockets' folder stays (lingering is on)");
    return warn(`${roots().runtime} is removed at your last logout: VMs that run can then only be stopped`, [
      "loginctl",
      "enable-linger",
    ]);
  },
};

const modesCheck: Check = {
  name: "file modes",
  look: async () => {
    const { config, state, cache } = roots();
    // What others must not read, and what they must not write.
    const secret = [state, databaseFile(), sshKeyFile(), knownHostsFile()];
    const open: [path: string, what: string, fix: Fix][] = [];
    for (const [path, mask] of [
      ...secret.map((path) => [path, 0o077] as const),
      [config, 0o022] as const,
      [cache, 0o022] as const,
    ]) {
      const found = await statsOf(path);
      if (!found) continue;
      if (found.uid !== process.getuid?.())
        return advise(
          fail(`${path} belongs to user ${found.uid}`),
          `give it back: sudo chown -R ${userInfo().username} '${path}'`,
        );
      if ((found.mode & mask & 0o777) === 0 || found.isSymbolicLink()) continue;
      const what = mask === 0o022 ? "can be written by others" : "is open to others";
      open.push([path, what, ["chmod", mask === 0o022 ? "go-w" : "go-rwx", path]]);
    }
    if (open.length === 0) return pass("what is secret is yours alone");
    return fail(open.map(([path, what]) => `${path} ${what}`).join("; "), ...open.map(([, , fix]) => fix));
  },
};

export const folderChecks: readonly Check[] = [runtimeCheck, lingerCheck, modesCheck];
