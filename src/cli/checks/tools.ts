/** Programs that banger starts. */
import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import type { Config } from "../../contract/config.ts";
import { errnoOf } from "../../contract/errors.ts";
import { agentBinary } from "../../host/paths.ts";
import { runTool, toolMissing, toolPath } from "../../host/process.ts";
import { type Check, fail, pass, warn } from "./check.ts";

const findProgram = async (program: string): Promise<string | undefined> => {
  const candidates = program.includes("/")
    ? [program]
    : toolPath()
        .split(":")
        .map((folder) => join(folder, program));
  for (const path of candidates) {
    try {
      await access(path, constants.X_OK);
      return path;
    } catch (error) {
      if (!["ENOENT", "EACCES", "ENOTDIR"].includes(errnoOf(error) ?? "")) throw error;
    }
  }
  return undefined;
};

/** The command in the hint that `TOOL_MISSING` has for it. */
const installCommand = (program: string): string | undefined => toolMissing(program).hint?.replace(/^install it: /, "");

const programCheck = (program: string, why: string, required: boolean): Check => ({
  name: program,
  look: async () => {
    const path = await findProgram(program);
    if (path) return pass(path);
    return (required ? fail : warn)(`\`${program}\` is not installed (${why})`, installCommand(program));
  },
});

const qemuCheck = (qemu: string): Check => ({
  name: "qemu",
  look: async () => {
    if (!(await findProgram(qemu))) return fail(`\`${qemu}\` is not installed`, installCommand(qemu));
    const { stdout } = await runTool({ argv: [qemu, "--version"], signal: AbortSignal.timeout(10_000) });
    const version = /version (\d+)\.(\d+)[.\d]*/.exec(stdout);
    const [found, major, minor] = [version?.[0] ?? "unknown version", Number(version?.[1]), Number(version?.[2])];
    const enough = major > 7 || (major === 7 && minor >= 2);
    return enough
      ? pass(`${qemu}, ${found}`)
      : fail(`${qemu}, ${found}: 7.2 or newer is needed`, installCommand("qemu-system-x86_64"));
  },
});

const accelerationCheck = (qemu: string): Check => ({
  name: "kvm",
  look: async () => {
    const { probeAcceleration } = await import("../../vmm/qemu/accel.ts");
    const { accel, reason } = await probeAcceleration(qemu);
    if (accel === "kvm") return pass(reason);
    const message = `${reason}: VMs run emulated, which is slow and no security boundary`;
    return warn(message, reason.includes("group kvm") ? "sudo usermod -aG kvm $USER" : undefined);
  },
});

const agentCheck: Check = {
  name: "guest agent",
  look: async () => {
    const path = await findProgram(agentBinary());
    return path ? pass(path) : fail(`${agentBinary()} is not there`, "make build");
  },
};

export const toolChecks = (config: Config | undefined): Check[] => {
  const qemu = config?.qemuBin ?? "qemu-system-x86_64";
  return [
    qemuCheck(qemu),
    accelerationCheck(qemu),
    programCheck("passt", "the network of VMs", false),
    programCheck("mmdebstrap", "building Debian images", true),
    programCheck("mkfs.ext4", "disks of VMs", true),
    programCheck("ssh", "`banger vm ssh`", false),
    programCheck("tar", "`banger vm cp` of folders", true),
    agentCheck,
  ];
};
