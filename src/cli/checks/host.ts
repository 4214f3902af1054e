/** The machine itself. */
import { readFile, statfs } from "node:fs/promises";
import { userInfo } from "node:os";
import type { Config } from "../../contract/config.ts";
import { errnoOf } from "../../contract/errors.ts";
import { formatSize } from "../../contract/names.ts";
import { readFileIfThere } from "../../host/files.ts";
import { roots } from "../../host/paths.ts";
import { parentOf } from "../copy/places.ts";
import { type Check, fail, pass, warn } from "./check.ts";

const GiB = 2 ** 30;
/** Oldest Node.js that has what banger uses: major, minor. */
const NODE_LEAST = [24, 16] as const;

const nodeCheck: Check = {
  name: "node",
  look: async () => {
    const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
    const enough = major > NODE_LEAST[0] || (major === NODE_LEAST[0] && minor >= NODE_LEAST[1]);
    const found = `Node.js ${process.versions.node}`;
    return enough ? pass(found) : fail(`${found} is older than ${NODE_LEAST.join(".")}`, "make build");
  },
};

const architectureCheck: Check = {
  name: "architecture",
  look: async () => {
    const found = `${process.platform} ${process.arch}`;
    return found === "linux x64" ? pass(found) : fail(`${found}: banger runs on linux x64 only`);
  },
};

/** An ordinary user builds images in a user namespace with a range of ids of their own. */
const namespaceCheck: Check = {
  name: "user namespaces",
  look: async () => {
    const { uid, username } = userInfo();
    if (uid === 0) return pass("not needed: you are root");
    if ((await readFileIfThere("/proc/sys/kernel/unprivileged_userns_clone"))?.trim() === "0") {
      return fail("this kernel refuses them to ordinary users", "sudo sysctl -w kernel.unprivileged_userns_clone=1");
    }
    const ranges = await Promise.all(
      ["/etc/subuid", "/etc/subgid"].map(async (path) => (await readFileIfThere(path)) ?? ""),
    );
    const named = (text: string) =>
      text.split("\n").some((line) => line.startsWith(`${username}:`) || line.startsWith(`${uid}:`));
    if (ranges.every(named)) return pass(`${username} has a range of subordinate ids`);
    return fail(
      `${username} has no range of subordinate ids`,
      `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${username}`,
    );
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
    if (free < 2 * GiB) return fail(`${found}; an image needs about 2 GiB`, "banger vm prune -f");
    return free < 8 * GiB ? warn(found, "banger vm prune -f") : pass(found);
  },
};

const memoryCheck = (config: Config | undefined): Check => ({
  name: "memory",
  look: async () => {
    const available = Number(/^MemAvailable:\s+(\d+) kB/m.exec(await readFile("/proc/meminfo", "utf8"))?.[1]) * 1024;
    const found = `${formatSize(available)} available`;
    const wanted = config?.vmDefaults.memory ?? 0;
    if (available >= wanted) return pass(found);
    return warn(`${found}, and a VM gets ${formatSize(wanted)}`, "banger vm run --memory 512M");
  },
});

export const hostChecks = (config: Config | undefined): Check[] => [
  architectureCheck,
  nodeCheck,
  namespaceCheck,
  diskCheck,
  memoryCheck(config),
];
