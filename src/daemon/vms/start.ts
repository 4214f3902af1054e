/** From a VM that does not run to one whose guest answers: from a saved machine where there is one, else by a boot. */
import { toBangerError } from "../../contract/errors.ts";
import { abortable, type Progress, throwIfAborted } from "../../contract/progress.ts";
import { exists } from "../../host/files.ts";
import { vmFiles } from "../../host/paths.ts";
import { hostBootId } from "../../host/proc.ts";
import type { Machine, MachineIdentity } from "../../vmm/driver.ts";
import { needsFilter, writeRules } from "../network/rules-file.ts";
import type { VmRow } from "../store/vms.ts";
import { type Early, type Guest, startMachine } from "./boot.ts";
import { shapeOf } from "./plan.ts";
import { isSameShape, type ReadyVm, removeReady } from "./pool.ts";
import type { BootServices } from "./services.ts";
import { readySource, type Source, sleepSource, templateSource } from "./source.ts";
import { noProcess, nothingRuns, type VmMachine } from "./vm-machine.ts";

export type StartParts = {
  vm: VmMachine;
  services: BootServices;
  /**
   * Whether the host has room for the VM beside those that run.
   * @returns notes for its user
   * @throws HOST_LIMIT
   */
  admit(row: VmRow): Promise<string[]>;
  /** What a VM that has never run goes on from. */
  source: Source | undefined;
  /** What stood ready for its first start. */
  ready: ReadyVm | undefined;
  early: Early | undefined;
};

/** When it fails, the VM is what it was, with the reason in its record. */
export const startVm = async (
  { vm, services, admit, source, ready, early }: StartParts,
  progress: Progress,
): Promise<void> => {
  using _start = services.crowd.join();
  const host = await services.driver.host();
  const wasAsleep = vm.row.state === "asleep";
  const { startedAt } = vm.row;
  // What was set while it ran is there from this start on; what only slept goes on as it was.
  const next = wasAsleep ? {} : vm.row.next;
  const room = await admit({ ...vm.row, ...next });
  const notes = [...services.startNotes(host, next.network ?? vm.row.network), ...room];
  vm.apply("start", {
    ...next,
    next: wasAsleep ? vm.row.next : {},
    reason: undefined,
    notes,
    vmm: services.driver.name,
    accel: host.accel,
  });
  try {
    const from = source ?? (await findSource(vm.row, services, { wasAsleep, ready }, progress));
    // The user's files and placeholders are in the VM, and its ports are open, before anything else is asked of it.
    const { published, secrets } = vm.row;
    const ask = services.fileSync.length + published.length + secrets.length === 0 ? early : undefined;
    await vm.complete(await bringUpSomehow(vm, services, from, progress, ask), progress);
    if (startedAt === undefined && vm.row.restored === undefined) services.templates.want(shapeOf(vm.row));
    if (startedAt === undefined) services.pool.want(shapeOf(vm.row));
  } catch (error) {
    const { code, message } = toBangerError(error);
    const reason = code === "CANCELLED" ? undefined : message.split("\n")[0];
    if (vm.machine) await vm.end(vm.machine, reason);
    const asleep = wasAsleep && (await exists(vmFiles(vm.row.id).asleep));
    if (asleep) vm.note({ ...noProcess(), state: "asleep", reason });
    else vm.note(vm.row.state === "stopped" ? { reason } : { ...nothingRuns(), reason });
    throw error;
  }
};

/** What it starts from, where it need not boot. */
const findSource = async (
  row: VmRow,
  services: BootServices,
  { wasAsleep, ready }: { wasAsleep: boolean; ready: ReadyVm | undefined },
  progress: Progress,
): Promise<Source | undefined> => {
  if (wasAsleep) return sleepSource(row, services);
  if (row.startedAt !== undefined) return undefined;
  const isAsItWas = ready && !needsFilter(row) && isSameShape(ready.shape, shapeOf(row));
  if (isAsItWas && (await ready.claim())) return readySource(ready);
  // It was set to be another machine meanwhile, or an earlier daemon's start came to nothing.
  await ready?.discard();
  await removeReady(row.id);
  if (await exists(vmFiles(row.id).disk)) return undefined;
  const template = await services.templates.find(shapeOf(row), progress);
  return template && templateSource(row.id, template, services.templates);
};

/** Starts the machine, anew or from `source`, and waits for its guest. */
const bringUp = async (
  vm: VmMachine,
  services: BootServices,
  source: Source | undefined,
  progress: Progress,
  early?: Early,
): Promise<Guest> => {
  if (source) progress.report({ stage: "restore", message: "disk and memory" });
  const plan = await source?.prepare(progress);
  const onIdentity = async ({ pid, startTime, helpers }: MachineIdentity) =>
    vm.update({ pid, pidStart: startTime, helpers, hostBoot: await hostBootId(), restored: source?.kind });
  // Others may come while it starts.
  const rules = () => services.networkOf(vm.row);
  const takeOver = async ({ machine }: ReadyVm): Promise<Machine> => {
    // It runs: from here on whoever ends the VM ends it.
    vm.watch(machine);
    await onIdentity(machine.identity);
    if (vm.row.network !== "none") await writeRules(vmFiles(vm.row.id).networkRules, rules);
    await abortable(machine.resume(), progress.signal);
    return machine;
  };
  const startAnew = async (): Promise<Machine> => {
    const from = source && { state: source.state, memory: vmFiles(vm.row.id).memory };
    const machine = await startMachine(vm.row, services, { rules, from, plan, onIdentity }, progress);
    vm.watch(machine);
    return machine;
  };
  const waited = source?.ready;
  const started = await (waited ? takeOver(waited) : startAnew());
  const guest = await vm.greet(started, source?.origin ?? "boot", progress, { connection: waited?.connection, early });
  await source?.done?.();
  vm.update({ startedAt: Date.now(), lastUsedAt: Date.now() });
  return guest;
};

/** As `bringUp`; a source that turns out to be of no use is passed over. */
const bringUpSomehow = async (
  vm: VmMachine,
  services: BootServices,
  source: Source | undefined,
  progress: Progress,
  early: Early | undefined,
): Promise<Guest> => {
  if (!source) return bringUp(vm, services, undefined, progress);
  try {
    return await bringUp(vm, services, source, progress, early);
  } catch (error) {
    throwIfAborted(progress.signal);
    await vm.discard();
    const why = toBangerError(error);
    const told = { vm: vm.row.name, from: source.kind, why: why.message };
    services.log.warn("saved machine is of no use; the VM boots cold", told);
    const note = await source.discard(why);
    const guest = await bringUp(vm, services, undefined, progress);
    return note ? { ...guest, notes: [...guest.notes, note] } : guest;
  }
};
