/** The machine itself. */
import { constants, copyFile, statfs, writeFile } from "node:fs/promises";
import { userInfo } from "node:os";
import { join } from "node:path";
import type { Config } from "../../contract/config.ts";
import { errnoOf, toBangerError } from "../../contract/errors.ts";
import { formatSize } from "../../contract/names.ts";
import { exists, readFileIfThere, stagingDirectory } from "../../host/files.ts";
import { hostMemory } from "../../host/memory.ts";
import { roots } from "../../host/paths.ts";
import { runTool } from "../../host/process.ts";
import { parentOf } from "../copy/places.ts";
import { advise, asRoot, type Check, fail, pass, warn } from "./check.ts";

const GiB = 2 ** 30;
/** Oldest Node.js that has what banger uses: major, minor. */
const NODE_LEAST = [24, 16] as const;

const nodeCheck: Check = {
  name: "node",
  look: async () => {
    const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
    const enough = major > NODE_LEAST[0] || (major === NODE_LEAST[0] && minor >= NODE_LEAST[1]);
    const found = `Node.js ${process.versions.node}`;
    return enough ? pass(found) : fail(`${found} is older than ${NODE_LEAST.join(".")}`, ["make", "build"]);
  },
};

const architectureCheck: Check = {
  name: "architecture",
  look: async () => {
    const found = `${process.platform} ${process.arch}`;
    return found === "linux x64" ? pass(found) : fail(`${found}: banger runs on linux x64 only`);
  },
};

const sysctl = async (name: string): Promise<string | undefined> =>
  (await readFileIfThere(`/proc/sys/${name.replaceAll(".", "/")}`))?.trim();

/** What keeps an ordinary user from a user namespace: the setting, the value that forbids, the value that allows. */
const namespaceSettings = [
  ["kernel.unprivileged_userns_clone", "0", "1"],
  ["kernel.apparmor_restrict_unprivileged_userns", "1", "0"],
  ["user.max_user_namespaces", "0", "15000"],
] as const;

/** An ordinary user builds images in a user namespace with a range of ids of their own. */
const namespaceCheck: Check = {
  name: "user namespaces",
  look: async () => {
    const { uid, username } = userInfo();
    if (uid === 0) return pass("not needed: you are root");
    for (const [name, forbids, allows] of namespaceSettings) {
      if ((await sysctl(name)) === forbids)
        return fail(`this kernel refuses them to ordinary users (${name} is ${forbids})`, [
          "sudo",
          "sysctl",
          "-w",
          `${name}=${allows}`,
        ]);
    }
    const ranges = await Promise.all(
      ["/etc/subuid", "/etc/subgid"].map(async (path) => (await readFileIfThere(path)) ?? ""),
    );
    const named = (text: string) =>
      text.split("\n").some((line) => line.startsWith(`${username}:`) || line.startsWith(`${uid}:`));
    if (!ranges.every(named))
      return fail(`${username} has no range of subordinate ids`, [
        "sudo",
        "usermod",
        "--add-subuids",
        "100000-165535",
        "--add-subgids",
        "100000-165535",
        username,
      ]);
    try {
      await runTool({ argv: ["unshare", "--user", "--map-root-user", "true"], signal: AbortSignal.timeout(10_000) });
    } catch (error) {
      return advise(
        fail(`one cannot be made: ${toBangerError(error).message}`),
        "a container or a security policy forbids it: run banger outside of it, or as root",
      );
    }
    return pass(`one can be made, and ${username} has a range of subordinate ids`);
  },
};

/** Free space of the file system that holds `path` or will. */
const freeBytes = async (path: string): Promise<number> => {
  try {
    const { bavail, bsize } = await statfs(path);
    return bavail * bsize;
  } catch (error) {
    if (errnoOf(error) !== "ENOENT" || path === "/") throw error;
    return await freeBytes(parentOf(path));
  }
};

const diskCheck: Check = {
  name: "disk space",
  look: async () => {
    const { state } = roots();
    const free = await freeBytes(state);
    const found = `${formatSize(free)} free for ${state}`;
    if (free < 2 * GiB) return fail(`${found}; an image needs about 2 GiB`, ["banger", "vm", "prune", "-f"]);
    return free < 8 * GiB ? warn(found, ["banger", "vm", "prune", "-f"]) : pass(found);
  },
};

/** Found by making one, where there is a folder of ours to make it in. */
const reflinkCheck: Check = {
  name: "reflinks",
  look: async () => {
    const { state } = roots();
    if (!(await exists(state))) return pass("looked at when the daemon has made its folder");
    await using folder = await stagingDirectory("reflink-probe");
    const [from, to] = [join(folder.path, "from"), join(folder.path, "to")];
    await writeFile(from, "x");
    try {
      await copyFile(from, to, constants.COPYFILE_FICLONE_FORCE);
      return pass("yes: copies of disks take neither time nor space");
    } catch (error) {
      if (!["ENOTSUP", "EOPNOTSUPP", "EXDEV", "EINVAL", "ENOTTY", "ENOSYS"].includes(errnoOf(error) ?? "")) throw error;
      return pass("no, the file system has none (btrfs and xfs do): copies of disks leave their holes out");
    }
  },
};

const memoryCheck = (config: Config | undefined): Check => ({
  name: "memory",
  look: async () => {
    const { available, total } = await hostMemory();
    const found = `${formatSize(available)} of ${formatSize(total)} available`;
    const wanted = config?.vmDefaults.memory ?? 0;
    if (wanted > total)
      return advise(
        fail(`${found}, and a VM gets ${formatSize(wanted)} where nobody says less`),
        "lower `vm_defaults.memory` in config.toml",
      );
    if (available >= wanted) return pass(found);
    return advise(
      warn(`${found}, and a VM gets ${formatSize(wanted)}`),
      "stop a VM, or give less: banger vm run --memory 512M",
    );
  },
});

/** Of any banger: a clock that is older stands at some default. */
const EARLIEST = Date.UTC(2026, 0, 1);

/** A VM gets its clock from the host at its start. */
const clockCheck: Check = {
  name: "clock",
  look: async () => {
    const now = new Date();
    const found = now.toISOString().slice(0, 19).replace("T", " ");
    const fix = asRoot("timedatectl", "set-ntp", "true");
    if (now.getTime() < EARLIEST)
      return fail(`${found} UTC is long past: signatures of packages will not hold, and VMs start with it`, fix);
    // What timesyncd and chrony leave where they have set the clock; without systemd nobody tells.
    const synced = await Promise.all(["/run/systemd/timesync/synchronized", "/run/chrony/chronyd.pid"].map(exists));
    return pass(`${found} UTC${synced.includes(true) ? ", kept by the network's time" : ""}; VMs start with it`);
  },
};

export const hostChecks = (config: Config | undefined): Check[] => [
  architectureCheck,
  nodeCheck,
  namespaceCheck,
  diskCheck,
  reflinkCheck,
  memoryCheck(config),
  clockCheck,
];
