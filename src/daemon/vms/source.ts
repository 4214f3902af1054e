/** A saved machine that a VM starts from in place of a boot. */
import { rename, rm } from "node:fs/promises";
import { BangerError } from "../../contract/errors.ts";
import type { Progress } from "../../contract/progress.ts";
import { exists } from "../../host/files.ts";
import { type SavedFiles, savedFiles, vmFiles } from "../../host/paths.ts";
import {
  checkSameMachine,
  cloneSaved,
  linkMemory,
  readSaved,
  type SavedManifest,
  signatureOf,
  verifySaved,
} from "../saved/saved.ts";
import type { RestoredFrom, VmRow } from "../store/vms.ts";
import type { FoundTemplate, TemplateService } from "../templates/service.ts";
import type { GuestOrigin, GuestServices } from "./boot.ts";
import { type MachinePlan, planMachine, shapeOf } from "./plan.ts";
import type { ReadyVm } from "./pool.ts";

export type Source = {
  kind: RestoredFrom;
  origin: Exclude<GuestOrigin, "boot" | "known">;
  /** It runs already, paused. */
  ready?: ReadyVm | undefined;
  /** File of its registers and devices. Its memory is the VM's `memory` once it is prepared. */
  state: string;
  /**
   * Puts disk and memory in place.
   * @returns the machine that goes on
   */
  prepare(progress: Progress): Promise<MachinePlan>;
  /** The guest has gone on from it. */
  done?(): Promise<void>;
  /**
   * It was of no use. Leaves what a cold boot wants.
   * @returns what the user should know of it
   * @throws what is in the way of a cold boot
   */
  discard(why: BangerError): Promise<string | undefined>;
};

/** A template for a VM that has never run. */
export const templateSource = (id: string, template: FoundTemplate, templates: TemplateService): Source => {
  const files = vmFiles(id);
  const { files: saved, manifest } = template;
  return {
    kind: "template",
    origin: "clone",
    state: saved.state,
    prepare: async (progress) => {
      await cloneSaved(saved, manifest.files, files, progress);
      return template.plan;
    },
    discard: async (why) => {
      await Promise.all([files.disk, files.memory].map((path) => rm(path, { force: true })));
      // A full disk, or no room for a VMM, is not the template's fault.
      if (/^(VM_BOOT|GUEST|SAVED|VM_STOPPED)/.test(why.code)) await templates.reject(template, why);
      return undefined;
    },
  };
};

/** A VM that stood ready, for one that has never run. */
export const readySource = (ready: ReadyVm): Source => {
  const files = vmFiles(ready.id);
  return {
    kind: "template",
    origin: "clone",
    ready,
    state: "",
    prepare: async () => ready.plan,
    done: () => ready.unmark(),
    discard: async () => {
      await ready.machine.kill();
      await Promise.all([files.disk, files.memory].map((path) => rm(path, { force: true })));
      await ready.unmark();
      return undefined;
    },
  };
};

/** A snapshot for a VM that has never run. Where its memory is of no use, the VM boots from its disk. */
export const snapshotSource = (
  row: VmRow,
  saved: SavedFiles,
  manifest: SavedManifest,
  services: GuestServices,
): Source => {
  const files = vmFiles(row.id);
  return {
    kind: "snapshot",
    origin: "clone",
    state: saved.state,
    prepare: async (progress) => {
      await cloneSaved(saved, manifest.files, files, progress);
      return await checkUsable(row, saved, manifest, services, progress);
    },
    discard: async (why) => {
      await rm(files.memory, { force: true });
      if (!(await exists(files.disk))) throw why;
      return `its memory could not be restored (${why.message}); it was booted from its disk`;
    },
  };
};

/**
 * What a sleeping VM wakes from. It is used up as it is used: once the guest has gone on, its disk no longer fits the memory that was saved.
 */
export const sleepSource = (row: VmRow, services: GuestServices): Source => {
  const files = vmFiles(row.id);
  const used = savedFiles(files.waking);
  const remove = () =>
    Promise.all([files.waking, files.asleep].map((path) => rm(path, { recursive: true, force: true })));
  return {
    kind: "sleep",
    origin: "wake",
    state: used.state,
    prepare: async (progress) => {
      const saved = savedFiles(files.asleep);
      const manifest = await readSaved(saved);
      if (!manifest) throw new BangerError("SAVED_CORRUPT", "what was saved of it is gone");
      const plan = await checkUsable(row, saved, manifest, services, progress);
      await rm(files.waking, { recursive: true, force: true });
      await rename(files.asleep, files.waking);
      await linkMemory(used.memory, files.memory, progress);
      return plan;
    },
    done: async () => void (await remove()),
    discard: async (why) => {
      await remove();
      await rm(files.memory, { force: true });
      return `it could not be woken (${why.message}); it was booted from its disk`;
    },
  };
};

const checkUsable = async (
  row: VmRow,
  saved: SavedFiles,
  manifest: SavedManifest,
  services: GuestServices,
  progress: Progress,
): Promise<MachinePlan> => {
  await verifySaved(saved, manifest);
  const plan = await planMachine(shapeOf(row), services, progress);
  checkSameMachine(manifest, await signatureOf(plan, vmFiles(row.id), services.driver), plan);
  return plan;
};
