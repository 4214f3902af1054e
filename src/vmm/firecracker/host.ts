/** Whether Firecracker can work on this host. */
import { access, constants } from "node:fs/promises";
import { tmpdir } from "node:os";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { readFileIfThere } from "../../host/files.ts";
import { agentBinary } from "../../host/paths.ts";
import { runTool } from "../../host/process.ts";
import { probeAcceleration } from "../qemu/accel.ts";
import { chooseNetwork } from "../qemu/network.ts";

const useQemu = 'or write `vmm = "qemu"` in config.toml, which works without it';

/** @param qemu tries KVM where it is installed. @throws TOOL_MISSING when no machine runs under KVM here */
export const requireKvm = async (qemu: string): Promise<void> => {
  let reason: string | undefined;
  try {
    const probe = await probeAcceleration(qemu);
    if (probe.accel === "tcg") reason = probe.reason;
  } catch (error) {
    if (!(error instanceof BangerError) || error.code !== "TOOL_MISSING") throw error;
    reason = await whyNoDevice();
  }
  if (reason === undefined) return;
  throw new BangerError("TOOL_MISSING", `Firecracker needs KVM: ${reason}`, {
    hint: `see what is missing: banger doctor; ${useQemu}`,
    details: { reason },
  });
};

/** Without QEMU nothing can be tried: the device has to do. */
const whyNoDevice = async (): Promise<string | undefined> => {
  try {
    await access("/dev/kvm", constants.R_OK | constants.W_OK);
    return undefined;
  } catch (error) {
    return errnoOf(error) === "ENOENT"
      ? "there is no /dev/kvm"
      : "/dev/kvm is there but this user may not use it (add the user to the group kvm)";
  }
};

/** What makes a tap in a namespace of an ordinary user fail, by the setting that forbids it. */
const namespaceSettings = [
  ["/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"],
  ["/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"],
  ["/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=15000"],
] as const;

/**
 * What a NIC needs: passt, and a tap in a user and network namespace of its own, found by making one.
 * @throws TOOL_MISSING; `details.fix` is the command of root that mends it, where there is one
 */
export const requireTap = async (): Promise<void> => {
  if ((await chooseNetwork()).name !== "passt")
    throw new BangerError("TOOL_MISSING", "Firecracker's network needs passt, which is not installed", {
      hint: `install it: sudo apt-get install -y passt; ${useQemu}`,
      details: { program: "passt", fix: ["apt-get", "install", "-y", "passt"] },
    });
  try {
    await runTool({
      argv: [agentBinary(), "--launch", "--tap", "/dev/null", "--"],
      signal: AbortSignal.timeout(10_000),
    });
  } catch (error) {
    if (!(error instanceof BangerError) || error.code !== "TOOL_FAILED") throw error;
    const { words, argv } = await mendingTap(error.message);
    throw new BangerError("TOOL_MISSING", `Firecracker's network cannot be made: ${error.message}`, {
      hint: `${words}; ${useQemu}`,
      details: { fix: argv },
      cause: error,
    });
  }
};

/**
 * Whether a Firecracker can be confined to its own files and processes, found by trying.
 * @returns why not; undefined where it can
 */
export const namespacesRefused = async (): Promise<string | undefined> => {
  const cwd = tmpdir();
  try {
    const argv = [agentBinary(), "--launch", "--confine", "--write", cwd, "--"] as const;
    await runTool({ argv, cwd, signal: AbortSignal.timeout(10_000) });
    return undefined;
  } catch (error) {
    if (!(error instanceof BangerError) || error.code !== "TOOL_FAILED") throw error;
    return error.message;
  }
};

type Mending = {
  words: string;
  /** The command, without `sudo`; undefined where none can do it. */
  argv?: readonly [string, ...string[]];
};

const mendingTap = async (message: string): Promise<Mending> => {
  if (message.includes("/dev/net/tun"))
    return message.includes("No such")
      ? { words: "load the module: sudo modprobe tun", argv: ["modprobe", "tun"] }
      : {
          words: "let users open it, as distributions do: sudo chmod 0666 /dev/net/tun",
          argv: ["chmod", "0666", "/dev/net/tun"],
        };
  for (const [file, forbids, allows] of namespaceSettings)
    if ((await readFileIfThere(file))?.trim() === forbids)
      return { words: `allow user namespaces: sudo sysctl -w ${allows}`, argv: ["sysctl", "-w", allows] };
  return { words: "a container or a security policy forbids user namespaces: run banger outside of it" };
};
