/** A saved machine that a VM starts from in place of a boot. */
import { rm } from "node:fs/promises";
import type { BangerError } from "../../contract/errors.ts";
import type { Progress } from "../../contract/progress.ts";
import { vmFiles } from "../../host/paths.ts";
import { cloneSaved } from "../saved/saved.ts";
import type { RestoredFrom } from "../store/vms.ts";
import type { Template, TemplateService } from "../templates/service.ts";
import type { GuestOrigin } from "./boot.ts";

export type Source = {
  kind: RestoredFrom;
  origin: Exclude<GuestOrigin, "boot" | "known">;
  /** File of its registers and devices. Its memory is the VM's `memory` once it is prepared. */
  state: string;
  /** Puts disk and memory in place. */
  prepare(progress: Progress): Promise<void>;
  /**
   * It was of no use. Leaves what a cold boot wants.
   * @returns what the user should know of it
   */
  discard(why: BangerError): Promise<string | undefined>;
};

/** A template for a VM that has never run. */
export const templateSource = (id: string, template: Template, templates: TemplateService): Source => {
  const files = vmFiles(id);
  const { files: saved, manifest } = template;
  return {
    kind: "template",
    origin: "clone",
    state: saved.state,
    prepare: (progress) => cloneSaved(saved, manifest.files, files, progress),
    discard: async (why) => {
      await Promise.all([files.disk, files.memory].map((path) => rm(path, { force: true })));
      // A full disk, or no room for a VMM, is not the template's fault.
      if (/^(VM_BOOT|GUEST|SAVED|VM_STOPPED)/.test(why.code)) await templates.reject(template, why);
      return undefined;
    },
  };
};
