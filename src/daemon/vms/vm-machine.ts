/** A VM's record, and the machine and the guest that it has at the moment. What happens to them is written down here; what is done with them is not. */
import { BangerError } from "../../contract/errors.ts";
import type { Progress } from "../../contract/progress.ts";
import type { GuestConnection } from "../../guest/connection.ts";
import type { Machine } from "../../vmm/driver.ts";
import type { VmRow, VmStore } from "../store/vms.ts";
import { type Greeting, type Guest, type GuestOrigin, greetGuest } from "./boot.ts";
import { syncFiles } from "./file-sync.ts";
import type { BootServices } from "./services.ts";
import { nextState, type VmEvent } from "./state.ts";

const MAX_EPOCH = 65535;

export type VmMachine = {
  /** As it is recorded. */
  readonly row: VmRow;
  /** What runs. */
  readonly machine: Machine | undefined;
  /** The channel to its guest. */
  readonly connection: GuestConnection | undefined;
  /** The agent has closed its end inside the guest. */
  readonly agentEnded: boolean;
  /** @throws when it cannot be written down, and then nothing has changed */
  update(change: Partial<VmRow>): void;
  /** As `update`, for what has happened whether or not it can be written down (a full disk): the daemon goes on with what it knows. */
  note(change: Partial<VmRow>): void;
  /** @throws VM_WRONG_STATE when the event has no place in its state */
  apply(event: VmEvent, change?: Partial<VmRow>): void;
  /** From now on this is what runs. */
  watch(started: Machine): void;
  /**
   * Greets the guest's agent.
   * @throws VM_BOOT_TIMEOUT or VM_BOOT_FAILED with the last console lines
   */
  greet(
    started: Machine,
    origin: GuestOrigin,
    progress: Progress,
    more?: Pick<Greeting, "connection" | "early">,
  ): Promise<Guest>;
  /** From a guest that answers to a VM that is running: with the user's files and its secrets' placeholders in it, and its ports open. */
  complete(guest: Guest, progress: Progress): Promise<void>;
  /** The end that comes was asked for: the record then says `reason`. */
  expectEnd(reason: string | undefined): void;
  /** The machine has ended; where nobody has asked for it the record says `cause`. */
  hasEnded(ended: Machine, cause: string): void;
  /** Ends the VMM now; the record then says `reason`. */
  end(running: Machine, reason: string | undefined): Promise<void>;
  /** Ends a VMM that was of no use; the VM goes on starting. */
  discard(): Promise<void>;
};

type Parts = {
  row: VmRow;
  store: VmStore;
  services: BootServices;
  /** Opens its published ports. @returns notes for its user */
  publish(): Promise<string[]>;
  /** Called after each change of the record. */
  onChanged(): void;
};

export const vmMachine = ({ row: recorded, store, services, publish, onChanged }: Parts): VmMachine => {
  const { log } = services;
  let row = recorded;
  let machine: Machine | undefined;
  let connection: GuestConnection | undefined;
  let agentEnded = false;
  /** Set when the end of the machine was asked for: what the record then says of it. */
  let askedEnd: { reason: string | undefined } | undefined;

  const update = (change: Partial<VmRow>) => {
    store.update(row.id, change);
    row = { ...row, ...change };
    onChanged();
  };

  const note = (change: Partial<VmRow>) => {
    try {
      update(change);
    } catch (error) {
      log.error("vm record not written", { vm: row.name, error });
      row = { ...row, ...change };
      onChanged();
    }
  };

  const apply: VmMachine["apply"] = (event, change = {}) => {
    const state = nextState(row.name, row.state, event);
    if (state !== "gone") update({ ...change, state });
  };

  const hasEnded: VmMachine["hasEnded"] = (ended, cause) => {
    if (machine !== ended) return;
    const reason = askedEnd ? askedEnd.reason : cause;
    machine = undefined;
    askedEnd = undefined;
    connection?.close(new BangerError("VM_STOPPED", `VM ${row.name} has stopped${reason ? `: ${reason}` : ""}`));
    connection = undefined;
    log.info("vm ended", { vm: row.name, reason });
    if (row.state === "asleep") note(noProcess());
    else if (row.state !== "stopped") note({ ...nothingRuns(), reason });
  };

  const expectEnd = (reason: string | undefined) => {
    askedEnd = { reason };
  };

  const watch = (started: Machine) => {
    machine = started;
    agentEnded = false;
    void started.ended.then((end) => hasEnded(started, end.reason));
    started.onAgentPort((open) => {
      if (machine === started) agentEnded = !open;
      if (open || machine !== started || row.state !== "running" || !connection) return;
      log.warn("guest agent is gone", { vm: row.name });
      connection.close(agentLost(row.name));
      connection = undefined;
      note({ reason: "the guest agent has ended inside the VM" });
    });
    started.onDiskFull(() => note({ reason: "paused: the host's disk is full" }));
  };

  const greet: VmMachine["greet"] = async (started, origin, progress, more = {}) => {
    const epoch = (row.epoch % MAX_EPOCH) + 1;
    update({ epoch });
    const guest = await greetGuest(row, started, services, { origin, epoch, ...more }, progress);
    const { connection: greeted } = guest;
    connection = greeted;
    void greeted.closed.then((error) => {
      if (connection !== greeted) return;
      log.warn("guest connection lost", { vm: row.name, error });
      connection = undefined;
      if (row.state === "running") note({ reason: error.message });
    });
    if (origin === "known") services.secrets.serve(() => row, greeted);
    return guest;
  };

  return {
    get row() {
      return row;
    },
    get machine() {
      return machine;
    },
    get connection() {
      return connection;
    },
    get agentEnded() {
      return agentEnded;
    },
    update,
    note,
    apply,
    watch,
    greet,
    complete: async ({ connection: guest, notes }, progress) => {
      const [synced, unpublished, unset] = await Promise.all([
        syncFiles(guest, services.fileSync, progress),
        publish(),
        services.secrets.setUp(() => row, guest, progress),
      ]);
      apply("ready", { notes: [...row.notes, ...notes, ...synced, ...unpublished, ...unset] });
    },
    expectEnd,
    hasEnded,
    end: async (running, reason) => {
      expectEnd(reason);
      await running.kill();
      hasEnded(running, "killed");
    },
    discard: async () => {
      const failed = machine;
      machine = undefined;
      await failed?.kill();
      update({ pid: undefined, pidStart: undefined, helpers: [] });
    },
  };
};

export const agentLost = (name: string, why = "", cause?: unknown) =>
  new BangerError("GUEST_AGENT_LOST", `the guest agent of VM ${name} is gone${why}`, {
    hint: `restart the VM: banger vm stop ${name} && banger vm start ${name}`,
    cause,
  });

export const noProcess = () => ({ pid: undefined, pidStart: undefined, helpers: [], stoppedAt: Date.now() });
/** Of a VM whose machine is gone. */
export const nothingRuns = () => ({ ...noProcess(), state: "stopped" as const });
