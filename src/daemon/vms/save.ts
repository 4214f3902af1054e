/** A VM that runs, saved: for a snapshot, or to sleep. */
import type { Progress } from "../../contract/progress.ts";
import { type SavedFiles, savedFiles, vmFiles } from "../../host/paths.ts";
import type { Machine, Saved } from "../../vmm/driver.ts";
import { publish } from "../artifacts/published.ts";
import { stagingTree } from "../artifacts/staging.ts";
import { describeSaved, SAVED_MODE, type SavedManifest, signatureOf } from "../saved/saved.ts";
import type { VmRow } from "../store/vms.ts";
import type { GuestConnection } from "../../guest/connection.ts";
import type { GuestServices } from "./boot.ts";
import { holdForCopies, releaseGuest } from "./hold.ts";
import { OWN_DISK } from "./disk.ts";
import { planMachine, shapeOf } from "./plan.ts";

export type SavedVm = Saved & { manifest: SavedManifest };

/** @param options.guest of a VM that is running and of which there will be copies */
export const saveVm = async (
  row: VmRow,
  machine: Machine,
  services: GuestServices,
  {
    target,
    disk,
    goOn,
    guest,
  }: { target: SavedFiles; disk: boolean; goOn: boolean; guest?: GuestConnection | undefined },
  progress: Progress,
): Promise<SavedVm> => {
  const { driver } = services;
  const files = vmFiles(row.id);
  const shape = shapeOf(row);
  const plan = await planMachine(shape, services, progress);
  const signature = await signatureOf(plan, files, driver);
  progress.report({ stage: "save", message: "memory and disk" });
  let held = false;
  let saved: Saved;
  try {
    saved = await machine.save(
      {
        memorySize: row.memory,
        base: row.restored === undefined ? undefined : files.memory,
        target,
        disk: disk ? { index: OWN_DISK, target: target.disk } : undefined,
        goOn,
        beforePause: async () => {
          held = await holdForCopies(guest, progress);
        },
      },
      progress,
    );
  } finally {
    // Where the VMM has cut the connection, the next greeting does it.
    if (held) releaseGuest(guest);
  }
  const manifest = await describeSaved(target, {
    shape,
    plan,
    signature,
    vmm: driver.name,
    disk,
    vm: {
      name: row.name,
      env: row.env,
      labels: row.labels,
      rules: [...row.rules],
      secrets: [...row.secrets],
      ...(row.workspace ? { workspace: row.workspace } : {}),
    },
  });
  return { ...saved, manifest };
};

/** Saves the VM in its own folder and leaves its machine standing still; when that fails, it goes on. */
export const putToSleep = async (
  row: VmRow,
  machine: Machine,
  services: GuestServices,
  progress: Progress,
): Promise<void> => {
  await using staging = await stagingTree("sleep");
  await saveVm(row, machine, services, { target: savedFiles(staging.path), disk: false, goOn: false }, progress);
  try {
    await publish(staging.path, vmFiles(row.id).asleep, SAVED_MODE);
  } catch (error) {
    await machine.resume();
    throw error;
  }
};
