/** A VM that runs, saved: for a snapshot, or to sleep. */
import type { Progress } from "../../contract/progress.ts";
import { type SavedFiles, savedFiles, vmFiles } from "../../host/paths.ts";
import type { Machine, Saved } from "../../vmm/driver.ts";
import { publish } from "../artifacts/published.ts";
import { stagingTree } from "../artifacts/staging.ts";
import { describeSaved, SAVED_MODE, type SavedManifest, signatureOf } from "../saved/saved.ts";
import type { VmRow } from "../store/vms.ts";
import type { GuestServices } from "./boot.ts";
import { OWN_DISK } from "./disk.ts";
import { planMachine, shapeOf } from "./plan.ts";

export type SavedVm = Saved & { manifest: SavedManifest };

export const saveVm = async (
  row: VmRow,
  machine: Machine,
  services: GuestServices,
  { target, disk, goOn }: { target: SavedFiles; disk: boolean; goOn: boolean },
  progress: Progress,
): Promise<SavedVm> => {
  const { driver } = services;
  const files = vmFiles(row.id);
  const shape = shapeOf(row);
  const plan = await planMachine(shape, services, progress);
  const signature = await signatureOf(plan, files, driver);
  progress.report({ stage: "save", message: "memory and disk" });
  const saved = await machine.save(
    {
      memorySize: row.memory,
      base: row.restored === undefined ? undefined : files.memory,
      target,
      disk: disk ? { index: OWN_DISK, target: target.disk } : undefined,
      goOn,
    },
    progress,
  );
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
