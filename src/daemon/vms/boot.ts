/** From a recorded VM to a guest that answers: disks, VMM, greeting, configuration, init. */
import { randomBytes } from "node:crypto";
import { BangerError } from "../../contract/errors.ts";
import { abortable, type Progress, withDeadline } from "../../contract/progress.ts";
import { callGuest } from "../../guest/call.ts";
import { connectGuest, type GuestConnection, type GuestEvent } from "../../guest/connection.ts";
import { agentBinary, vmFiles, vmSockets } from "../../host/paths.ts";
import type { Driver, GuestNetwork, Machine, MachineIdentity } from "../../vmm/driver.ts";
import type { BootImage, ImageService } from "../images/service.ts";
import type { KernelService } from "../kernels/service.ts";
import type { Log } from "../log.ts";
import type { GuestKeys, SshService } from "../ssh/service.ts";
import type { VmRow } from "../store/vms.ts";
import { consoleTail, keepConsole } from "./console-log.ts";
import { ensureDisk } from "./disk.ts";
import type { SyncEntry } from "./file-sync.ts";
import type { startNotes } from "./notes.ts";

export type BootServices = {
  images: ImageService;
  kernels: KernelService;
  ssh: SshService;
  driver: Driver;
  log: Log;
  /** How long a guest may take until its agent answers, in ms. */
  bootTimeout: number;
  startNotes: ReturnType<typeof startNotes>;
  /** What each VM gets of the user's own files. */
  readonly fileSync: readonly SyncEntry[];
  /** After so long without use a VM is stopped, in ms; undefined: never. */
  readonly autoStopAfter: number | undefined;
};

/** How long an init may take to report that it is up, after the agent answered, in ms. It then counts as up, with a note. */
const INIT_LIMIT = 180_000;

/** Starts the VMM of a VM whose image and kernel are there. */
export const startMachine = async (
  row: VmRow,
  services: BootServices,
  onIdentity: (identity: MachineIdentity) => Promise<void>,
  progress: Progress,
): Promise<Machine> => {
  const { images, kernels, driver, log } = services;
  progress.report({ stage: "boot", message: "starting the machine" });
  const bootKernel = async () => {
    const kernel = await kernels.ensure(row.kernel, progress);
    return { ...kernel, initramfs: (await kernels.initramfs(kernel, agentBinary())).path };
  };
  const [image, kernel, disk] = await Promise.all([
    images.ensure(row.image, progress),
    bootKernel(),
    ensureDisk(row, progress),
  ]);
  await images.verify(row.image);
  const files = vmFiles(row.id);
  const machine = await driver.start(
    {
      name: row.name,
      vcpu: row.vcpu,
      memory: row.memory,
      kernel: kernel.vmlinux,
      initramfs: kernel.initramfs,
      kernelArguments: [],
      disks: [
        { path: image.rootfs, readonly: true },
        { path: disk, readonly: false },
        { path: kernel.modules, readonly: true },
      ],
      nic: row.network === "none" ? undefined : { mac: row.mac },
      sockets: vmSockets(row.id),
      log: files.vmmLog,
      networkLog: files.networkLog,
    },
    onIdentity,
    progress,
  );
  keepConsole(machine.console, files, log);
  return machine;
};

export type Guest = { connection: GuestConnection; notes: string[] };

/**
 * Greets the agent and, when it is new, tells it who it is.
 * @param onEvent takes the guest's later events
 * @throws VM_BOOT_TIMEOUT or VM_BOOT_FAILED with the last console lines
 */
export const greetGuest = async (
  row: VmRow,
  machine: Machine,
  services: BootServices,
  epoch: number,
  progress: Progress,
): Promise<Guest> => {
  const console = vmFiles(row.id).console;
  const seconds = Math.round(services.bootTimeout / 1000);
  const timeout = () =>
    new BangerError("VM_BOOT_TIMEOUT", `the guest of VM ${row.name} did not answer within ${seconds} s`);
  using limited = withDeadline(progress, services.bootTimeout, timeout);
  const initUp = Promise.withResolvers<string>();
  const onEvent = (event: GuestEvent) => {
    services.log.debug("guest event", { vm: row.name, ...event });
    if (event.event === "init") initUp.resolve(event.state ?? "ready");
  };
  try {
    const boot = async (): Promise<Guest> => {
      progress.report({ stage: "boot", message: "kernel" });
      const keys = services.ssh.guestKeys(row);
      // Its failure is met where the keys are needed, however long the guest takes until then.
      keys.catch(() => undefined);
      const channel = await machine.openAgentChannel();
      const connection = await connectGuest({ channel, epoch, onEvent }, limited);
      if (connection.hello.phase === "running") return { connection, notes: [] };
      const [{ network }, image] = await Promise.all([
        services.driver.host(),
        services.images.ensure(row.image, limited),
      ]);
      await callGuest(connection, guestConfiguration(row, image, network.guest, await keys), limited);
      progress.report({ stage: "boot", message: connection.hello.init && startsInit(image) ? "init" : "agent" });
      const notes = await waitForInit(initUp.promise, connection, progress);
      return { connection, notes };
    };
    const died = machine.ended.then(({ reason }) => {
      throw new BangerError("VM_BOOT_FAILED", `VM ${row.name} ended while it booted: ${reason}`);
    });
    died.catch(() => undefined);
    return await Promise.race([boot(), died]);
  } catch (error) {
    // What is not the guest's doing, a key that is missing say, is not explained by its console.
    if (!(error instanceof BangerError) || !/^(VM_BOOT|GUEST)_/.test(error.code)) throw error;
    // The channel breaks a moment before the VMM's end is known; the end says more.
    const ended = error.code === "GUEST_AGENT_LOST" ? await Promise.race([machine.ended, pause(500)]) : undefined;
    const message = ended ? `VM ${row.name} ended while it booted: ${ended.reason}` : error.message;
    const tail = await consoleTail(console, 12);
    throw new BangerError(
      ended ? "VM_BOOT_FAILED" : error.code,
      tail.length ? `${message}\nlast lines of its console:\n  ${tail.join("\n  ")}` : message,
      {
        hint: `see the whole console with: banger vm logs ${row.name}`,
        details: { console: tail },
        cause: error,
      },
    );
  }
};

const pause = (ms: number): Promise<undefined> => new Promise((resolve) => setTimeout(resolve, ms, undefined));

const waitForInit = async (up: Promise<string>, connection: GuestConnection, progress: Progress): Promise<string[]> => {
  let slow = false;
  using limited = withDeadline(progress, INIT_LIMIT, () => {
    slow = true;
    return new BangerError("VM_BOOT_TIMEOUT", "the init did not report");
  });
  const lost = connection.closed.then((error) => {
    throw error;
  });
  lost.catch(() => undefined);
  try {
    await abortable(Promise.race([up, lost]), limited.signal);
    return [];
  } catch (error) {
    if (!slow) throw error;
    return [`${connection.hello.init} did not report that it is up within ${INIT_LIMIT / 1000} s`];
  }
};

/** A container's image may hold an init that nobody means to start. */
const startsInit = ({ init, isContainer }: BootImage): boolean => init !== null || !isContainer;

/** Identity, network and clock, as `configure` of docs/guest-protocol.md takes them. */
const guestConfiguration = (
  row: VmRow,
  image: BootImage,
  guestNetwork: GuestNetwork,
  ssh: GuestKeys,
): Record<string, unknown> => ({
  op: "configure",
  hostname: row.name,
  machine_id: row.id,
  clock_ns: String(BigInt(Date.now()) * 1_000_000n),
  entropy: randomBytes(64).toString("base64"),
  env: { ...image.boot.env, ...row.env },
  ssh,
  ...(row.network === "none" ? {} : { network: { mac: row.mac, ...guestNetwork } }),
  start_init: startsInit(image),
});
