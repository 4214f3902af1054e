/** Finding the programs that banger starts, and how to install them. */
import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../../contract/errors.ts";
import { toolMissing, toolPath } from "../../host/process.ts";
import { asRoot, type Check, type CheckResult, type Fix, fail, pass, warn } from "./check.ts";

/** @param path folders with colons between them; default: where banger looks */
export const findProgram = async (program: string, path = toolPath()): Promise<string | undefined> => {
  const candidates = program.includes("/") ? [program] : path.split(":").map((folder) => join(folder, program));
  for (const candidate of candidates) {
    try {
      await access(candidate, constants.X_OK);
      return candidate;
    } catch (error) {
      if (!["ENOENT", "EACCES", "ENOTDIR"].includes(errnoOf(error) ?? "")) throw error;
    }
  }
  return undefined;
};

/** Nothing where no package is known to hold it: a path of the user's own. */
export const installCommand = (program: string): Fix[] => {
  const name = toolMissing(program).details?.package;
  return typeof name === "string" ? [asRoot("apt-get", "install", "-y", name)] : [];
};

export type Program = {
  name: string;
  /** What it is for. */
  why: string;
  /** Without it nothing works, rather than something. */
  required: boolean;
};

const programs: readonly Program[] = [
  { name: "passt", why: "the network of VMs", required: false },
  { name: "mmdebstrap", why: "building Debian images", required: true },
  { name: "apt-get", why: "building Debian images and kernels", required: true },
  { name: "npm", why: "programs of images that Debian has not", required: false },
  { name: "dpkg-deb", why: "unpacking Debian kernels", required: true },
  { name: "depmod", why: "the modules of a kernel", required: true },
  { name: "mkfs.ext4", why: "disks of VMs", required: true },
  { name: "ssh-keygen", why: "keys of VMs", required: true },
  { name: "ssh", why: "`banger vm ssh`", required: false },
  { name: "tar", why: "`banger vm cp` of folders", required: true },
  { name: "unshare", why: "building images without root", required: true },
  { name: "setpriv", why: "ending what banger started", required: true },
];

/** Maps the ids of an ordinary user's namespace; root needs none. */
const newuidmap: Program = { name: "newuidmap", why: "building images without root", required: true };

/** All programs in one finding: those that are missing, with one command that installs them. */
export const programsCheck = (
  wanted: readonly Program[] = process.getuid?.() === 0 ? programs : [...programs, newuidmap],
  path?: string,
): Check => ({
  name: "programs",
  look: async (): Promise<CheckResult> => {
    const found = await Promise.all(
      wanted.map(async (program) => ({ program, path: await findProgram(program.name, path) })),
    );
    const missing = found.flatMap(({ program, path }) => (path === undefined ? [program] : []));
    if (missing.length === 0) return pass(wanted.map(({ name }) => name).join(", "));
    const message = `not installed: ${missing.map(({ name, why }) => `${name} (${why})`).join(", ")}`;
    const packages = missing.flatMap(({ name }) => installCommand(name).map((argv) => argv.at(-1) ?? ""));
    const fix = asRoot("apt-get", "install", "-y", ...new Set(packages));
    return (missing.some(({ required }) => required) ? fail : warn)(message, fix);
  },
});
