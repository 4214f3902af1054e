/** QEMU's microvm machine, with KVM where it works and TCG elsewhere. */
import { mkdir, open, rm } from "node:fs/promises";
import type { Server, Socket } from "node:net";
import { BangerError } from "../../contract/errors.ts";
import { throwIfAborted } from "../../contract/progress.ts";
import { once } from "../../host/once.ts";
import { processStartTime } from "../../host/proc.ts";
import { describeExit, type RunningProcess, startProcess } from "../../host/process.ts";
import { bindForChild, closeServer, connectTo, descriptorOf } from "../../host/sockets.ts";
import type { Driver, MachineSpec } from "../driver.ts";
import { probeAcceleration } from "./accel.ts";
import { kernelArguments, qemuArguments, inherited } from "./arguments.ts";
import { machine } from "./machine.ts";
import { chooseNetwork, netdevArgument, startPasst } from "./network.ts";

/** @param qemu program name or path */
export const qemuDriver = (qemu: string): Driver => {
  const host = once(async () => {
    const [{ accel }, network] = await Promise.all([probeAcceleration(qemu), chooseNetwork()]);
    return { accel, network, ownArguments: await kernelArguments(accel) };
  });

  const spawnQemu = async (spec: MachineSpec, sockets: Server[], nic: Socket | undefined): Promise<RunningProcess> => {
    const { accel, network, ownArguments } = await host();
    const netdev = spec.nic ? netdevArgument(network, inherited.network) : undefined;
    await using log = await open(spec.log, "w", 0o600);
    return startProcess({
      argv: qemuArguments(qemu, accel, spec, [...ownArguments, ...spec.kernelArguments], netdev),
      cwd: "/",
      stdio: ["ignore", log.fd, log.fd, ...sockets.map(descriptorOf), nic ?? "ignore"],
      outlive: true,
    });
  };

  const start: Driver["start"] = async (spec, onIdentity, progress) => {
    const { network } = await host();
    await using undo = new AsyncDisposableStack();
    await mkdir(spec.sockets.folder, { recursive: true, mode: 0o700 });
    undo.defer(() => rm(spec.sockets.folder, { recursive: true, force: true }));
    const servers = await Promise.all(
      [spec.sockets.agent, spec.sockets.control, spec.sockets.console].map(bindForChild),
    );
    const nic =
      spec.nic && network.name === "passt" ? await startPasst(spec.sockets.folder, spec.networkLog) : undefined;
    let running: RunningProcess;
    try {
      throwIfAborted(progress.signal);
      running = await spawnQemu(spec, servers, nic);
    } finally {
      nic?.destroy();
      await Promise.all(servers.map(closeServer));
    }
    undo.defer(async () => {
      running.signal("SIGKILL");
      await running.exited;
    });
    const startTime = await processStartTime(running.pid);
    if (startTime === undefined)
      throw new BangerError("VM_BOOT_FAILED", `QEMU ended at once: ${describeExit(await running.exited)}`);
    const identity = { pid: running.pid, startTime };
    await onIdentity(identity);
    const [control, console] = await Promise.all([connectTo(spec.sockets.control), connectTo(spec.sockets.console)]);
    undo.move();
    return machine({ identity, control, console, sockets: spec.sockets, exited: running.exited.then(describeExit) });
  };

  const adopt: Driver["adopt"] = async (identity, sockets) => {
    if ((await processStartTime(identity.pid)) !== identity.startTime) return undefined;
    const [control, console] = await Promise.all([connectTo(sockets.control), connectTo(sockets.console)]);
    return machine({ identity, control, console, sockets, exited: undefined });
  };

  return { name: "qemu", host, start, adopt };
};
