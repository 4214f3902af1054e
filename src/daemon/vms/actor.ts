/** One VM over time. All changes of its state go through here, one at a time. */
import { rm } from "node:fs/promises";
import { BangerError, toBangerError } from "../../contract/errors.ts";
import { abortable, type Progress, silentProgress, throwIfAborted, withDeadline } from "../../contract/progress.ts";
import type { SetEffect, SetVm } from "../../contract/vms.ts";
import { callGuest } from "../../guest/call.ts";
import type { GuestConnection } from "../../guest/connection.ts";
import { removeWhole } from "../../host/files.ts";
import { type SavedFiles, vmFiles, vmSockets } from "../../host/paths.ts";
import type { DeviceUse, Machine } from "../../vmm/driver.ts";
import type { VmRow, VmStore } from "../store/vms.ts";
import { ADOPT_LIMIT, findMachine, takeUp } from "./adoption.ts";
import type { Early } from "./boot.ts";
import { planChange } from "./change.ts";
import { tellHostTime } from "./clock.ts";
import { growDisk } from "./disk.ts";
import { mutex } from "./mutex.ts";
import type { ReadyVm } from "./pool.ts";
import type { BootServices } from "./services.ts";
import { putToSleep, type SavedVm, saveVm } from "./save.ts";
import { shutDown, type StopOptions } from "./shut-down.ts";
import type { Source } from "./source.ts";
import { startVm } from "./start.ts";
import { nextState, type VmEvent } from "./state.ts";
import { agentLost, vmMachine } from "./vm-machine.ts";

/** Between two records of a VM's use, in ms. */
const TOUCH_INTERVAL = 10_000;

export type VmActor = {
  row(): VmRow;
  /**
   * A sleeping VM is woken, a paused one resumed.
   * @throws HOST_LIMIT when the host has too little memory for it, unless `force`
   */
  start(progress: Progress, options?: StartOptions): Promise<void>;
  /** Stops the guest's CPUs. */
  pause(progress: Progress): Promise<void>;
  resume(progress: Progress): Promise<void>;
  /** Saves memory and disk of one instant in new files; the VM goes on as it was. */
  save(target: SavedFiles, progress: Progress): Promise<SavedVm>;
  /** Saves the VM in its own folder and ends its machine; whoever wants its guest wakes it. */
  sleep(progress: Progress): Promise<void>;
  /** Syncs the guest's disks, lets its init shut down, then ends the VMM; a stopped VM is left as it is. */
  stop(progress: Progress, options?: StopOptions): Promise<void>;
  /** Stop and start: the guest boots anew. */
  restart(progress: Progress, options?: StopOptions): Promise<void>;
  /**
   * Changes what the VM is made of. The disk of a running VM grows at once, guest included.
   * @returns when each change takes effect
   */
  set(request: SetVm, progress: Progress): Promise<Record<string, SetEffect>>;
  /** Writes down what is published of it. */
  record(change: Partial<Pick<VmRow, "published" | "autoPublish" | "rules" | "secrets" | "notes">>): void;
  /** Tells whoever follows the VM that something of it which is not recorded has changed. */
  announce(): void;
  /** Somebody works in the VM until this is disposed. */
  use(): Disposable;
  /** Nobody has worked in it since then, in ms since 1970; undefined while somebody does or nothing runs. */
  idleSince(): number | undefined;
  /** Signals the VMM; SIGKILL ends the VM and waits for its end. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Ends the VM and removes everything of it. */
  remove(progress: Progress, onlyIfStopped?: boolean): Promise<void>;
  /** The channel to the guest; throws VM_STOPPED or GUEST_AGENT_LOST when there is none. */
  guest(progress: Progress): Promise<GuestConnection>;
  /** What the VMM tells of its devices; undefined where nothing runs or nothing is told. */
  deviceUse(): Promise<DeviceUse | undefined>;
  /**
   * At daemon start: takes up a machine that an earlier daemon left running, or records that it is gone. Resolves as soon as that is known;
   * the guest, which may take its time or never answer, is greeted after it.
   */
  adopt(progress: Progress): Promise<void>;
  /** Lets go of the machine without touching it. */
  detach(): void;
};

export type StartOptions = {
  /** Even where the host has too little memory for it. */
  force?: boolean | undefined;
  /** What a VM that has never run goes on from. */
  source?: Source | undefined;
  early?: Early | undefined;
};

type Parts = {
  row: VmRow;
  /** The machine that its first start takes, where one stood ready. */
  ready?: ReadyVm | undefined;
  store: VmStore;
  services: BootServices;
  /**
   * Whether the host has room for the VM beside those that run.
   * @returns notes for its user
   * @throws HOST_LIMIT
   */
  admit(row: VmRow, force: boolean): Promise<string[]>;
  /**
   * Opens its published ports; done before it counts as running.
   * @returns notes for its user
   */
  publish(): Promise<string[]>;
  /** Called after each change of the record, and when nobody uses the VM any more. */
  onChanged(): void;
  /** Called once, when the VM is gone. */
  onRemoved(): void;
};

export const vmActor = ({
  row: recorded,
  ready,
  store,
  services,
  admit,
  publish,
  onChanged,
  onRemoved,
}: Parts): VmActor => {
  const { log } = services;
  const vm = vmMachine({ row: recorded, store, services, publish, onChanged });
  /** Set while a start or an adoption is under way, so that stop and delete need not wait for it. */
  let starting: AbortController | undefined;
  /** Set while it is being saved: likewise. */
  let saving: AbortController | undefined;
  /** A delete is under way: what has not begun yet does not begin any more. */
  let removing = false;
  /** Its guest stood still and could not be told the time yet. */
  let clockStands = false;
  /** How many work in it now. */
  let users = 0;
  let lastUsed = recorded.lastUsedAt;
  const lifecycle = mutex();

  /** Runs what ends in a VM that runs, so that `interrupt` ends it. */
  const whileStarting = async (progress: Progress, work: (limited: Progress) => Promise<void>): Promise<void> => {
    const controller = new AbortController();
    starting = controller;
    if (removing) interrupt("it was deleted");
    try {
      await work({ report: progress.report, signal: AbortSignal.any([progress.signal, controller.signal]) });
    } finally {
      starting = undefined;
    }
  };

  const start: VmActor["start"] = async (progress, { force = false, source, early } = {}) => {
    if (vm.row.state === "paused") return resume(progress);
    if (vm.row.state === "running" && vm.machine) {
      // It may be paused for want of room on the host's disk.
      await abortable(vm.machine.resume(), progress.signal);
      if (vm.connection && vm.row.reason !== undefined) await tellTime(vm.machine, progress);
      return vm.update({ reason: undefined });
    }
    await lifecycle.run(async () => {
      if (vm.row.state === "running") return;
      await whileStarting(progress, (limited) =>
        startVm({ vm, services, admit: (row) => admit(row, force), source, ready, early }, limited),
      );
    }, progress.signal);
  };

  const interrupt = (why: string) => {
    starting?.abort(new BangerError("CANCELLED", `the start of VM ${vm.row.name} was cancelled: ${why}`));
    saving?.abort(new BangerError("CANCELLED", `VM ${vm.row.name} was not saved: ${why}`));
  };

  /** The machine of a VM that `event` may happen to. */
  const machineFor = (event: VmEvent): Machine => {
    nextState(vm.row.name, vm.row.state, event);
    if (!vm.machine) throw stopped(vm.row);
    return vm.machine;
  };

  const pause: VmActor["pause"] = (progress) =>
    lifecycle.run(async () => {
      if (vm.row.state === "paused") return;
      await abortable(machineFor("pause").pause(), progress.signal);
      vm.apply("pause");
    }, progress.signal);

  const resume: VmActor["resume"] = (progress) =>
    lifecycle.run(async () => {
      if (vm.row.state === "running") return;
      const running = machineFor("resume");
      await abortable(running.resume(), progress.signal);
      vm.apply("resume");
      await tellTime(running, progress);
    }, progress.signal);

  /** The clock of a guest that stood still has stood still with it. */
  const tellTime = async (running: Machine, progress: Progress): Promise<void> => {
    clockStands = true;
    try {
      using limited = withDeadline(progress, ADOPT_LIMIT, () => agentLost(vm.row.name, ": it does not answer"));
      const guest = vm.connection ?? (await vm.greet(running, "known", limited)).connection;
      await setClock(guest, limited);
    } catch (error) {
      log.warn("guest is told the time when it answers", { vm: vm.row.name, error });
    }
  };

  const setClock = async (guest: GuestConnection, progress: Progress): Promise<void> => {
    if (!clockStands) return;
    await tellHostTime(guest, progress);
    clockStands = false;
  };

  /** Saves under the lock, but so that whoever ends the VM need not wait for it. */
  const saveUnder = <T>(progress: Progress, work: (running: Machine, progress: Progress) => Promise<T>): Promise<T> =>
    lifecycle.run(async () => {
      const running = machineFor("sleep");
      const controller = new AbortController();
      saving = controller;
      try {
        const signal = AbortSignal.any([progress.signal, controller.signal]);
        return await work(running, { report: progress.report, signal });
      } finally {
        saving = undefined;
      }
    }, progress.signal);

  /** A VMM that ends the agent's channel as it saves leaves a guest that must be greeted anew. */
  const greetIfCut = async (running: Machine) => {
    if (vm.connection || vm.machine !== running || vm.row.state !== "running") return;
    try {
      using limited = withDeadline(unattended, ADOPT_LIMIT, () => agentLost(vm.row.name, ": it does not answer"));
      await vm.greet(running, "known", limited);
      vm.note({ reason: undefined });
    } catch (error) {
      // Whoever wants the guest next tries again.
      log.warn("guest not greeted after it was saved", { vm: vm.row.name, error });
    }
  };

  const save: VmActor["save"] = async (target, progress) => {
    using _use = use();
    return await saveUnder(progress, async (running, limited) => {
      try {
        const guest = vm.row.state === "running" ? vm.connection : undefined;
        return await saveVm(vm.row, running, services, { target, disk: true, goOn: true, guest }, limited);
      } finally {
        await greetIfCut(running);
      }
    });
  };

  const sleep: VmActor["sleep"] = async (progress) => {
    if (vm.row.state === "asleep") return;
    using _use = use();
    await saveUnder(progress, async (running, limited) => {
      // If it cannot be woken one day it boots from its disk: nothing that was written is then lost.
      if (vm.connection && vm.row.state === "running") await callGuest(vm.connection, { op: "sync" }, limited);
      await putToSleep(vm.row, running, services, limited);
      vm.apply("sleep", { reason: undefined });
      await vm.end(running, "it went to sleep");
    });
  };

  const stop = async (progress: Progress, options: StopOptions = {}) => {
    // What its programs have not written down yet is in the memory it sleeps with.
    if (vm.row.state === "asleep") await start(progress);
    // One that runs and is only being taken up is waited for: its disks are to be synced.
    if (vm.row.state !== "running" && !options.onlyIf) interrupt("it was stopped");
    else saving?.abort(new BangerError("CANCELLED", `VM ${vm.row.name} was not saved: it was stopped`));
    const stopped = lifecycle.run(async () => {
      const running = vm.machine;
      if (vm.row.state === "stopped" || !running || options.onlyIf?.() === false) return;
      // A guest that stands still cannot shut down.
      if (vm.row.state === "paused") await running.resume();
      if (vm.row.state !== "stopping") vm.apply("stop");
      // A guest that has begun to shut down cannot be called back: whoever gives up waiting leaves a VM that will have stopped.
      await shutDown(vm, running, log, { ...progress, signal: unattended.signal }, options);
    }, progress.signal);
    stopped.catch(() => undefined);
    await abortable(stopped, progress.signal);
  };

  const restart = async (progress: Progress, options?: StopOptions) => {
    await stop(progress, options);
    await start(progress);
  };

  const set: VmActor["set"] = (request, progress) =>
    lifecycle.run(async () => {
      const { record, effects } = planChange(vm.row, request);
      const { diskSize } = vm.row;
      // Written first: a disk that was not grown yet is grown at the next start.
      vm.update(record);
      if (request.diskSize === undefined || vm.row.state !== "running" || !vm.machine) return effects;
      try {
        const told = await growDisk(vm.machine, vm.connection, request.diskSize, progress);
        return told ? effects : { ...effects, diskSize: "restart" as const };
      } catch (error) {
        vm.note({ diskSize });
        throw error;
      }
    }, progress.signal);

  const use = (): Disposable => {
    users++;
    touched();
    return {
      [Symbol.dispose]: () => {
        users--;
        touched();
        if (users === 0) onChanged();
      },
    };
  };

  /** Written down now and then only: a VM that is used all the time need not say so each time. */
  const touched = () => {
    lastUsed = Date.now();
    if (vm.row.state === "running" && lastUsed - (vm.row.lastUsedAt ?? 0) >= TOUCH_INTERVAL)
      vm.note({ lastUsedAt: lastUsed });
  };

  const idleSince = () => {
    if (vm.row.state !== "running" || users > 0) return undefined;
    return Math.max(lastUsed ?? 0, vm.row.startedAt ?? vm.row.createdAt);
  };

  const kill = async (signal: NodeJS.Signals) => {
    const ends = signal === "SIGKILL";
    // Others it may live through, and go on with what is under way.
    if (ends) interrupt("it was killed");
    const running = vm.machine;
    if (!running) return;
    if (ends) await vm.end(running, "killed");
    else await running.kill(signal);
  };

  const remove = async (progress: Progress, onlyIfStopped = false) => {
    if (onlyIfStopped) nextState(vm.row.name, vm.row.state, "delete");
    else removing = true;
    interrupt("it was deleted");
    try {
      if (vm.machine) await vm.end(vm.machine, undefined);
      await lifecycle.run(async () => {
        // What was waiting for its turn has come first.
        if (vm.machine && !onlyIfStopped) await vm.end(vm.machine, undefined);
        nextState(vm.row.name, vm.row.state, "delete");
        await ready?.discard();
        // The record goes last: a crash in between leaves a VM that can be deleted again.
        await Promise.all([
          removeWhole(vmFiles(vm.row.id).folder),
          rm(vmSockets(vm.row.id).folder, { recursive: true, force: true }),
        ]);
        store.remove(vm.row.id);
        onRemoved();
      }, progress.signal);
    } catch (error) {
      // What could not be removed is still there to be started.
      removing = false;
      throw error;
    }
  };

  /** A connection that broke, or a guest that stood still when a daemon took it up, is no reason to restart a VM whose agent lives. */
  const greetAgain = (progress: Progress): Promise<GuestConnection> =>
    lifecycle.run(async () => {
      if (vm.connection) return vm.connection;
      if (!vm.machine || vm.row.state !== "running" || vm.agentEnded) throw agentLost(vm.row.name);
      try {
        using limited = withDeadline(progress, ADOPT_LIMIT, () => agentLost(vm.row.name, ": it does not answer"));
        const greeted = await vm.greet(vm.machine, "known", limited);
        await setClock(greeted.connection, limited);
        vm.note({ reason: undefined });
        return greeted.connection;
      } catch (error) {
        throwIfAborted(progress.signal);
        throw agentLost(vm.row.name, `: ${toBangerError(error).message.split("\n")[0]}`, error);
      }
    }, progress.signal);

  const guest = async (progress: Progress): Promise<GuestConnection> => {
    // A start or an adoption under way is waited for; its own error goes to whoever asked for it.
    if (starting) await lifecycle.run(async () => undefined, progress.signal);
    // Whoever wakes it may give up waiting; the VM wakes all the same.
    if (vm.row.state === "asleep") await abortable(start({ ...unattended, report: progress.report }), progress.signal);
    if (vm.row.state !== "running" || !vm.machine) throw stopped(vm.row);
    return vm.connection ?? (await greetAgain(progress));
  };

  const adopt = (progress: Progress): Promise<void> => {
    const known = Promise.withResolvers<void>();
    const adopted = lifecycle.run(async () => {
      if (vm.row.state === "stopped" || (vm.row.state === "asleep" && vm.row.pid === undefined)) return;
      await whileStarting(progress, async (limited) => {
        try {
          const found = await findMachine(vm, services);
          if (found) vm.watch(found);
          known.resolve();
          if (found) await takeUp(vm, found, services, limited);
        } catch (error) {
          log.error("vm not adopted", { vm: vm.row.name, error });
        }
      });
    }, progress.signal);
    adopted.then(known.resolve, known.reject);
    return known.promise;
  };

  return {
    row: () => vm.row,
    start,
    stop,
    restart,
    pause,
    resume,
    save,
    sleep,
    set,
    record: vm.update,
    announce: onChanged,
    use,
    idleSince,
    kill,
    remove,
    guest,
    deviceUse: async () => vm.machine?.deviceUse(),
    adopt,
    detach: () => vm.machine?.detach(),
  };
};

const stopped = ({ name, state, reason }: VmRow) =>
  new BangerError("VM_STOPPED", `VM ${name} is ${state}${reason ? `: ${reason}` : ""}`, {
    hint: state === "paused" ? `let it go on: banger vm resume ${name}` : `start it with: banger vm start ${name}`,
  });

/** For work that nobody waits for. */
export const unattended: Progress = silentProgress();
