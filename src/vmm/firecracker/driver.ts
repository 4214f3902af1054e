/** Firecracker, on hosts where KVM works. */
import { mkdir, rm, symlink } from "node:fs/promises";
import type { Socket } from "node:net";
import { basename, join } from "node:path";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { abortable, throwIfAborted } from "../../contract/progress.ts";
import { exists, readFileIfThere } from "../../host/files.ts";
import { once } from "../../host/once.ts";
import { processesNaming, processStartTime, processState } from "../../host/proc.ts";
import { describeExit, type Exit } from "../../host/process.ts";
import { connectTo } from "../../host/sockets.ts";
import { type Driver, type Limits, type MachineEnd, noLimits, type ProcessIdentity } from "../driver.ts";
import { endHelpers, unreachableMachine } from "../qemu/machine.ts";
import { chooseNetwork, startPlainPasst } from "../qemu/network.ts";
import { hostCpu } from "../qemu/signature.ts";
import { firecrackerApi } from "./api.ts";
import { socketAppears } from "./appears.ts";
import { bringUp, configuration, CONSOLE, diskOf, driveLink, folderLinks, NIC } from "./arguments.ts";
import { namespacesRefused, requireKvm, requireTap } from "./host.ts";
import { launch, type Launched } from "./launch.ts";
import { machine } from "./machine.ts";
import { METRICS, readMetrics } from "./metrics.ts";
import { openPipe } from "./pipe.ts";
import { needsOf } from "./program.ts";
import { locateFirecracker, readRelease } from "./release.ts";
import { listenForKnocks } from "./vsock.ts";

export type FirecrackerOptions = {
  /** Name or path. */
  firecracker: string;
  /** Tries KVM, where it is installed. */
  qemu: string;
  /** Default: none. */
  limits?: Limits;
  /** Default: off, for it is slow. */
  serial?: boolean;
  /** Default: `requireKvm`. */
  kvm?: (qemu: string) => Promise<void>;
};

export const firecrackerDriver = ({
  firecracker,
  qemu,
  limits = noLimits,
  serial = false,
  kvm = requireKvm,
}: FirecrackerOptions): Driver => {
  const program = once(async () => {
    const path = await locateFirecracker(firecracker);
    const [release, needs] = await Promise.all([readRelease(path), needsOf(path)]);
    return { path, release, needs };
  });
  const host = once(async () => {
    const [, , network] = await Promise.all([program(), kvm(qemu), chooseNetwork()]);
    const noNested = { reason: "Firecracker's guests cannot run VMs", hint: 'write `vmm = "qemu"` in config.toml' };
    return { accel: "kvm" as const, network, noNested };
  });
  const tap = once(requireTap);
  const refused = once(namespacesRefused);

  const start: Driver["start"] = async (spec, onIdentity, progress) => {
    const [{ path, release, needs }] = await Promise.all([program(), host(), spec.nic && tap()]);
    const view = (await refused()) === undefined ? needs : undefined;
    await using undo = new AsyncDisposableStack();
    const { sockets } = spec;
    await mkdir(sockets.folder, { recursive: true, mode: 0o700 });
    undo.defer(() => rm(sockets.folder, { recursive: true, force: true }));
    const inFolder = (name: string) => join(sockets.folder, name);
    // Firecracker binds its sockets itself, and refuses what is there.
    const stale = [sockets.control, sockets.agent, inFolder(CONSOLE)];
    undo.defer(() => rm(spec.saving, { recursive: true, force: true }));
    await Promise.all([
      emptyFolder(spec.saving),
      ...stale.map((path) => rm(path, { force: true })),
      ...folderLinks(spec).map(replaceLink),
    ]);
    // One that goes on from a saved machine listens already.
    const knocks = spec.restore ? undefined : await listenForKnocks(sockets.agent);
    undo.defer(() => knocks?.close());
    using api = socketAppears(sockets.folder, basename(sockets.control), sockets.control);
    const passt = spec.nic && (await startPlainPasst(sockets.folder, spec.networkLog));
    const network = await identities(passt?.pid);
    undo.defer(() => endHelpers(network));
    let launched: Launched;
    try {
      throwIfAborted(progress.signal);
      launched = await launch(spec, {
        program: path,
        view,
        pipes: serial ? [METRICS, CONSOLE] : [METRICS],
        nic: passt?.nic,
      });
    } finally {
      passt?.nic.destroy();
    }
    undo.defer(() => launched.end());
    const exited = launched.exited.then((exit) => describeEnd(exit, spec.log));
    const failed = exited.then(({ reason }): never => {
      throw new BangerError("VM_BOOT_FAILED", `Firecracker ended at once: ${reason}`);
    });
    failed.catch(() => undefined);
    const pid = await Promise.race([launched.pid, failed]);
    const startTime = await processStartTime(pid);
    if (startTime === undefined) return await failed;
    const metrics = await readMetrics(inFolder(METRICS), driveLink(1), NIC);
    undo.defer(() => metrics.close());
    const console = await consoleOf(sockets.folder);
    undo.defer(() => void console?.destroy());
    const helpers = [...network, ...(await identities(launched.launcher))];
    const identity = { pid, startTime, helpers };
    await onIdentity(identity);
    const client = firecrackerApi(await api.connect(failed, progress.signal));
    undo.defer(() => client.close());
    await abortable(
      Promise.race([untilEnd(bringUp(client, spec, { limits, serial }), failed), failed]),
      progress.signal,
    );
    undo.move();
    const booted = spec.restore !== undefined;
    return machine({
      identity,
      api: client,
      knocks,
      metrics,
      console,
      sockets,
      release,
      exited,
      booted,
      paused: false,
    });
  };

  const adopt: Driver["adopt"] = async (identity, sockets) => {
    if ((await processStartTime(identity.pid)) !== identity.startTime) {
      await endHelpers(identity.helpers);
      return undefined;
    }
    let channel: Socket;
    try {
      channel = await connectTo(sockets.control);
    } catch (error) {
      if (!["ENOENT", "ECONNREFUSED"].includes(errnoOf(error) ?? "")) throw error;
      return unreachableMachine(identity, sockets);
    }
    const client = firecrackerApi(channel);
    // One that was stopped answers nothing.
    const stopped = (await processState(identity.pid)) === "T";
    const paused = !stopped && (await client.describe()).state === "Paused";
    const { release } = await program();
    const pipe = join(sockets.folder, METRICS);
    const metrics = (await exists(pipe)) ? await readMetrics(pipe, driveLink(1), NIC) : undefined;
    const console = await consoleOf(sockets.folder);
    const known = { exited: undefined, knocks: undefined, booted: true };
    return machine({ identity, api: client, metrics, console, sockets, release, paused, ...known });
  };

  const signature: Driver["signature"] = async (spec) => {
    const [{ release }, cpu] = await Promise.all([program(), hostCpu()]);
    // A MAC address is the guest's own affair after a restore.
    const shape = { ...spec, nic: spec.nic && { mac: "02:00:00:00:00:00", rules: "", enforce: false } };
    return JSON.stringify([release.join("."), cpu, configuration(shape, "agent", { limits, serial })]);
  };

  return { name: "firecracker", host, signature, start, adopt, running };
};

const emptyFolder = async (path: string): Promise<void> => {
  await rm(path, { recursive: true, force: true });
  await mkdir(path, { recursive: true, mode: 0o700 });
};

const replaceLink = async ({ path, target }: { path: string; target: string }): Promise<void> => {
  await rm(path, { force: true });
  await symlink(target, path);
};

/** The guest's serial line, where it has one. */
const consoleOf = async (folder: string): Promise<Socket | undefined> =>
  (await exists(join(folder, CONSOLE))) ? openPipe(join(folder, CONSOLE)) : undefined;

/** Of a process, if it is there. */
const identities = async (pid: number | undefined): Promise<ProcessIdentity[]> => {
  const startTime = pid === undefined ? undefined : await processStartTime(pid);
  return pid === undefined || startTime === undefined ? [] : [{ pid, startTime }];
};

/** A call that breaks off because Firecracker has ended fails by that end, which says more. */
const untilEnd = async (calls: Promise<void>, failed: Promise<never>): Promise<void> => {
  try {
    await calls;
  } catch (error) {
    if (!(error instanceof BangerError) || error.details?.call !== undefined) throw error;
    await failed;
  }
};

/** Its own exit statuses (`FcExitCode`), where the number alone says nothing. */
const EXITS: Readonly<Record<number, string>> = {
  148: "was ended by its own seccomp filter",
  149: "was ended by SIGBUS",
  150: "was ended by SIGSEGV",
  151: "was ended by SIGXFSZ",
  154: "was ended by SIGXCPU",
  155: "was ended by SIGPIPE",
  156: "was ended by SIGHUP",
  157: "was ended by SIGILL",
};

/** How it ended, with its own last words where it failed. */
const describeEnd = async (exit: Exit, log: string): Promise<MachineEnd> => {
  if (exit.status === 0) return { reason: "the guest restarted, or its kernel stopped", clean: true };
  const words = ((await readFileIfThere(log).catch(() => "")) ?? "").trim().split("\n").at(-1)?.slice(0, 300);
  const how = EXITS[exit.status ?? 0] ?? describeExit(exit);
  return { reason: `Firecracker ${how}${words ? `: ${words}` : ""}`, clean: false };
};

const running: Driver["running"] = async (folder) => {
  const found: Awaited<ReturnType<Driver["running"]>> = [];
  for (const { pid, argv } of await processesNaming(`${folder}/`)) {
    const disk = diskOf(argv);
    if (!disk?.startsWith(`${folder}/`)) continue;
    const startTime = await processStartTime(pid);
    if (startTime !== undefined) found.push({ identity: { pid, startTime, helpers: [] }, disk });
  }
  return found;
};

/** Whether a process is one of our Firecrackers, by its command line. */
export const isFirecracker = async (pid: number): Promise<boolean> =>
  diskOf(((await readFileIfThere(`/proc/${pid}/cmdline`)) ?? "").split("\0")) !== undefined;
