/** What VMs need of the rest of the daemon. */
import type { TemplateService } from "../templates/service.ts";
import type { GuestServices } from "./boot.ts";
import type { SyncEntry } from "./file-sync.ts";
import type { startNotes } from "./notes.ts";

export type BootServices = GuestServices & {
  templates: TemplateService;
  startNotes: ReturnType<typeof startNotes>;
  /** What each VM gets of the user's own files. */
  readonly fileSync: readonly SyncEntry[];
  /** After so long without use a VM is stopped, in ms; undefined: never. */
  readonly autoStopAfter: number | undefined;
};
