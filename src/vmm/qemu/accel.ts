/** Whether KVM really works here: found by running a program in it, not by looking for /dev/kvm. */
import { access, constants, mkdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod/mini";
import { BangerError, errnoOf, toBangerError } from "../../contract/errors.ts";
import { readFileIfThere, stagingDirectory, writeFileAtomic } from "../../host/files.ts";
import { agentBinary, kvmProbeFile } from "../../host/paths.ts";
import { describeExit, runTool, startProcess } from "../../host/process.ts";
import type { Accel } from "../driver.ts";

const probeSchema = z.object({
  accel: z.enum(["kvm", "tcg"]),
  reason: z.string(),
  tscKhz: z.number(),
  parallel: z.boolean(),
});
export type AccelProbe = {
  accel: Accel;
  reason: string;
  /** Rate of the host's time-stamp counter, which TCG hands to the guest. */
  tscKhz: number;
  /** Whether the CPUs of a VM may run at once: under KVM always, emulated where QEMU is not known to lose changes of running code. */
  parallel: boolean;
};

/** How long the probe's machine may take to answer, in ms. It needs about 40. */
const PROBE_LIMIT = 5000;
/** QEMU's exit status when the guest writes 0x10 to the debug-exit port: (0x10 << 1) | 1. */
const PROBE_ANSWER = 33;

/** A 64 KiB firmware whose reset vector says `mov al, 0x10; out 0xf4, al; hlt`. */
const probeFirmware = (): Uint8Array => {
  const rom = new Uint8Array(65536).fill(0xf4);
  rom.set([0xb0, 0x10, 0xe6, 0xf4], 0xfff0);
  return rom;
};

/** /proc/cpuinfo tells the momentary clock of a core, which is something else wherever the frequency scales; so it is measured. */
export const measureTsc = async (): Promise<number> =>
  Number((await runTool({ argv: [agentBinary(), "--measure-tsc"] })).stdout.trim());

const tryKvm = async (qemu: string): Promise<Pick<AccelProbe, "accel" | "reason">> => {
  try {
    await access("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return { accel: "tcg", reason: "there is no /dev/kvm" };
    return { accel: "tcg", reason: "/dev/kvm is there but this user may not use it (add the user to the group kvm)" };
  }
  await using folder = await stagingDirectory("kvm-probe");
  const rom = join(folder.path, "probe.rom");
  await writeFile(rom, probeFirmware());
  await using running = await startProcess({
    argv: [
      qemu,
      "-M",
      "microvm",
      "-accel",
      "kvm",
      "-cpu",
      "host",
      "-m",
      "16",
      "-nodefaults",
      "-no-user-config",
      "-no-reboot",
      "-display",
      "none",
      "-bios",
      rom,
      "-device",
      "isa-debug-exit,iobase=0xf4,iosize=4",
    ],
  });
  const timer = setTimeout(() => running.signal("SIGKILL"), PROBE_LIMIT);
  const exit = await running.exited;
  clearTimeout(timer);
  if (exit.status === PROBE_ANSWER) return { accel: "kvm", reason: "a test machine ran under KVM" };
  const why = running.stderrTail().split("\n")[0] || describeExit(exit);
  return { accel: "tcg", reason: `/dev/kvm is there but a test machine did not run: ${why}` };
};

/** First line of `qemu --version`. */
export const qemuVersion = async (qemu: string): Promise<string> =>
  (await runTool({ argv: [qemu, "--version"] })).stdout.split("\n")[0] ?? "";

/**
 * Before 8.1 QEMU could keep a translation of code that another emulated CPU was just changing, for good: kernels change their own code
 * when they switch features on, through a breakpoint, and whoever came by then met that breakpoint for ever.
 * @param version what `qemu --version` says
 */
export const emulatesInParallel = (version: string): boolean => {
  const [major = 0, minor = 0] = /version (\d+)\.(\d+)/.exec(version)?.slice(1).map(Number) ?? [];
  return major > 8 || (major === 8 && minor >= 1);
};

/**
 * Which accelerator QEMU can use. The answer is kept for this boot of the host, this QEMU and this device.
 * @param qemu program name or path
 * @throws TOOL_MISSING when QEMU is not installed
 */
export const probeAcceleration = async (qemu: string): Promise<AccelProbe> => {
  const key = await probeKey(qemu);
  const kept = await readProbe(key);
  if (kept) return kept;
  // A QEMU that does not tell its version is taken for an old one.
  const version = qemuVersion(qemu).catch((error: unknown) => {
    if (toBangerError(error).code !== "TOOL_FAILED") throw error;
    return "";
  });
  const [kvm, tscKhz, told] = await Promise.all([tryKvm(qemu), measureTsc(), version]);
  const probe = { ...kvm, tscKhz, parallel: kvm.accel === "kvm" || emulatesInParallel(told) };
  try {
    await mkdir(join(kvmProbeFile(), ".."), { recursive: true, mode: 0o700 });
    await writeFileAtomic(kvmProbeFile(), JSON.stringify({ key, ...probe }));
  } catch (error) {
    // Only a note for the next time: without room for it the probe runs again.
    if (toBangerError(error).code !== "DISK_FULL") throw error;
  }
  return probe;
};

const probeKey = async (qemu: string): Promise<string> => {
  const boot = (await readFileIfThere("/proc/sys/kernel/random/boot_id"))?.trim();
  const parts = await Promise.all([fingerprint("/dev/kvm"), programFingerprint(qemu)]);
  return [boot, process.getuid?.(), process.getgroups?.().join(","), ...parts].join(" ");
};

/** Changes when the program is replaced. @param qemu program name or path */
export const programFingerprint = (qemu: string): Promise<string> =>
  fingerprint(qemu.includes("/") ? qemu : `/usr/bin/${qemu}`);

const fingerprint = async (path: string): Promise<string> => {
  try {
    const { mode, uid, gid, size, mtimeMs } = await stat(path);
    return [mode, uid, gid, size, path.startsWith("/dev/") ? 0 : mtimeMs].join(":");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return "none";
    throw error;
  }
};

const readProbe = async (key: string): Promise<AccelProbe | undefined> => {
  const text = await readFileIfThere(kvmProbeFile());
  if (text === undefined) return undefined;
  try {
    const value = z.object({ key: z.string(), ...probeSchema.shape }).parse(JSON.parse(text));
    const { key: of, ...probe } = value;
    return of === key ? probe : undefined;
  } catch (error) {
    // A damaged note is only a note: probe again.
    if (error instanceof BangerError) throw error;
    return undefined;
  }
};
