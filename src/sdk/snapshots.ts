/** Snapshots of the public TypeScript API; `Sandbox.restore` makes a VM of one. */
import type { SnapshotInfo } from "../contract/snapshots.ts";
import { withClient } from "./client.ts";

export const snapshots = {
  list: (): Promise<SnapshotInfo[]> => withClient((client) => client.call("snapshotList", {}, {})),
  /** @throws SNAPSHOT_NOT_FOUND */
  show: (name: string): Promise<SnapshotInfo> => withClient((client) => client.call("snapshotShow", { name }, {})),
  /** VMs that were restored from it go on. @throws SNAPSHOT_NOT_FOUND */
  delete: async (name: string): Promise<void> =>
    void (await withClient((client) => client.operation("snapshotDelete", { name }, {}))),
} as const;
