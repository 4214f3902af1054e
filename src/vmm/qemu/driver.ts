/** QEMU's microvm machine, with KVM where it works and TCG elsewhere. */
import { mkdir, open, rm } from "node:fs/promises";
import type { Server, Socket } from "node:net";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { throwIfAborted } from "../../contract/progress.ts";
import { readFileIfThere } from "../../host/files.ts";
import { agentBinary } from "../../host/paths.ts";
import { once } from "../../host/once.ts";
import { processesNaming, processStartTime } from "../../host/proc.ts";
import { describeExit, type Exit, type RunningProcess, startProcess } from "../../host/process.ts";
import { bindForChild, closeServer, connectTo, descriptorOf } from "../../host/sockets.ts";
import { type Driver, type Limits, type MachineSpec, noLimits } from "../driver.ts";
import { requireFilter } from "../filter.ts";
import { probeAcceleration } from "./accel.ts";
import { driveName, driveValue, kernelArguments, qemuArguments, inherited } from "./arguments.ts";
import { endHelpers, machine, unreachableMachine } from "./machine.ts";
import { chooseNetwork, netdevArgument, preparePasst } from "./network.ts";
import { nestedIsOff } from "./nested.ts";
import { machineSignature } from "./signature.ts";

/** @param qemu program name or path @param limits of the disk only */
export const qemuDriver = (qemu: string, limits: Limits = noLimits): Driver => {
  const host = once(async () => {
    const [probe, network] = await Promise.all([probeAcceleration(qemu), chooseNetwork()]);
    const noNested = probe.accel === "kvm" ? await nestedIsOff() : undefined;
    return { accel: probe.accel, network, noNested, probe };
  });

  const spawnQemu = async (spec: MachineSpec, sockets: Server[], nic: Socket | undefined): Promise<RunningProcess> => {
    const { network, probe } = await host();
    const netdev = spec.nic ? netdevArgument(network, inherited.network) : undefined;
    const argv = qemuArguments(qemu, probe, limits, spec, [...kernelArguments(probe), ...spec.kernelArguments], netdev);
    await using log = await open(spec.log, "w", 0o600);
    await using state = spec.restore && (await open(spec.restore.state));
    return await startProcess({
      argv: await launched(spec, argv),
      cwd: "/",
      stdio: ["ignore", log.fd, log.fd, ...sockets.map(descriptorOf), nic ?? "ignore", state?.fd ?? "ignore"],
      outlive: true,
    });
  };

  const start: Driver["start"] = async (spec, onIdentity, progress) => {
    const { network } = await host();
    if (spec.nic?.enforce) requireFilter(network);
    await using undo = new AsyncDisposableStack();
    await mkdir(spec.sockets.folder, { recursive: true, mode: 0o700 });
    undo.defer(() => rm(spec.sockets.folder, { recursive: true, force: true }));
    const servers = await Promise.all(
      [spec.sockets.agent, spec.sockets.control, spec.sockets.console].map(bindForChild),
    );
    let helperPids: number[] = [];
    let running: RunningProcess;
    try {
      using passt =
        spec.nic && network.name === "passt"
          ? await preparePasst(spec.sockets.folder, spec.networkLog, spec.nic.rules)
          : undefined;
      throwIfAborted(progress.signal);
      running = await spawnQemu(spec, servers, passt?.nic);
      undo.defer(async () => {
        running.signal("SIGKILL");
        await running.exited;
      });
      helperPids = (await passt?.start()) ?? [];
    } finally {
      await Promise.all(servers.map(closeServer));
    }
    const [startTime, ...helperTimes] = await Promise.all([running.pid, ...helperPids].map(processStartTime));
    const helpers = helperPids.flatMap((pid, index) => {
      const started = helperTimes[index];
      return started === undefined ? [] : [{ pid, startTime: started }];
    });
    undo.defer(() => endHelpers(helpers));
    const exited = running.exited.then((exit) => describeEnd(exit, spec.log));
    if (startTime === undefined) throw new BangerError("VM_BOOT_FAILED", `QEMU ended at once: ${await exited}`);
    const identity = { pid: running.pid, startTime, helpers };
    await onIdentity(identity);
    const [control, console] = await Promise.all([connectTo(spec.sockets.control), connectTo(spec.sockets.console)]);
    undo.move();
    return machine({ identity, control, console, sockets: spec.sockets, exited });
  };

  const adopt: Driver["adopt"] = async (identity, sockets) => {
    if ((await processStartTime(identity.pid)) !== identity.startTime) {
      await endHelpers(identity.helpers);
      return undefined;
    }
    try {
      const control = await connectTo(sockets.control);
      const console = await connectTo(sockets.console);
      return machine({ identity, control, console, sockets, exited: undefined });
    } catch (error) {
      if (!["ENOENT", "ECONNREFUSED"].includes(errnoOf(error) ?? "")) throw error;
      return unreachableMachine(identity, sockets);
    }
  };

  const sign = machineSignature(qemu, limits);
  const signature: Driver["signature"] = async (spec) => sign((await host()).probe, spec);

  return { name: "qemu", host, signature, start, adopt, running };
};

/** Where only a parent may read a process's memory (Yama), the VMM lets others of the user's processes do it: a daemon is replaced, its VMs are not. */
const parentsOnly = once(async () => (await readFileIfThere("/proc/sys/kernel/yama/ptrace_scope"))?.trim() === "1");

/** QEMU's command line with the programs before it that become QEMU. */
const launched = async (
  { background }: MachineSpec,
  argv: readonly [string, ...string[]],
): Promise<readonly [string, ...string[]]> => {
  const traceable = (await parentsOnly()) ? ([agentBinary(), "--traceable", ...argv] as const) : argv;
  return background ? ["nice", "-n", "19", ...traceable] : traceable;
};

/** How a QEMU ended, with its own last words where it failed. */
const describeEnd = async (exit: Exit, log: string): Promise<string> => {
  const words = exit.status ? ((await readFileIfThere(log)) ?? "").trim().split("\n").at(-1)?.slice(0, 300) : undefined;
  return words ? `${describeExit(exit)}: ${words}` : describeExit(exit);
};

/** The argument that gives a QEMU its own disk. */
const OWN_DISK = new RegExp(`^id=${driveName(1)},file=(.+),format=raw,`);

const running: Driver["running"] = async (folder) => {
  const found: Awaited<ReturnType<Driver["running"]>> = [];
  for (const { pid, argv } of await processesNaming(`file=${driveValue(folder)}/`)) {
    const disk = argv.map((word) => OWN_DISK.exec(word)?.[1]?.replaceAll(",,", ",")).find((path) => path !== undefined);
    if (disk === undefined || !disk.startsWith(`${folder}/`)) continue;
    const startTime = await processStartTime(pid);
    if (startTime !== undefined) found.push({ identity: { pid, startTime, helpers: [] }, disk });
  }
  return found;
};
