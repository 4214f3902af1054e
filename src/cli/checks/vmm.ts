/** The VMMs and what accelerates them. */
import { userInfo } from "node:os";
import type { Config } from "../../contract/config.ts";
import { toBangerError } from "../../contract/errors.ts";
import { readFileIfThere } from "../../host/files.ts";
import { agentBinary, kvmProbeFile } from "../../host/paths.ts";
import { runTool } from "../../host/process.ts";
import { advise, asRoot, type Check, type CheckResult, fail, pass, warn } from "./check.ts";
import { findProgram, installCommand } from "./programs.ts";

type Version = readonly [major: number, minor: number, patch: number];
/** What is wrong with a range of releases, `from` included and `below` not. */
type KnownBug = { from: Version; below: Version; what: string };

/** Of devices that banger gives to a guest. Distributions mend them without a new number, so that they are only suspected. */
const qemuBugs: readonly KnownBug[] = [
  { from: [7, 0, 0], below: [7, 2, 9], what: "CVE-2023-6693 (virtio-net)" },
  { from: [8, 0, 0], below: [8, 2, 1], what: "CVE-2023-6693 (virtio-net)" },
  { from: [7, 0, 0], below: [7, 2, 11], what: "CVE-2024-3446 (virtio-serial)" },
  { from: [8, 0, 0], below: [8, 2, 3], what: "CVE-2024-3446 (virtio-serial)" },
];
const firecrackerBugs: readonly KnownBug[] = [
  { from: [1, 16, 0], below: [1, 17, 0], what: "a pause without a snapshot cuts the guest channel off for good" },
];

const compare = (a: Version, b: Version): number => a[0] - b[0] || a[1] - b[1] || a[2] - b[2];

export const versionIn = (text: string): Version | undefined => {
  const [, major, minor, patch = "0"] = /\bv?(\d+)\.(\d+)(?:\.(\d+))?/.exec(text) ?? [];
  return major === undefined ? undefined : [Number(major), Number(minor), Number(patch)];
};

const bugsOf = (version: Version, bugs: readonly KnownBug[]): string[] => [
  ...new Set(
    bugs
      .filter(({ from, below }) => compare(version, from) >= 0 && compare(version, below) < 0)
      .map(({ what }) => what),
  ),
];

/** @param words what `qemu --version` prints */
export const judgeQemu = (qemu: string, words: string): CheckResult => {
  const version = versionIn(words);
  const found = `${qemu}, ${version ? `version ${version.join(".")}` : "of a version that it does not tell"}`;
  if (!version || compare(version, [7, 2, 0]) < 0)
    return advise(
      fail(`${found}: 7.2 or newer is needed`, ...installCommand("qemu-system-x86_64")),
      "if your distribution has no newer one, name another by `qemu_bin` in config.toml",
    );
  const bugs = bugsOf(version, qemuBugs);
  if (bugs.length === 0) return pass(found);
  return warn(
    `${found}: releases of this number have ${bugs.join(" and ")}, unless your distribution has mended them`,
    asRoot("apt-get", "install", "-y", "--only-upgrade", "qemu-system-x86"),
  );
};

export const judgeFirecracker = (firecracker: string, words: string): CheckResult => {
  const version = versionIn(words);
  const found = `${firecracker}, ${version ? `version ${version.join(".")}` : "of a version that it does not tell"}`;
  const bugs = version ? bugsOf(version, firecrackerBugs) : [];
  return bugs.length === 0 ? pass(found) : pass(`${found}; known of it: ${bugs.join(", ")}`);
};

const versionWords = async (program: string): Promise<string> =>
  (await runTool({ argv: [program, "--version"], signal: AbortSignal.timeout(10_000) })).stdout;

const qemuCheck = (qemu: string): Check => ({
  name: "qemu",
  look: async () => {
    if (await findProgram(qemu)) return judgeQemu(qemu, await versionWords(qemu));
    const missing = fail(`\`${qemu}\` is not installed`, ...installCommand(qemu));
    return missing.fix.length > 0 ? missing : advise(missing, "correct `qemu_bin` in config.toml, or take it out");
  },
});

/** Wanted or not: without it VMs run under QEMU, unless the settings ask for it. */
const firecrackerCheck = (config: Config | undefined): Check => ({
  name: "firecracker",
  look: async () => {
    const program = config?.firecrackerBin ?? "firecracker";
    const wanted = config?.vmm === "firecracker";
    if (!wanted && !(await findProgram(program))) return pass("not installed; VMs run under QEMU");
    const { locateFirecracker, readRelease, releaseNote } = await import("../../vmm/firecracker/release.ts");
    const { namespacesRefused, requireKvm, requireTap } = await import("../../vmm/firecracker/host.ts");
    const { needsOf } = await import("../../vmm/firecracker/program.ts");
    let found = "";
    try {
      const path = await locateFirecracker(program);
      const release = await readRelease(path);
      const note = releaseNote(release);
      const judged = judgeFirecracker(path, `Firecracker v${release.join(".")}`);
      found = note ? `${judged.message}: ${note}` : judged.message;
      await requireKvm(config?.qemuBin ?? "qemu-system-x86_64");
      await requireTap();
      const scripted = (await needsOf(path)) === undefined;
      const refused = scripted ? "it is a script, which may need anything" : await namespacesRefused();
      if (refused !== undefined)
        found = `${found}; its VMs are not confined to their own files and processes: ${refused}`;
      return note || refused !== undefined
        ? warn(found)
        : config?.vmm === "qemu"
          ? pass(`${found}; \`vmm = "qemu"\` leaves it aside`)
          : pass(found);
    } catch (thrown) {
      const error = toBangerError(thrown);
      if (error.code !== "TOOL_MISSING") throw thrown;
      const message = found ? `${found}; ${error.message}` : error.message;
      const fix = error.details?.fix;
      const fixes =
        Array.isArray(fix) && fix.every((word) => typeof word === "string") ? [asRoot(...(fix as [string]))] : [];
      // What KVM wants has a check of its own.
      if (!wanted && error.message.includes("needs KVM")) return pass(`${message}; VMs run under QEMU`);
      const judged = wanted ? fail(message, ...fixes) : warn(`${message}; VMs run under QEMU`, ...fixes);
      return fixes.length > 0 || !error.hint ? judged : advise(judged, error.hint);
    }
  },
});

/** Its own check fails already. */
const NO_QEMU = "looked at once QEMU and the guest agent are there";

const accelerationCheck = (qemu: string): Check => ({
  name: "kvm",
  look: async () => {
    if (!(await findProgram(qemu)) || !(await findProgram(agentBinary()))) return pass(NO_QEMU);
    const { probeAcceleration } = await import("../../vmm/qemu/accel.ts");
    const { accel, reason, parallel } = await probeAcceleration(qemu);
    if (accel === "kvm") return pass(reason);
    const found = warn(
      `${reason}: VMs run emulated, which is slow and no security boundary${parallel ? "" : "; this QEMU runs the CPUs of a VM in turns, 8.1 and later at once"}`,
      ...(reason.includes("group kvm") ? [asRoot("usermod", "-aG", "kvm", userInfo().username)] : []),
    );
    if (found.fix.length > 0) return advise(found, "then log in again");
    return reason.startsWith("there is no")
      ? advise(
          found,
          "switch virtualization on in the firmware, or nested virtualization where this is a VM, then `sudo modprobe kvm`",
        )
      : found;
  },
});

const CLOCKSOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/** How far two measurements of the same counter may lie apart. */
const TSC_TOLERANCE = 0.005;

/** TCG hands the rate of the host's counter to the guest, whose clock goes wrong by as much as it is wrong. */
const tscCheck = (qemu: string): Check => ({
  name: "tsc",
  look: async () => {
    if (!(await findProgram(qemu)) || !(await findProgram(agentBinary()))) return pass(NO_QEMU);
    const { measureTsc, probeAcceleration } = await import("../../vmm/qemu/accel.ts");
    const source = (await readFileIfThere(CLOCKSOURCE))?.trim() ?? "unknown";
    const [{ accel, tscKhz }, now] = [await probeAcceleration(qemu), await measureTsc()];
    const found = `${(now / 1e6).toFixed(3)} GHz, the host's clock source is ${source}`;
    if (Math.abs(now - tscKhz) > now * TSC_TOLERANCE)
      return advise(
        warn(`${found}, but guests are told ${(tscKhz / 1e6).toFixed(3)} GHz: their clocks drift`, [
          "rm",
          "-f",
          kvmProbeFile(),
        ]),
        "then restart the VMs that run",
      );
    if (source === "tsc" || accel === "kvm") return pass(found);
    return pass(`${found}: the counter is not trusted by the host, so clocks of emulated guests may drift`);
  },
});

const agentCheck: Check = {
  name: "guest agent",
  look: async () => {
    const path = await findProgram(agentBinary());
    return path ? pass(path) : advise(fail(`${agentBinary()} is not there`), "build it: make build");
  },
};

export const vmmChecks = (config: Config | undefined): Check[] => {
  const qemu = config?.qemuBin ?? "qemu-system-x86_64";
  return [qemuCheck(qemu), firecrackerCheck(config), accelerationCheck(qemu), tscCheck(qemu), agentCheck];
};
