/** One VM over time. All changes of its state go through here, one at a time. */
import { rm } from "node:fs/promises";
import { BangerError, toBangerError } from "../../contract/errors.ts";
import { abortable, type Progress, silentProgress, throwIfAborted, withDeadline } from "../../contract/progress.ts";
import type { SetEffect, SetVm } from "../../contract/vms.ts";
import { callGuest } from "../../guest/call.ts";
import type { GuestConnection } from "../../guest/connection.ts";
import { exists } from "../../host/files.ts";
import { type SavedFiles, vmFiles, vmSockets } from "../../host/paths.ts";
import { hostBootId } from "../../host/proc.ts";
import type { Machine } from "../../vmm/driver.ts";
import type { RestoredFrom, VmRow, VmStore } from "../store/vms.ts";
import { type Guest, type GuestOrigin, greetGuest, startMachine } from "./boot.ts";
import { planChange } from "./change.ts";
import { keepConsole } from "./console-log.ts";
import { growDisk, removeHalfDisk } from "./disk.ts";
import { syncFiles } from "./file-sync.ts";
import { mutex } from "./mutex.ts";
import { shapeOf } from "./plan.ts";
import type { BootServices } from "./services.ts";
import { putToSleep, type SavedVm, saveVm } from "./save.ts";
import { type Source, sleepSource, templateSource } from "./source.ts";
import { nextState, type VmEvent } from "./state.ts";

/** How long a guest may take to shut down before its VMM is ended, in ms. */
const STOP_LIMIT = 90_000;
/** How long a guest that runs may take to answer a new daemon, in ms. */
const ADOPT_LIMIT = 15_000;
const MAX_EPOCH = 65535;
/** Between two records of a VM's use, in ms. */
const TOUCH_INTERVAL = 10_000;

export type VmActor = {
  row(): VmRow;
  /** @throws HOST_LIMIT when the host has too little memory for it, unless `force` */
  /** A sleeping VM is woken, a paused one resumed. `source`: what a VM that has never run goes on from. */
  start(progress: Progress, force?: boolean, source?: Source): Promise<void>;
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
  record(change: Partial<Pick<VmRow, "published" | "autoPublish" | "notes">>): void;
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
  /**
   * At daemon start: takes up a machine that an earlier daemon left running, or records that it is gone. Resolves as soon as that is known;
   * the guest, which may take its time or never answer, is greeted after it.
   */
  adopt(progress: Progress): Promise<void>;
  /** Lets go of the machine without touching it. */
  detach(): void;
};

export type StopOptions = {
  /** How long the guest may take to shut down before its VMM is ended, in ms. */
  limit?: number | undefined;
  /** What the record then says, where nobody asked for it. */
  reason?: string | undefined;
  /** Asked at the last moment; a VM that somebody has begun to use meanwhile goes on. */
  onlyIf?: (() => boolean) | undefined;
};

type Parts = {
  row: VmRow;
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

export const vmActor = ({ row: recorded, store, services, admit, publish, onChanged, onRemoved }: Parts): VmActor => {
  const { log } = services;
  let row = recorded;
  let machine: Machine | undefined;
  let connection: GuestConnection | undefined;
  /** Set while a start is under way, so that stop and delete need not wait for it. */
  let starting: AbortController | undefined;
  /** Set while it is being saved: likewise. */
  let saving: AbortController | undefined;
  /** Set when the end of the machine was asked for: what the record then says of it. */
  let askedEnd: { reason: string | undefined } | undefined;
  /** The agent has closed its end inside the guest. */
  let agentEnded = false;
  /** A delete is under way: what has not begun yet does not begin any more. */
  let removing = false;
  /** How many work in it now. */
  let users = 0;
  let lastUsed = recorded.lastUsedAt;
  const lifecycle = mutex();

  const update = (change: Partial<VmRow>) => {
    store.update(row.id, change);
    row = { ...row, ...change };
    onChanged();
  };

  /** As `update`, for what has happened whether or not it can be written down (a full disk): the daemon goes on with what it knows. */
  const note = (change: Partial<VmRow>) => {
    try {
      update(change);
    } catch (error) {
      log.error("vm record not written", { vm: row.name, error });
      row = { ...row, ...change };
      onChanged();
    }
  };

  const apply = (event: VmEvent, change: Partial<VmRow> = {}) => {
    const state = nextState(row.name, row.state, event);
    if (state !== "gone") update({ ...change, state });
  };

  const onEnded = (ended: Machine, cause: string) => {
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

  /** Ends the VMM now; the record then says `reason`. */
  const endMachine = async (running: Machine, reason: string | undefined) => {
    askedEnd = { reason };
    await running.kill();
    onEnded(running, "killed");
  };

  const watch = (started: Machine) => {
    machine = started;
    agentEnded = false;
    void started.ended.then((end) => onEnded(started, end.reason));
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

  const greet = async (started: Machine, origin: GuestOrigin, progress: Progress) => {
    const epoch = (row.epoch % MAX_EPOCH) + 1;
    update({ epoch });
    const guest = await greetGuest(row, started, services, { origin, epoch }, progress);
    const { connection: greeted } = guest;
    connection = greeted;
    void greeted.closed.then((error) => {
      if (connection !== greeted) return;
      log.warn("guest connection lost", { vm: row.name, error });
      connection = undefined;
      if (row.state === "running") note({ reason: error.message });
    });
    return guest;
  };

  /** From a guest that answers to a VM that is running: with the user's files in it. */
  const complete = async ({ connection: guest, notes }: Guest, progress: Progress) => {
    const [synced, unpublished] = await Promise.all([syncFiles(guest, services.fileSync, progress), publish()]);
    apply("ready", { notes: [...row.notes, ...notes, ...synced, ...unpublished] });
  };

  /** Starts the machine, anew or from `source`, and waits for its guest. */
  const bringUp = async (source: Source | undefined, progress: Progress): Promise<Guest> => {
    if (source) progress.report({ stage: "restore", message: "disk and memory" });
    await source?.prepare(progress);
    const started = await startMachine(
      row,
      services,
      {
        from: source && { state: source.state, memory: vmFiles(row.id).memory },
        onIdentity: async ({ pid, startTime, helpers }) =>
          update({ pid, pidStart: startTime, helpers, hostBoot: await hostBootId(), restored: source?.kind }),
      },
      progress,
    );
    watch(started);
    const guest = await greet(started, source?.origin ?? "boot", progress);
    await source?.done?.();
    update({ startedAt: Date.now(), lastUsedAt: Date.now() });
    return guest;
  };

  /** As `bringUp`; a source that turns out to be of no use is passed over. */
  const bringUpSomehow = async (source: Source | undefined, progress: Progress): Promise<Guest> => {
    if (!source) return bringUp(undefined, progress);
    try {
      return await bringUp(source, progress);
    } catch (error) {
      throwIfAborted(progress.signal);
      const failed = machine;
      machine = undefined;
      await failed?.kill();
      update({ pid: undefined, pidStart: undefined, helpers: [] });
      const why = toBangerError(error);
      log.warn("saved machine is of no use; the VM boots cold", { vm: row.name, from: source.kind, why: why.message });
      const told = await source.discard(why);
      const guest = await bringUp(undefined, progress);
      return told ? { ...guest, notes: [...guest.notes, told] } : guest;
    }
  };

  /** What it starts from, where it need not boot. */
  const findSource = async (progress: Progress, wasAsleep: boolean): Promise<Source | undefined> => {
    if (wasAsleep) return sleepSource(row, services);
    if (row.startedAt !== undefined || (await exists(vmFiles(row.id).disk))) return undefined;
    const template = await services.templates.find(shapeOf(row), progress);
    return template && templateSource(row.id, template, services.templates);
  };

  const boot = async (progress: Progress, force: boolean, given?: Source) => {
    const host = await services.driver.host();
    const wasAsleep = row.state === "asleep";
    const { startedAt } = row;
    // What was set while it ran is there from this start on; what only slept goes on as it was.
    const next = wasAsleep ? {} : row.next;
    const room = await admit({ ...row, ...next }, force);
    const notes = [...services.startNotes(host, next.network ?? row.network), ...room];
    apply("start", {
      ...next,
      next: wasAsleep ? row.next : {},
      reason: undefined,
      notes,
      vmm: services.driver.name,
      accel: host.accel,
    });
    try {
      await complete(await bringUpSomehow(given ?? (await findSource(progress, wasAsleep)), progress), progress);
      if (startedAt === undefined && row.restored === undefined) services.templates.want(shapeOf(row));
    } catch (error) {
      const { code, message } = toBangerError(error);
      const reason = code === "CANCELLED" ? undefined : message.split("\n")[0];
      if (machine) await endMachine(machine, reason);
      const asleep = wasAsleep && (await exists(vmFiles(row.id).asleep));
      if (asleep) note({ ...noProcess(), state: "asleep", reason });
      else note(row.state === "stopped" ? { reason } : { ...nothingRuns(), reason });
      throw error;
    }
  };

  const start: VmActor["start"] = async (progress, force = false, source) => {
    if (row.state === "paused") return resume(progress);
    if (row.state === "running" && machine) {
      // It may be paused for want of room on the host's disk.
      await abortable(machine.resume(), progress.signal);
      return update({ reason: undefined });
    }
    await lifecycle.run(async () => {
      if (row.state === "running") return;
      const controller = new AbortController();
      starting = controller;
      if (removing) interrupt("it was deleted");
      try {
        await boot(
          { report: progress.report, signal: AbortSignal.any([progress.signal, controller.signal]) },
          force,
          source,
        );
      } finally {
        starting = undefined;
      }
    }, progress.signal);
  };

  const interrupt = (why: string) => {
    starting?.abort(new BangerError("CANCELLED", `the start of VM ${row.name} was cancelled: ${why}`));
    saving?.abort(new BangerError("CANCELLED", `VM ${row.name} was not saved: ${why}`));
  };

  /** The machine of a VM that `event` may happen to. */
  const machineFor = (event: VmEvent): Machine => {
    nextState(row.name, row.state, event);
    if (!machine) throw stopped(row);
    return machine;
  };

  const pause: VmActor["pause"] = (progress) =>
    lifecycle.run(async () => {
      if (row.state === "paused") return;
      await abortable(machineFor("pause").pause(), progress.signal);
      apply("pause");
    }, progress.signal);

  const resume: VmActor["resume"] = (progress) =>
    lifecycle.run(async () => {
      if (row.state === "running") return;
      await abortable(machineFor("resume").resume(), progress.signal);
      apply("resume");
    }, progress.signal);

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

  const save: VmActor["save"] = (target, progress) =>
    saveUnder(progress, (running, limited) =>
      saveVm(row, running, services, { target, disk: true, goOn: true }, limited),
    );

  const sleep: VmActor["sleep"] = async (progress) => {
    if (row.state === "asleep") return;
    await saveUnder(progress, async (running, limited) => {
      // If it cannot be woken one day it boots from its disk: nothing that was written is then lost.
      if (connection && row.state === "running") await callGuest(connection, { op: "sync" }, limited);
      await putToSleep(row, running, services, limited);
      apply("sleep", { reason: undefined });
      await endMachine(running, "it went to sleep");
    });
  };

  const shutDown = async (running: Machine, progress: Progress, { limit = STOP_LIMIT, reason }: StopOptions = {}) => {
    askedEnd = { reason };
    using limited = withDeadline(
      progress,
      limit,
      () => new BangerError("VM_BOOT_TIMEOUT", "the guest did not shut down in time"),
    );
    try {
      if (!connection) throw new BangerError("GUEST_AGENT_LOST", "there is no guest agent to ask");
      progress.report({ stage: "stop", message: "the guest syncs its disks and shuts down" });
      await callGuest(connection, { op: "shutdown", mode: "reboot" }, limited);
      const end = await abortable(running.ended, limited.signal);
      onEnded(running, end.reason);
    } catch (error) {
      throwIfAborted(progress.signal);
      // The agent's answer may be lost in the guest's own end; only a machine that stays needs more.
      const end = await Promise.race([
        running.ended,
        new Promise<undefined>((resolve) => setTimeout(resolve, 1000, undefined)),
      ]);
      if (end) return onEnded(running, end.reason);
      log.warn("guest did not shut down; its VMM is ended", { vm: row.name, error });
      await endMachine(running, "the guest did not shut down in time");
    }
  };

  const stop = async (progress: Progress, options: StopOptions = {}) => {
    // What its programs have not written down yet is in the memory it sleeps with.
    if (row.state === "asleep") await start(progress);
    // One that runs and is only being taken up is waited for: its disks are to be synced.
    if (row.state !== "running" && !options.onlyIf) interrupt("it was stopped");
    else saving?.abort(new BangerError("CANCELLED", `VM ${row.name} was not saved: it was stopped`));
    const stopped = lifecycle.run(async () => {
      const running = machine;
      if (row.state === "stopped" || !running || options.onlyIf?.() === false) return;
      // A guest that stands still cannot shut down.
      if (row.state === "paused") await running.resume();
      if (row.state !== "stopping") apply("stop");
      // A guest that has begun to shut down cannot be called back: whoever gives up waiting leaves a VM that will have stopped.
      await shutDown(running, { ...progress, signal: unattended.signal }, options);
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
      const { record, effects } = planChange(row, request);
      const { diskSize } = row;
      // Written first: a disk that was not grown yet is grown at the next start.
      update(record);
      if (request.diskSize === undefined || row.state !== "running" || !machine) return effects;
      try {
        const told = await growDisk(machine, connection, request.diskSize, progress);
        return told ? effects : { ...effects, diskSize: "restart" as const };
      } catch (error) {
        note({ diskSize });
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
    if (row.state === "running" && lastUsed - (row.lastUsedAt ?? 0) >= TOUCH_INTERVAL) note({ lastUsedAt: lastUsed });
  };

  const idleSince = () => {
    if (row.state !== "running" || users > 0) return undefined;
    return Math.max(lastUsed ?? 0, row.startedAt ?? row.createdAt);
  };

  const kill = async (signal: NodeJS.Signals) => {
    interrupt("it was killed");
    const running = machine;
    if (!running) return;
    if (signal === "SIGKILL") await endMachine(running, "killed");
    else await running.kill(signal);
  };

  const remove = async (progress: Progress, onlyIfStopped = false) => {
    if (onlyIfStopped) nextState(row.name, row.state, "delete");
    else removing = true;
    interrupt("it was deleted");
    if (machine) await endMachine(machine, undefined);
    await lifecycle.run(async () => {
      // What was waiting for its turn has come first.
      if (machine && !onlyIfStopped) await endMachine(machine, undefined);
      nextState(row.name, row.state, "delete");
      // The record goes last: a crash in between leaves a VM that can be deleted again.
      await rm(vmFiles(row.id).folder, { recursive: true, force: true });
      await rm(vmSockets(row.id).folder, { recursive: true, force: true });
      store.remove(row.id);
      onRemoved();
    }, progress.signal);
  };

  /** A connection that broke, or a guest that stood still when a daemon took it up, is no reason to restart a VM whose agent lives. */
  const greetAgain = (progress: Progress): Promise<GuestConnection> =>
    lifecycle.run(async () => {
      if (connection) return connection;
      if (!machine || row.state !== "running" || agentEnded) throw agentLost(row.name);
      try {
        using limited = withDeadline(progress, ADOPT_LIMIT, () => agentLost(row.name, ": it does not answer"));
        const greeted = await greet(machine, "known", limited);
        note({ reason: undefined });
        return greeted.connection;
      } catch (error) {
        throwIfAborted(progress.signal);
        throw agentLost(row.name, `: ${toBangerError(error).message.split("\n")[0]}`, error);
      }
    }, progress.signal);

  const guest = async (progress: Progress): Promise<GuestConnection> => {
    // A start or an adoption under way is waited for; its own error goes to whoever asked for it.
    if (starting) await lifecycle.run(async () => undefined, progress.signal);
    // Whoever wakes it may give up waiting; the VM wakes all the same.
    if (row.state === "asleep") await abortable(start({ ...unattended, report: progress.report }), progress.signal);
    if (row.state !== "running" || !machine) throw stopped(row);
    return connection ?? (await greetAgain(progress));
  };

  /** The machine that an earlier daemon left; undefined when it is gone, which is then recorded. */
  const findMachine = async (): Promise<Machine | undefined> => {
    const { pid, pidStart, helpers, hostBoot } = row;
    // After a restart of the host its numbers belong to others.
    const restarted = hostBoot !== undefined && hostBoot !== (await hostBootId());
    const known = !restarted && pid !== undefined && pidStart !== undefined;
    const identity = known ? { pid, startTime: pidStart, helpers } : undefined;
    const found = identity && (await services.driver.adopt(identity, vmSockets(row.id)));
    if (found) return found;
    await rm(vmSockets(row.id).folder, { recursive: true, force: true });
    await removeHalfDisk(row.id);
    const died = restarted ? "the host was restarted" : "it ended while no daemon was running";
    const reason = row.state === "stopping" ? undefined : died;
    note(row.state === "asleep" ? noProcess() : { ...nothingRuns(), reason });
    return undefined;
  };

  /** Goes on with a machine that was found: what was under way is finished, else its agent is greeted. */
  const takeUp = async (found: Machine, progress: Progress) => {
    keepConsole(found.console, vmFiles(row.id), log);
    // Whoever ran it went away with the earlier daemon.
    if (row.ephemeral) return endMachine(found, undefined);
    if (row.state === "stopping") return shutDown(found, progress);
    if (row.state === "asleep") return endMachine(found, "it went to sleep");
    if (row.state === "paused") return;
    try {
      // A daemon that died while it saved the VM has left it standing still.
      await rm(vmFiles(row.id).asleep, { recursive: true, force: true });
      const limit = row.state === "starting" ? services.bootTimeout : ADOPT_LIMIT;
      const late = () => new BangerError("VM_BOOT_TIMEOUT", "it did not answer a new daemon");
      using limited = withDeadline(progress, limit, late);
      // A QEMU that stands still itself does not answer either.
      if (row.state === "running") await abortable(found.resume(), limited.signal);
      // A guest that was being started may not know yet who it is.
      const origin = row.state !== "starting" ? "known" : originOf(row.restored);
      const guest = await greet(found, origin, limited);
      if (row.state === "starting") await complete(guest, limited);
    } catch (error) {
      log.error("adopted vm does not answer", { vm: row.name, error });
      if (machine !== found) return;
      if (row.state === "starting") await endMachine(found, "its guest did not answer a new daemon");
      else note({ reason: "its guest agent did not answer a new daemon" });
    }
  };

  const adopt = (progress: Progress): Promise<void> => {
    const known = Promise.withResolvers<void>();
    const adopted = lifecycle.run(async () => {
      if (row.state === "stopped" || (row.state === "asleep" && row.pid === undefined)) return;
      const controller = new AbortController();
      starting = controller;
      if (removing) interrupt("it was deleted");
      try {
        const found = await findMachine();
        if (found) watch(found);
        known.resolve();
        const signal = AbortSignal.any([progress.signal, controller.signal]);
        if (found) await takeUp(found, { report: progress.report, signal });
      } catch (error) {
        log.error("vm not adopted", { vm: row.name, error });
      } finally {
        starting = undefined;
      }
    }, progress.signal);
    adopted.then(known.resolve, known.reject);
    return known.promise;
  };

  const detach = () => machine?.detach();
  return {
    row: () => row,
    start,
    stop,
    restart,
    pause,
    resume,
    save,
    sleep,
    set,
    record: update,
    announce: onChanged,
    use,
    idleSince,
    kill,
    remove,
    guest,
    adopt,
    detach,
  };
};

const agentLost = (name: string, why = "", cause?: unknown) =>
  new BangerError("GUEST_AGENT_LOST", `the guest agent of VM ${name} is gone${why}`, {
    hint: `restart the VM: banger vm stop ${name} && banger vm start ${name}`,
    cause,
  });

const originOf = (restored: RestoredFrom | undefined): GuestOrigin =>
  restored === undefined ? "boot" : restored === "sleep" ? "wake" : "clone";

const stopped = ({ name, state, reason }: VmRow) =>
  new BangerError("VM_STOPPED", `VM ${name} is ${state}${reason ? `: ${reason}` : ""}`, {
    hint: state === "paused" ? `let it go on: banger vm resume ${name}` : `start it with: banger vm start ${name}`,
  });

const noProcess = () => ({ pid: undefined, pidStart: undefined, helpers: [], stoppedAt: Date.now() });
/** Of a VM whose machine is gone. */
const nothingRuns = () => ({ ...noProcess(), state: "stopped" as const });

/** For work that nobody waits for. */
export const unattended: Progress = silentProgress();
