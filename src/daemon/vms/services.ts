/** What VMs need of the rest of the daemon. */
import type { NetworkRules } from "../network/rules-file.ts";
import type { SecretService } from "../secrets/service.ts";
import type { VmRow } from "../store/vms.ts";
import type { TemplateService } from "../templates/service.ts";
import type { GuestServices } from "./boot.ts";
import type { SyncEntry } from "./file-sync.ts";
import type { startNotes } from "./notes.ts";
import type { Pool } from "./pool.ts";

export type BootServices = GuestServices & {
  templates: TemplateService;
  pool: Pool;
  secrets: SecretService;
  startNotes: ReturnType<typeof startNotes>;
  /** What its filter is told, as it is now. */
  networkOf(row: VmRow): NetworkRules;
  /** What each VM gets of the user's own files. */
  readonly fileSync: readonly SyncEntry[];
  /** After so long without use a VM is stopped, in ms; undefined: never. */
  readonly autoStopAfter: number | undefined;
};
