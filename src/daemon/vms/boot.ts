/** From a recorded VM to a guest that answers: disks, VMM, greeting, configuration, init. */
import { releaseGuest } from "./hold.ts";
import { randomBytes, randomUUID } from "node:crypto";
import { performance } from "node:perf_hooks";
import { BangerError } from "../../contract/errors.ts";
import { abortable, allEnded, type Progress, silentProgress, withDeadline } from "../../contract/progress.ts";
import { callGuest } from "../../guest/call.ts";
import { connectGuest, type GuestConnection, type GuestEvent } from "../../guest/connection.ts";
import { type VmFiles, vmFiles } from "../../host/paths.ts";
import type { Driver, Machine, MachineIdentity, SavedMachine } from "../../vmm/driver.ts";
import type { BootImage, ImageService } from "../images/service.ts";
import type { KernelService } from "../kernels/service.ts";
import type { Log } from "../log.ts";
import { type NetworkRules, writeRules } from "../network/rules-file.ts";
import type { GuestKeys, SshService } from "../ssh/service.ts";
import type { VmRow } from "../store/vms.ts";
import { HEARD_AT_ONCE, hostTime, tellHostTime } from "./clock.ts";
import { limitMachine } from "./scope.ts";
import type { Crowd } from "./crowd.ts";
import { consoleTail, keepConsole } from "./console-log.ts";
import { ensureDisk } from "./disk.ts";
import { type MachinePlan, planMachine, type Shape } from "./plan.ts";

/** What it takes to boot a guest. */
export type GuestServices = {
  images: ImageService;
  kernels: KernelService;
  ssh: SshService;
  driver: Driver;
  log: Log;
  crowd: Crowd;
  /** How long a guest may take until its agent answers, in ms. */
  bootTimeout: number;
};

/** How long an init may take to report that it is up, after the agent answered, in ms. It then counts as up, with a note. */
const INIT_LIMIT = 180_000;
/** How long a guest that goes on from a saved machine may take until its agent answers, in ms. It needs a fraction of a second. */
const RESTORE_LIMIT = 30_000;

export type MachineStart = {
  /** Default: those of the VM. */
  files?: VmFiles;
  /** Of its network, as they are when they are asked for. Default: those of the VM. */
  rules?: () => NetworkRules;
  /** A saved machine to go on from; its disk is in place. */
  from?: SavedMachine | undefined;
  /** Where it is known already. */
  plan?: MachinePlan | undefined;
  background?: boolean;
  onIdentity(identity: MachineIdentity): Promise<void>;
};

/** What of a VM's record its machine and its guest are made from. */
export type Bootable = Shape & Pick<VmRow, "id" | "name" | "mac" | "env" | "rules" | "team" | "startedAt">;

/** Starts the VMM of a VM; its image and kernel are pulled where they are missing. */
export const startMachine = async (
  vm: Bootable,
  services: GuestServices,
  {
    files = vmFiles(vm.id),
    rules = () => ({ ...vm, team: [] }),
    from,
    plan: known,
    background = false,
    onIdentity,
  }: MachineStart,
  progress: Progress,
): Promise<Machine> => {
  const { images, driver, log } = services;
  progress.report({ stage: "boot", message: "starting the machine" });
  const [plan] = await allEnded([
    known ?? planMachine(vm, services, progress),
    from ? undefined : ensureDisk(vm, files, progress),
  ]);
  await allEnded([images.verify(vm.image), vm.network === "none" ? undefined : writeRules(files.networkRules, rules)]);
  const machine = await driver.start({ ...plan.spec(vm, files), restore: from, background }, onIdentity, progress);
  void limitMachine(vm, machine.identity, services);
  keepConsole(machine.console, files, log);
  return machine;
};

export type Guest = { connection: GuestConnection; notes: string[] };

/**
 * How a guest that answers came to be: `boot`, `clone` of a saved machine that must become another, `wake` of one that stays who it is, or `known`,
 * one that was greeted before.
 */
export type GuestOrigin = "boot" | "clone" | "wake" | "known";

export type Greeting = {
  origin: GuestOrigin;
  epoch: number;
  /** Default: those of the VM. */
  files?: VmFiles;
  /** Default: the VM's own. */
  keys?: Promise<GuestKeys>;
  /** Of a guest that has been greeted already. */
  connection?: GuestConnection | undefined;
  /** See `Early`. */
  early?: Early | undefined;
};

/**
 * Called where a guest has gone on from a saved machine and has been told who it is, before it has confirmed: the agent takes requests in their order, so
 * that what is asked of it now it does as soon as it can, and refuses if it could not become who it is.
 */
export type Early = (connection: GuestConnection) => void;

/**
 * Greets the agent and tells it who it is, where it cannot know.
 * @throws VM_BOOT_TIMEOUT or VM_BOOT_FAILED with the last console lines
 */
export const greetGuest = async (
  row: Bootable,
  machine: Machine,
  services: GuestServices,
  { origin, epoch, files = vmFiles(row.id), keys = services.ssh.guestKeys(row), connection: there, early }: Greeting,
  progress: Progress,
): Promise<Guest> => {
  const { console } = files;
  const limit = origin === "boot" ? services.bootTimeout : Math.min(RESTORE_LIMIT, services.bootTimeout);
  const timeout = () =>
    new BangerError(
      "VM_BOOT_TIMEOUT",
      `the guest of VM ${row.name} did not answer within ${Math.round(limit / 1000)} s`,
    );
  using limited = withDeadline(progress, limit, timeout);
  const initUp = Promise.withResolvers<string>();
  const onEvent = (event: GuestEvent) => {
    services.log.debug("guest event", { vm: row.name, ...event });
    if (event.event === "init") initUp.resolve(event.state ?? "ready");
  };
  try {
    const boot = async (): Promise<Guest> => {
      progress.report({ stage: "boot", message: origin === "boot" ? "kernel" : "memory, devices and agent" });
      // Its failure is met where the keys are needed, however long the guest takes until then.
      keys.catch(() => undefined);
      const connect = async () => connectGuest({ channel: await machine.openAgentChannel(), epoch, onEvent }, limited);
      const greeted = there ?? connect();
      if (origin === "known") {
        const connection = await greeted;
        // A daemon before this one may have died while it saved the guest.
        releaseGuest(connection);
        return { connection, notes: [] };
      }
      // Looked up while the guest comes up.
      const guestNetwork = async () => (await services.driver.host()).network.guest();
      const known = Promise.all([
        row.network === "none" ? undefined : guestNetwork(),
        services.images.ensure(row.image, limited),
      ]);
      known.catch(() => undefined);
      const connection = await greeted;
      progress.report({ stage: "boot", message: "identity" });
      const [network, image] = await known;
      const { phase } = connection.hello;
      const configuration = {
        ...(network ? { network: { mac: row.mac, ...network } } : {}),
        ...(origin === "wake" ? {} : identity(row, image.boot.env, await keys)),
        // The kernel makes its own at a boot.
        ...(origin === "clone" ? { boot_id: randomUUID(), lazy: true, crowd: services.crowd.perCpu() } : {}),
        start_init: phase === "configure" && startsInit(image),
      };
      const asked = performance.now();
      const configured = callGuest(connection, { op: "configure", ...present(), ...configuration }, limited);
      configured.catch(() => undefined);
      if (phase === "running") early?.(connection);
      await configured;
      // Whatever is asked of it from here on comes behind that, so nobody waits for it.
      if (performance.now() - asked > HEARD_AT_ONCE)
        tellHostTime(connection, silentProgress()).catch((error: unknown) =>
          services.log.warn("guest was not told the time again", { vm: row.name, error }),
        );
      // A guest that went on from a saved machine, or that an earlier daemon has configured, has its init.
      if (phase === "running") return { connection, notes: [] };
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

/** What a guest that stood still, or is new, cannot know: the time, and randomness that no other guest has. As `configure` takes them. */
export const present = (): Record<string, unknown> => ({
  ...hostTime(),
  entropy: randomBytes(64).toString("base64"),
});

/** Who the guest is. */
const identity = (
  row: Bootable,
  imageEnv: Readonly<Record<string, string>>,
  ssh: GuestKeys,
): Record<string, unknown> => ({
  hostname: row.name,
  machine_id: row.id,
  env: { ...imageEnv, ...row.env },
  ssh,
});
